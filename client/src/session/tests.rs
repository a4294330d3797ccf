//! Sessions against scripted servers.
