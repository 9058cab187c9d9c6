"""The report's style sheet: plain CSS that follows the reader's light or dark scheme and prints well."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --soft: #5c6470; --line: #dde1e7; --page: #fbfbfc; --card: #fff;
  --good: #12724e; --good-bg: #dff3ea; --bad: #a83a36; --bad-bg: #fbe5e4; --open: #7a5206; --open-bg: #fbeed2;
  --plain-bg: #e9ecf1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec; --soft: #a2a9b5; --line: #343a45; --page: #15181d;
  --card: #1c2027; --good: #7fdcb6; --good-bg: #173a2d; --bad: #f2a19d; --bad-bg: #44211f; --open: #f0cd86;
  --open-bg: #40320f; --plain-bg: #2b313b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.9rem; margin: 0 0 .6rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 .8rem; }
section { border-top: 1px solid var(--line); margin-top: 2.2rem; padding-top: 1.4rem; }
.over { color: var(--soft); margin: 0; font-size: .9rem; }
.verdict { font-size: 1.12rem; max-width: 60rem; margin: .2rem 0 .4rem; }
.reason, .none, figcaption, caption { color: var(--soft); }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem 1rem;
  min-width: 10rem; }
.card .label { display: block; color: var(--soft); font-size: .82rem; }
.card .value { font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.ci { color: var(--soft); font-size: .8rem; font-weight: 400; white-space: nowrap; }

.id { white-space: nowrap; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 0 1.5rem; }
.facts { display: flex; flex-wrap: wrap; gap: .4rem 2rem; margin: 0; }
.facts dt { color: var(--soft); font-size: .82rem; } .facts dd { margin: 0; overflow-wrap: anywhere; }
.badge { display: inline-block; border-radius: 999px; padding: .08rem .6rem; font-size: .78rem; font-weight: 600;
  background: var(--plain-bg); vertical-align: middle; white-space: nowrap; }
.badge.good { background: var(--good-bg); color: var(--good); }
.badge.bad { background: var(--bad-bg); color: var(--bad); }
.badge.open { background: var(--open-bg); color: var(--open); }
h1 .badge { font-size: .85rem; margin-left: .4rem; }
.scroll { overflow-x: auto; margin: 0 0 1.2rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 .4rem; font-size: .88rem; }
th, td { text-align: left; vertical-align: top; padding: .38rem .7rem .38rem 0; border-bottom: 1px solid var(--line); }
td { overflow-wrap: break-word; max-width: 26rem; }
th { color: var(--soft); font-weight: 600; }
td ul { margin: 0; padding-left: 1rem; }
b.reject { color: var(--bad); } b.clean { color: var(--open); } b.note { color: var(--soft); }
figure { margin: 0 0 1.4rem; overflow-x: auto; } figure svg { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .85rem; max-width: 50rem; }
pre, code { font: .8rem/1.5 ui-monospace, monospace; }
code { overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem; overflow-x: auto;
  white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .3rem 0; } summary { cursor: pointer; color: var(--soft); font-size: .88rem; }
.stack { display: flex; height: 18px; border-radius: 6px; overflow: hidden; margin-bottom: .8rem; }
.key { display: inline-block; width: .8rem; height: .8rem; border-radius: 3px; vertical-align: -1px; }
p.ok { color: var(--good); overflow-wrap: anywhere; } p.problem { color: var(--bad); font-weight: 600; }
footer { color: var(--soft); font-size: .82rem; margin-top: 3rem; }
@media print { details { display: none; } body { background: #fff; } }
"""
