# Everything on a fresh Debian machine with Rust: `make demo` shows the main job, `make test` runs all tests.
# Both need root: namespaces, /dev/fuse and, for the tests, Debian packages.

CARGO ?= cargo
OUTPUT := $(or $(CARGO_TARGET_DIR),target)
TOOLS := $(OUTPUT)/tools
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME)

.PHONY: build shims csi pod preload image demo test test-quick test-kernels test-node test-node-kubelet test-kubelet test-cluster chaos races fuzz bench docs check audit tools packages clean kubectl check-aarch64 dist dist-twice fetch-dist

# The mounter, what the node runs, the CSI driver, what programs in pods run, and kubectl's plugin.
build: shims csi pod kubectl
	$(CARGO) build --release --package hostmount

# With musl: what glibc does at its start costs three times the rest (docs/performance.md). It is put where the others are. Where the
# target cannot be had, glibc will do.
MUSL = $(patsubst %-gnu,%-musl,$(shell rustc --print host-tuple))
shims:
	if test -d "$$(rustc --print sysroot)/lib/rustlib/$(MUSL)" || rustup target add $(MUSL); then \
		$(CARGO) build --package hostmount-shims --profile shim --target $(MUSL) && \
		mkdir -p $(OUTPUT)/$$(rustc --print host-tuple)/shim && \
		ln -f $(OUTPUT)/$(MUSL)/shim/hostmount-shim $(OUTPUT)/$$(rustc --print host-tuple)/shim/hostmount-shim; \
	else \
		echo "without $(MUSL): mount and umount will start more slowly" >&2; \
		$(CARGO) build --package hostmount-shims --profile shim; \
	fi

csi:
	$(CARGO) build --package hostmount-csi --profile shim

pod:
	$(CARGO) build --package hostmount-pod --profile pod

# kubectl-hostmount, for administrators' machines.
kubectl:
	$(CARGO) build --package hostmount-kubectl --profile shim

# The flag undoes the one in .cargo/config.toml: what is loaded into dynamic programs is dynamic itself. REMAP is release/dist's.
preload:
	RUSTFLAGS="$(REMAP) -C target-feature=-crt-static" $(CARGO) build --package hostmount-preload --profile preload

# The mounter's image. BASE=registry.example.org/debian:bookworm-slim takes another base, PACKAGES="s3fs fuse3" other
# helpers, TAG=registry.example.org/hostmount:0.1.0 another name; FAMILY=s3 makes a small one, with a family of release/families.
BUILDER ?= $(if $(shell command -v podman),podman,docker)
TAG ?= localhost/hostmount:$(VERSION)$(addprefix -,$(FAMILY))
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
image: build preload
	mkdir -p $(OUTPUT)/image/release
	cp $(OUTPUT)/$$(rustc --print host-tuple)/release/hostmount $(OUTPUT)/image/release/
	cp $(OUTPUT)/$$(rustc --print host-tuple)/shim/hostmount-shim $(OUTPUT)/image/release/
	cp $(OUTPUT)/$$(rustc --print host-tuple)/shim/hostmount-csi $(OUTPUT)/image/release/
	cp $(OUTPUT)/$$(rustc --print host-tuple)/pod/hostmount-pod $(OUTPUT)/image/release/
	cp $(OUTPUT)/$$(rustc --print host-tuple)/preload/libhostmount_preload.so $(OUTPUT)/image/release/
	BUILDER="$(BUILDER)" BASE="$(BASE)" PACKAGES="$(PACKAGES)" SOURCE="$(SOURCE)" \
		release/image $(or $(FAMILY),full) $(OUTPUT)/image/release $(TAG) $(BUILD_OPTIONS)

# A release of this commit, in dist/ of cargo's target directory: programs, images, chart, manifests, SBOMs, checksums; IMAGES="full s3" makes
# these images alone. And the same twice, in two directories, whose bytes must be the same. See docs/releases.md.
dist: fetch-dist
	$(AS_ROOT) release/dist $(OUTPUT) $(IMAGES)

dist-twice: fetch-dist
	$(AS_ROOT) release/dist-twice $(OUTPUT) $(IMAGES)

fetch-dist:
	tests/fetch-tools $(TOOLS) cargo-cyclonedx
	tests/fetch-programs kubectl

demo:
	$(CARGO) build --release --package hostmount --package hostmount-shims --package hostmount-testbed
	$(AS_ROOT) $(OUTPUT)/$$(rustc --print host-tuple)/release/testbed

# A test that cannot run is a failure here, but for one that needs a later kernel: `make test HOSTMOUNT_TESTS=every` makes that one, too.
test: packages
	$(AS_ROOT) env HOSTMOUNT_TESTS=$(or $(HOSTMOUNT_TESTS),must-run) $(CARGO) test --workspace --tests -- --include-ignored

# While one works: under a minute once it is built. A test that cannot run is ignored, and says why.
test-quick:
	$(AS_ROOT) env HOSTMOUNT_TESTS=quick $(CARGO) test --workspace --tests -- --include-ignored

# On Debian's kernels, in qemu; others: make test-kernels KERNELS=6.18. See docs/kernels.md.
test-kernels: build preload
	$(AS_ROOT) tests/kernels/run $(OUTPUT) $(or $(KERNELS),5.10 6.1 6.12 newest)

