# Two commands do everything: `make demo` and `make test`. See README.md.

.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
AGENT := target/static/msb-agent
ROOTFS := target/rootfs
CFLAGS_STRICT := -std=c11 -Wall -Wextra -Wpedantic -Werror -O1 -g

.PHONY: help demo test check bench fuzz build agent setup setup-test header lint test-rust test-c clean

## help: this list
help:
	@sed -n 's/^## //p' Makefile

## demo: build everything and run a command in a sandbox through the C library
demo: setup build $(ROOTFS)
	@echo "== compiling examples/c/stream.c against include/microsandbox.h"
	@cc $(CFLAGS_STRICT) -Iinclude examples/c/stream.c -o target/stream \
		-Ltarget/release -lmicrosandbox -Wl,-rpath,'$$ORIGIN/release'
	@echo "== running it: a container sandbox on $(ROOTFS)"
	@MSB_HOME=$(CURDIR)/target/demo-home MSB_DRIVER=container target/stream $(ROOTFS)
	@echo "== done. The container driver shares the host's kernel: use it for code that you trust"
	@echo "   that far. target/release/msb doctor says what other isolation this machine offers."

## test: every test
test: setup-test lint test-rust test-c
	@echo "== all tests passed"

## check: the deep run: every test, sanitizers, valgrind, kills, soak, and fuzzers where they can be had
check: setup-test test
	@scripts/check
	@echo "== a hundred kills at random moments"
	@MSB_TEST_KILLS=100 $(CARGO) test --quiet -p msb-runner --test killing g_killed
	@echo "== soak: 100,000 commands, 1,000 at once, a reader that stops for a minute"
	@$(CARGO) test --quiet -p microsandbox --test soak -- --ignored --nocapture --test-threads=1
	@if cargo +nightly fuzz --version >/dev/null 2>&1; then scripts/fuzz; \
		else echo "== SKIPPED: fuzzers, which need nightly and cargo-fuzz"; fi
	@echo "== the deep run is green"

## bench: ratios against a baseline in the same run, written to benches/RESULTS.md
bench: setup build $(ROOTFS)
	@scripts/bench

## fuzz: each fuzz target for MSB_FUZZ_SECONDS (60); needs nightly and cargo-fuzz
fuzz:
	@scripts/fuzz

build: agent
	@echo "== building library, runner and msb (release)"
	@$(CARGO) build --release --quiet -p microsandbox -p msb-runner -p msb-cli
	@ln -sf libmicrosandbox.so target/release/libmicrosandbox.so.0

agent: setup
	@echo "== building the static agent"
	@RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --quiet -p msb-agent \
		--features static --profile agent --target $(TARGET) --target-dir target/agent
	@mkdir -p $(dir $(AGENT))
	@cmp -s target/agent/$(TARGET)/agent/msb-agent $(AGENT) || \
		install -m 755 target/agent/$(TARGET)/agent/msb-agent $(AGENT)

$(ROOTFS): | setup
	@echo "== making a root filesystem from busybox in $@"
	@scripts/rootfs $@

setup:
	@scripts/setup build

setup-test:
	@scripts/setup test

## header: write include/microsandbox.h anew from src/ffi
header:
	@$(CARGO) run --quiet -p xtask -- header

lint:
	@echo "== formatting and lints"
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	@$(CARGO) run --quiet -p xtask -- header --check

test-rust: agent $(ROOTFS)
	@echo "== building runner and msb (debug)"
	@$(CARGO) build --quiet --workspace
	@echo "== Rust tests"
	@$(CARGO) test --quiet --workspace

test-c: agent $(ROOTFS)
	@$(CARGO) build --quiet --workspace
	@scripts/test-c

clean:
	@$(CARGO) clean
