"""The live server: events in, recommendations out (needs the extra `serve`)."""
