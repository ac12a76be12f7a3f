"""Where people train: a module a framework, each imported only by those who name it."""
