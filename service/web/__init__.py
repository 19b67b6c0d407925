"""The web pages: rendered on the server, kept live by small scripts. They work offline and without JavaScript."""
