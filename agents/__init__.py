"""Who works on a run: one YAML file per role, the LLMs they think with, and the team that runs work orders."""
