"""Schedulers: pure pairs of "build the command" and "parse what it answered", and their templates."""
