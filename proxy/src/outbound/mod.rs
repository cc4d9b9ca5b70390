//! A connection from the application.
