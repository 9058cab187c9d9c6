"""posttrain-crew: a team of agents that post-trains language models, with its discipline kept in code.

The environment defaults below must be in place before crewai or litellm is imported anywhere: crewai otherwise opens
telemetry connections, asks on a terminal whether to share traces, and holds the process at exit for ten seconds when
the network is away; litellm downloads a price map. A user who sets one of these variables keeps that choice.
"""

from __future__ import annotations

import os

__version__ = "0.1.0"

for _name, _value in {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_name, _value)

__all__ = ["__version__"]
