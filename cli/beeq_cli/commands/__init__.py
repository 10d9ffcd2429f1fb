"""The subcommands of ``beeq``, a module each, and the parts that only one of them needs."""
