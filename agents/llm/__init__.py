"""The LLMs that agents think with: any litellm model, or the embedded playbook."""