# The demo and the tests on a Debian machine with systemd, in qemu, plain and with SELinux enforcing; some of it:
# make test-node MODES=selinux WHAT="demo storm". See docs/systemd-node.md.
test-node: packages preload shims pod
	mkdir -p $(OUTPUT)/systemd-node
	$(CARGO) build --release --package hostmount --package hostmount-shims --package hostmount-testbed
	$(CARGO) build --package hostmount-shims --package hostmount-pod --package hostmount-kubectl --package hostmount-testbed
	RUSTFLAGS="-C target-feature=-crt-static" $(CARGO) build --package hostmount-testbed --target-dir $(OUTPUT)/dynamic
	$(CARGO) test --workspace --tests --no-run --message-format=json-render-diagnostics >$(OUTPUT)/systemd-node/built.json
	$(AS_ROOT) env MODES="$(or $(MODES),plain selinux)" tests/systemd-node/run $(OUTPUT) $(WHAT)

# kubelet, containerd, the image and the static pod on such a machine. See docs/systemd-node.md.
test-node-kubelet: build preload
	mkdir -p $(OUTPUT)/systemd-node
	$(AS_ROOT) env MODES="$(or $(MODES),plain selinux)" FIRST="$(or $(FIRST),1)" tests/systemd-node/kubelet $(OUTPUT)

# With a real kubelet, built from Debian's source package. See docs/kubelet.md.
test-kubelet: build preload
	$(AS_ROOT) tests/kubelet-node/prepare $(OUTPUT) kubelet
	$(AS_ROOT) $(CARGO) test --quiet --test kubelet-node -- $(OUTPUT)/kubelet

# With a real API server and the manifests of deploy/: claims, Secrets, pods; some of it: STEPS="apply specifications
# operators". See docs/csi.md.
test-cluster: build preload packages
	$(AS_ROOT) tests/install-packages ../csi/tests/cluster/packages.txt
	$(AS_ROOT) tests/kubelet-node/prepare $(OUTPUT) kubelet kube-apiserver kube-controller-manager kube-scheduler
	ln -f $(OUTPUT)/kubectl/kubectl $(OUTPUT)/kubelet/kubectl
	cp $(OUTPUT)/$$(rustc --print host-tuple)/shim/kubectl-hostmount $(OUTPUT)/kubelet/
	$(AS_ROOT) $(CARGO) test --quiet --package hostmount-csi --test cluster -- $(abspath $(OUTPUT))/kubelet $(STEPS)

# Longer than in the tests: make chaos ROUNDS=1000; HOSTMOUNT_SEED=… repeats a run.
chaos: packages
	$(AS_ROOT) env HOSTMOUNT_TESTS=must-run ROUNDS=$(or $(ROUNDS),1000) $(CARGO) test --test integration chaos:: -- --nocapture

# Attackers that race, for longer: each round is a swap, a heal or a mount under attack.
races: packages
	$(AS_ROOT) env HOSTMOUNT_TESTS=must-run ROUNDS=$(or $(ROUNDS),300) $(CARGO) test --test integration races:: -- --nocapture

# All that reads what others write, with bytes of a fuzzer's: make fuzz SECONDS=3600, for each target. See docs/fuzzing.md.
fuzz:
	tests/fuzz $(abspath $(TOOLS)) $(or $(SECONDS),60)

bench: packages
	$(AS_ROOT) $(CARGO) bench

# The documentation as a book, its links checked. The first time mdBook is built, which takes minutes.
docs:
	tests/fetch-tools $(TOOLS) mdbook
	docs/make-book $(OUTPUT) $(TOOLS)

# What must hold for every commit, but for the tests.
check: tools
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
	$(CARGO) clippy --test kubelet-node -- --deny warnings
	$(CARGO) clippy --package hostmount-csi --test cluster -- --deny warnings
	RUSTDOCFLAGS="--deny warnings --allow rustdoc::private_intra_doc_links" $(CARGO) doc --workspace --no-deps --quiet
	$(TOOLS)/typos/bin/typos
	$(TOOLS)/lychee/bin/lychee --offline --include-fragments --no-progress --quiet ./*.md docs kubelet-config
	$(CARGO) fetch --locked --quiet
	$(TOOLS)/cargo-deny/bin/cargo-deny --offline --log-level error --all-features check bans licenses sources

# All programs for another processor, as far as it goes without one: Debian's gcc-aarch64-linux-gnu compiles the few parts that are not Rust.
# The preload engine's object is dynamic: see `preload`. Where the target cannot be had it says so.
AARCH64 := aarch64-unknown-linux-gnu
check-aarch64:
	if test -d "$$(rustc --print sysroot)/lib/rustlib/$(AARCH64)" || rustup target add $(AARCH64); then \
		$(AS_ROOT) tests/install-packages aarch64-packages.txt && \
		$(CARGO) clippy --workspace --exclude hostmount-preload --target $(AARCH64) -- --deny warnings && \
		RUSTFLAGS="-C target-feature=-crt-static" $(CARGO) clippy --package hostmount-preload --target $(AARCH64) -- --deny warnings; \
	else \
		echo "without $(AARCH64): not checked for it" >&2; \
	fi

# Advisories on the crates that we use, which are fetched.
audit: tools
	$(TOOLS)/cargo-deny/bin/cargo-deny --all-features check advisories

tools:
	tests/fetch-tools $(TOOLS)

packages:
	$(AS_ROOT) tests/install-packages
	tests/fetch-programs
	$(AS_ROOT) tests/fetch-releases $(OUTPUT)

clean:
	$(CARGO) clean
