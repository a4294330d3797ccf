//! The journal under a simulated disk and on real files.
