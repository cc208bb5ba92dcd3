//! Tests of the server over loopback.
