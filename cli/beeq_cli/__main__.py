"""``python -m beeq_cli`` is ``beeq``."""

from beeq_cli.main import cli

if __name__ == "__main__":
    cli(prog_name="beeq")
