//! Bytes: listening, connecting, detecting, copying.
