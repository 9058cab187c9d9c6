"""What runs inside the sandbox: only the standard library, and no import of the rest of crew, which is not there."""
