"""What is raised where something that a user gave cannot be used."""


class InputError(ValueError):
    """Something that a user gave cannot be used. Its text is one line: what it is, what is wrong, what to do."""


class ConfigError(InputError):
    """A configuration that cannot be run. Its text is one line: the key, the value, the remedy."""
