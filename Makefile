# Every target works in a fresh clone, as root on Debian or Ubuntu with Rust and Go.

.PHONY: demo test test-matrix limits fuzz torture vm-test test-kubernetes fmt lint

# IMAGE=debian shows a real image of some hundred MB instead of a small one.
demo:
	tools/demo $(IMAGE)

test:
	tools/test

test-matrix:
	tools/test-matrix

# Figures: 100 000 snapshots, a million requests, a hung repository. SNAPSHOTS and REQUESTS change the size.
limits:
	tools/install-deps
	cargo build --locked --release --example mock-cvmfs
	cargo test --locked --release --test limits -- --ignored --test-threads=1 --nocapture

# For example TARGET=filter SECONDS=600; needs cargo-fuzz, see fuzz/README.md.
fuzz:
	tools/fuzz $(TARGET) $(SECONDS)

# Kills the daemon with SIGKILL, and cuts the power of a disk on each file system: KILLS, CUTS, SEED.
torture:
	tools/torture "$(KILLS)" "$(CUTS)" "$(SEED)"

# NAMES="nerdctl socket" runs these VM tests instead of all.
vm-test:
	tools/vm-test $(NAMES)

test-kubernetes:
	tools/test-kubernetes

fmt:
	cargo fmt
	cargo fmt --manifest-path fuzz/Cargo.toml
	gofmt -w tools tests/conformance

lint:
	cargo fmt --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --all-targets --locked -- -D warnings
	cargo check --manifest-path fuzz/Cargo.toml --locked --target-dir target
	test -z "$$(gofmt -l tools tests/conformance)"
	tools/build actionlint
	build/tools/actionlint/bin/actionlint .github/workflows/*.yml
	cd tests/conformance && go vet ./...
	if command -v cargo-deny >/dev/null; then cargo deny check; fi
	if command -v shellcheck >/dev/null; then grep -lr '^#!.*bash' tools .ci vm-tests | xargs shellcheck; fi
