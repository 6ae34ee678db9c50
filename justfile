# What CI runs. Writes nothing outside target/.
verify:
    cargo fmt --check
    cargo test --locked
    cargo clippy --locked --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
    if command -v cargo-deny >/dev/null; then cargo deny --locked check; else echo "cargo-deny is not installed: skipped"; fi

# Brings the sources into shape.
fix:
    cargo clippy --all-targets --fix --allow-dirty --allow-staged
    cargo fmt

# A three-node cluster on this machine.
dev *ARGS:
    cargo run --release -- dev {{ARGS}}

# Load on a cluster that runs.
bench *ARGS:
    cargo run --release -- bench {{ARGS}}
