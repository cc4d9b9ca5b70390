//! The record of one request and its response.
