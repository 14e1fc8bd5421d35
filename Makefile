# Every target works in a fresh clone, as root on Debian or Ubuntu with Rust and Go. `check` needs only Rust and protoc.

.PHONY: check demo test test-matrix limits fuzz torture vm-test test-kubernetes fmt lint

# For every save: needs no root, and a network only for crates that are not there yet. Less than a minute once all is built.
check:
	tools/check

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
	cargo build --locked --release --workspace --bin cvmfs-snapshotter --bin mock-cvmfs
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

# All that reads and runs nothing: style, lints, and the crates that we build on.
lint:
	tools/install-deps
	tools/static
	cargo check --manifest-path fuzz/Cargo.toml --locked --target-dir target
	test -z "$$(gofmt -l tools tests/conformance)"
	tools/build actionlint
	build/tools/actionlint/bin/actionlint .github/workflows/*.yml
	cd tests/conformance && go vet ./...
	grep -lr '^#!.*bash' tools .ci vm-tests | xargs shellcheck
	tools/deny
