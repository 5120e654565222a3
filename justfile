# The one entry point: `just` lists what there is. Each recipe is one command that also works without just.

_default:
    @just --list --unsorted

# Run all tests; arguments go to the test runner.
test *arguments:
    scripts/test -- {{ arguments }}

# Kill and start things at random, many times: `just soak --rounds 1000`, `just soak --starts 64 --rounds 20`.
soak *arguments:
    scripts/soak {{ arguments }}

# Fuzz what reads bytes from outside, a minute for each target; `just fuzz 600 envelope` for one target and longer.
fuzz *arguments:
    scripts/fuzz {{ arguments }}

# Measure beside agentgateway and other proxies; `just bench --quick` takes minutes instead of half an hour.
bench *arguments:
    scripts/bench {{ arguments }}

# Count instructions under callgrind, and compare with the baseline; `--update` makes a new one.
bench-instructions *arguments:
    scripts/bench-instructions {{ arguments }}

# What must pass before a change lands.
ci:
    .ci/run

# Format the code.
fmt:
    cargo fmt

# Lint everything.
lint:
    cargo clippy --locked --all-targets -- -D warnings

# Build and open the documentation of the library's own code.
doc:
    cargo doc --locked --no-deps --document-private-items --open

# Start the reference MCP server on a free port.
everything *arguments:
    cargo run --locked --example everything -- --http 127.0.0.1:0 {{ arguments }}
