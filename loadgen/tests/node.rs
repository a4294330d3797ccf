//! The command against a real node in this process.
#![allow(clippy::unwrap_used, reason = "tests fail by it")]

use std::process::Command;

use serde_json::Value;
use tickring::node::{Node, NodeConfig};

fn run(cores: usize, args: &str) -> Value {
    let mut config = NodeConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        cores,
        pin: false,
        ..NodeConfig::default()
    };
    config.limits.max_connections = 1_000;
    let node = Node::start(config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tickring-loadgen"))
        .args(args.split_whitespace())
        .args(["--connect", &node.local_addr().to_string(), "--json", "-"])
        .output()
        .unwrap();
    node.shutdown();
    node.wait().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{args}: {error}: {output:?}"));
    assert_eq!(output.status.code(), Some(0), "{args}: {report:#}");
    report
}

#[test]
fn a_node_passes_every_scenario() {
    for cores in [1, 2] {
        let report = run(
            cores,
            "fanout --connections 200 --topics 10 --subscribe-each 3 --publishers 2 --rate 1000 --seconds 1",
        );
        assert_eq!(report["delivered"], 60_000, "{report:#}");
        let report = run(cores, "pingpong --connections 4 --seconds 0.5");
        assert!(report["delivered"].as_u64() > Some(100), "{report:#}");
        let report = run(cores, "connect --connections 500 --hold 0.1");
        assert_eq!(report["connected"], 500, "{report:#}");
        let report = run(
            cores,
            "churn --connections 20 --cycles 2000 --topics 4 --rate 2000",
        );
        assert_eq!(report["cycles"], 2_000, "{report:#}");
        let report = run(
            cores,
            "stall --connections 50 --stalled 3 --rate 100 --period 0.5 --rounds 1",
        );
        assert_eq!(report["stall"]["stalled_delivered"], 300, "{report:#}");
    }
}
