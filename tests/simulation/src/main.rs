//! `tickring-sim`: runs seeds of the simulator.
#![forbid(unsafe_code)]

fn main() {
    let mut failed = 0;
    let n: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(100);
    for seed in 0..n {
        if let Err(f) = tickring_sim::run(seed, None) {
            failed += 1;
            if failed < 30 { eprintln!("{seed}: {}", f.reason); }
        }
    }
    eprintln!("{failed} of {n}");
}
