//! Bounded lock-free rings between two threads.
