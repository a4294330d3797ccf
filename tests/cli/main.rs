//! The command line, as a shell sees it: the real binary, its output and its exit codes.

mod config;
mod data;
mod demo;
mod exposition;
mod history;
mod journal;
mod metrics;
mod publish_subscribe;
mod serve;
mod support;
mod top;
