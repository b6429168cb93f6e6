# Sourced by the scripts beside it: the cache, what the host must have, the target, other runtimes to compare with.
# shellcheck shell=bash
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
HUSK_CACHE=${HUSK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/husk}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
	say "$@"
	exit 125 # as env, timeout and docker run: the tool failed, not the command it runs
}

# need PACKAGE…: installs the Debian packages that are missing
need() {
	local p missing=()
	command -v dpkg-query >/dev/null || die "find dpkg: this is not Debian; these scripts install what they need with apt-get"
	for p; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	[ "$(id -u)" = 0 ] || die "install ${missing[*]}: not root; run: sudo apt-get install ${missing[*]}"
	say "installing ${missing[*]}"
	local get=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
	"${get[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 </dev/null && return
	# the lists may be missing or too old for the mirror
	"${get[@]}" update >/dev/null </dev/null || true
	"${get[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null </dev/null || die "install ${missing[*]}: apt-get failed, see above"
}

# rust: sets and exports TARGET: static on musl, or on glibc where rustup cannot get musl
rust() {
	[ -z "${TARGET:-}" ] || return 0
	[ -n "${CARGO_HOME:-}" ] || export CARGO_HOME=$HOME/.cargo
	PATH=$PATH:$CARGO_HOME/bin
	command -v cargo >/dev/null || die "find cargo: not installed; get Rust from https://rustup.rs, then run this again"
	need gcc libc6-dev # cc links the build scripts, also for musl
	local arch
	arch=$(uname -m)
	TARGET=$arch-unknown-linux-musl
	if ! [ -d "$(cd "$REPO" && rustc --print sysroot)/lib/rustlib/$TARGET/lib" ]; then
		say "rustup target add $TARGET"
		if ! (cd "$REPO" && rustup target add "$TARGET") >/dev/null 2>&1 </dev/null; then
			say "rustup cannot add $TARGET: glibc, linked statically, instead"
			TARGET=$arch-unknown-linux-gnu
			export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
		fi
	fi
	export TARGET
}

# sid_apt COMMAND…: apt on Debian unstable with lists of its own, so that the host's sources stay as they are
sid_apt() {
	local a=$HUSK_CACHE/apt mirror
	need debian-archive-keyring
	if [ ! -e "$a/apt.conf" ]; then
		mkdir -p "$a/lists/partial" "$a/archives/partial"
		mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources 2>/dev/null | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n1 || true)
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} sid main" >"$a/sources.list"
		printf '%s "%s";\n' Dir::State "$a" Dir::State::Lists "$a/lists" Dir::State::status /dev/null \
			Dir::Cache "$a" Dir::Cache::archives "$a/archives" Dir::Etc::SourceList "$a/sources.list" Dir::Etc::SourceParts /dev/null \
			Acquire::Check-Date false Acquire::Check-Valid-Until false Acquire::Languages none APT::Sandbox::User root >"$a/apt.conf"
	fi
	APT_CONFIG=$a/apt.conf flock "$a/lock" "$@" </dev/null
}

# sid_fetch DIRECTORY PACKAGE…: downloads packages of Debian unstable, after sid_apt apt-get update
sid_fetch() {
	local dir=$1
	shift
	mkdir -p "$dir"
	(cd "$dir" && sid_apt apt-get -qq download "$@" >&2) || die "download $* from Debian unstable: apt-get failed, see above"
}

# sid_depends PACKAGE…: the packages and all that they depend on
sid_depends() {
	sid_apt apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@" | grep '^[a-z]'
}

# seccomp_profile: prints the path of Podman's default profile, from Debian unstable
seccomp_profile() {
	local d=$HUSK_CACHE/seccomp
	if [ ! -e "$d/podman.json" ]; then
		rm -rf "$d" "$d.new"
		sid_apt apt-get -qq update >&2
		sid_fetch "$d.new" golang-github-containers-common
		dpkg-deb --fsys-tarfile "$d.new"/*.deb | tar -xO ./usr/share/containers/seccomp.json >"$d.new/podman.json"
		rm "$d.new"/*.deb
		mv "$d.new" "$d"
	fi
	echo "$d/podman.json"
}

# peers: prints the paths of a recent runc and a recent crun, from Debian unstable, with the libraries they want
peers() {
	local d=$HUSK_CACHE/peers f
	if [ ! -x "$d/crun" ]; then
		need patchelf
		say "fetching runc and crun"
		rm -rf "$d" "$d.new"
		sid_apt apt-get -qq update >&2
		# shellcheck disable=SC2046
		sid_fetch "$d.new/deb" $(sid_depends runc crun)
		for f in "$d.new"/deb/*.deb; do dpkg-deb -x "$f" "$d.new/root"; done
		mkdir "$d.new/lib"
		find "$d.new/root/usr/lib/$(uname -m)-linux-gnu" -maxdepth 1 -name '*.so*' -exec cp -L {} "$d.new/lib" \;
		for f in runc crun; do
			cp "$(find "$d.new/root" -type f -name $f -perm -1 | head -n1)" "$d.new/$f"
			# absolute, and inherited by the libraries (force): they must find each other and never the host's
			patchelf --set-interpreter "$d/lib/$(basename "$(patchelf --print-interpreter "$d.new/$f")")" --force-rpath --set-rpath "$d/lib" "$d.new/$f"
		done
		rm -rf "$d.new/deb" "$d.new/root"
		mv "$d.new" "$d"
	fi
	for f in runc crun; do
		"$d/$f" --version >/dev/null || die "run $d/$f: does not start; remove $d and try again"
		echo "$d/$f"
	done
}

# pure_cgroup2: cgroup v2 alone, also where the host is a hybrid one; in a mount namespace of one's own
pure_cgroup2() {
	[ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ] || return 0
	umount -R /sys/fs/cgroup 2>/dev/null || umount -R -l /sys/fs/cgroup
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
}

# bundle_parts HUSK: into the current directory: rootfs with /true and /wait, seccomp.json of the size and kind of Docker's profile, and the
# config.json of `husk spec`; needs gcc, libc6-dev, jq
bundle_parts() {
	local d=$REPO/hack/bench.d
	mkdir -p rootfs/{proc,dev,sys} # as an image has them
	cc -O2 -static -nostartfiles -o rootfs/true "$d/payload.c"
	cc -O2 -static -nostartfiles -DWAIT -o rootfs/wait "$d/payload.c"
	cpp -dM -include sys/syscall.h /dev/null | sed -n 's/^#define __NR_\([a-z0-9_]*\) .*/"\1"/p' |
		jq -n --arg machine "$(uname -m)" -f "$d/seccomp.jq" >seccomp.json
	"$1" spec
}

# block FILE: prints README's example of this file
block() {
	awk -v file="$1" '/^```/ { on = !on && $2 == file; if (on) found = 1; next } on; END { exit !found }' "$REPO/README.md" ||
		die "find '$1' in README.md: it has no such example"
}
# examples: the files that README has examples of
examples() { sed -n 's/^```[a-z]* \(\/.*\)/\1/p' "$REPO/README.md"; }

# binaries: builds husk, containerd's shim, and what makes their documentation, with `rust` done; prints the directory of all three
binaries() {
	local built=${CARGO_TARGET_DIR:-$REPO/target}/$TARGET
	cargo build --quiet --release --features shim --bin husk --bin containerd-shim-husk-v2 --target "$TARGET" >&2 || return
	# as the tests are built, which share it
	cargo build --quiet --all-features --bin husk-docs --target "$TARGET" >&2 || return
	cp "$built/debug/husk-docs" "$built/release/husk-docs"
	echo "$built/release"
}
