//! The `tickring` command line: the server, and clients of it for a shell.
#![forbid(unsafe_code)]

mod cli;
mod config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
