/*
 * floor [--root DIR] VERB [FLAG…] ID [COMMAND]   in the directory with the bundles that hack/bench makes
 * floor filter PID >FILE
 *
 * What the kernel alone asks for the operations that hack/bench times: the system calls that lead to the same container, in the
 * shortest form that they have, with nothing around them. No config is read (a bundle is known by its name), no fault is explained,
 * nothing is checked or sealed, and there is no C library. Its times are what no runtime can be below; the
 * distance to them is a runtime's own.
 *
 * FLOOR_CGROUP is the cgroup that holds those of the containers. A container's state is one file: its pid and its cgroup.
 * A seccomp filter is not compiled but taken, as the file seccomp.bpf, which `floor filter` gets of a process that has it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>

/* The kernel's answer: a negative one is an error number. */
static long kernel(long n, long a, long b, long c, long d, long e)
{
#if defined __x86_64__
	long answer;
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
	__asm__ volatile("syscall" : "=a"(answer) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
	return answer;
#elif defined __aarch64__
	register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = d,
		      x4 __asm__("x4") = e;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
#else
#error "floor knows no system calls of this architecture"
#endif
}

#define PICK(_0, _1, _2, _3, _4, _5, name, ...) name
#define CALL0(n) kernel(SYS_##n, 0, 0, 0, 0, 0)
#define CALL1(n, a) kernel(SYS_##n, (long)(a), 0, 0, 0, 0)
#define CALL2(n, a, b) kernel(SYS_##n, (long)(a), (long)(b), 0, 0, 0)
#define CALL3(n, a, b, c) kernel(SYS_##n, (long)(a), (long)(b), (long)(c), 0, 0)
#define CALL4(n, a, b, c, d) kernel(SYS_##n, (long)(a), (long)(b), (long)(c), (long)(d), 0)
#define CALL5(n, a, b, c, d, e) kernel(SYS_##n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))
#define CALL(...) PICK(__VA_ARGS__, CALL5, CALL4, CALL3, CALL2, CALL1, CALL0)(__VA_ARGS__)
#define MUST(...) must(CALL(__VA_ARGS__), __LINE__)

/* The compiler writes calls of these two. */
void *memset(void *to, int byte, size_t n)
{
	for (char *p = to; n--;)
		*p++ = byte;
	return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((char *)to)[i] = ((const char *)from)[i];
	return to;
}

static size_t length(const char *s)
{
	size_t n = 0;
	while (s[n])
		n++;
	return n;
}

static bool starts(const char *s, const char *with)
{
	while (*with && *s == *with)
		s++, with++;
	return !*with;
}

static bool same(const char *a, const char *b) { return starts(a, b) && starts(b, a); }

/* Appends to what ends at `end`; returns the new end. */
static char *put(char *end, const char *text)
{
	size_t n = length(text);
	memcpy(end, text, n + 1);
	return end + n;
}

static char *put_number(char *end, long n)
{
	char digits[24], *p = digits + sizeof digits;
	*--p = 0;
	do
		*--p = '0' + n % 10;
	while (n /= 10);
	return put(end, p);
}

static long must(long answer, int line)
{
	if (answer < 0 && answer > -4096) {
		char text[64], *end = put(put_number(put(text, "floor: line "), line), ": error ");
		end = put(put_number(end, -answer), "\n");
		CALL(write, 2, text, end - text);
		CALL(exit_group, 1);
	}
	return answer;
}

static const char *root = "/run/floor", *cgroups = "";

/* What `create` leaves for the others. */
static struct {
	int pid;
	char cgroup[256];
} state;

static const char *state_file(const char *id, const char *suffix)
{
	static char path[256];
	put(put(put(put(path, root), "/"), id), suffix);
	return path;
}

static void load(const char *id)
{
	long fd = MUST(openat, AT_FDCWD, state_file(id, ""), O_RDONLY | O_CLOEXEC);
	MUST(read, fd, &state, sizeof state);
	CALL(close, fd);
}

static void save(const char *id)
{
	const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC;
	long fd = CALL(openat, AT_FDCWD, state_file(id, ""), flags, 0600);
	if (fd == -ENOENT) {
		MUST(mkdirat, AT_FDCWD, root, 0700);
		fd = MUST(openat, AT_FDCWD, state_file(id, ""), flags, 0600);
	}
	MUST(write, fd, &state, sizeof state);
	CALL(close, fd);
}

/* Where a created container waits. */
static long gate(const char *id, bool listening)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	long fd = MUST(socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	put(address.sun_path, state_file(id, ".gate"));
	if (listening) {
		long answer = CALL(bind, fd, &address, sizeof address);
		if (answer == -ENOENT) {
			MUST(mkdirat, AT_FDCWD, root, 0700);
			answer = CALL(bind, fd, &address, sizeof address);
		}
		must(answer, __LINE__);
		MUST(listen, fd, 1);
	} else {
		MUST(connect, fd, &address, sizeof address);
		CALL(unlinkat, AT_FDCWD, address.sun_path, 0);
	}
	return fd;
}

/* runc's default: any node may be made, and the usual devices used. */
static void limit_devices(long cgroup)
{
#define LOAD(to, field) { BPF_LDX | BPF_MEM | BPF_W, to, 1, offsetof(struct bpf_cgroup_dev_ctx, field), 0 }
#define DO(op, to, n) { BPF_ALU64 | (op) | BPF_K, to, 0, 0, n }
#define IF(op, reg, n, jump) { BPF_JMP | (op) | BPF_K, reg, 0, jump, n }
	static const struct bpf_insn program[] = {
		LOAD(2, access_type),
		LOAD(3, access_type),
		DO(BPF_AND, 2, 0xffff),
		DO(BPF_RSH, 3, 16),
		LOAD(4, major),
		LOAD(5, minor),
		DO(BPF_MOV, 0, 1),
		IF(BPF_JEQ, 3, BPF_DEVCG_ACC_MKNOD, 14),
		IF(BPF_JNE, 2, BPF_DEVCG_DEV_CHAR, 12),
		IF(BPF_JEQ, 4, 136, 12),
		IF(BPF_JEQ, 4, 5, 7),
		IF(BPF_JNE, 4, 1, 9),
		IF(BPF_JEQ, 5, 3, 9),
		IF(BPF_JEQ, 5, 5, 8),
		IF(BPF_JEQ, 5, 7, 7),
		IF(BPF_JEQ, 5, 8, 6),
		IF(BPF_JEQ, 5, 9, 5),
		{ BPF_JMP | BPF_JA, 0, 0, 3, 0 },
		IF(BPF_JEQ, 5, 0, 3),
		IF(BPF_JEQ, 5, 1, 2),
		IF(BPF_JEQ, 5, 2, 1),
		DO(BPF_MOV, 0, 0),
		{ BPF_JMP | BPF_EXIT, 0, 0, 0, 0 },
	};
	union bpf_attr load = { .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insns = (long)program, .license = (long)"GPL" };
	load.insn_cnt = sizeof program / sizeof *program;
	union bpf_attr attach = { .target_fd = cgroup, .attach_type = BPF_CGROUP_DEVICE };
	attach.attach_flags = BPF_F_ALLOW_MULTI;
	attach.attach_bpf_fd = MUST(bpf, BPF_PROG_LOAD, &load, sizeof load);
	MUST(bpf, BPF_PROG_ATTACH, &attach, sizeof attach);
	CALL(close, attach.attach_bpf_fd);
}

/* What there may be is masked; what there is not needs no mask. */
static void mask(const char *source, const char *path, const char *type, long flags, const char *options, bool *made)
{
	long answer = CALL(mount, source, path, type, flags, options);
	if (answer != -ENOENT)
		must(answer, __LINE__);
	if (made && !answer)
		*made = true;
}

static void make_root(bool userns)
{
	static const struct {
		const char *name;
		unsigned major, minor;
	} devices[] = { { "null", 1, 3 }, { "zero", 1, 5 }, { "full", 1, 7 }, { "random", 1, 8 }, { "urandom", 1, 9 }, { "tty", 5, 0 } };
	static const char *const links[][2] = { { "/proc/self/fd", "fd" }, { "/proc/self/fd/0", "stdin" }, { "/proc/self/fd/1", "stdout" },
						{ "/proc/self/fd/2", "stderr" }, { "pts/ptmx", "ptmx" } };
	static const char *const directories[] = { "proc/acpi", "proc/asound", "proc/scsi", "sys/firmware" };
	static const char *const files[] = { "proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list", "proc/timer_stats",
					     "proc/sched_debug" };
	static const char *const readonly[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger" };
	const long closed = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	const char *masked = NULL;

	CALL(umask, 0);
	MUST(mount, NULL, "/", NULL, MS_SLAVE | MS_REC, NULL);
	MUST(mount, "rootfs", "rootfs", NULL, MS_BIND | MS_REC, NULL);
	MUST(chdir, "rootfs");
	MUST(mount, "proc", "proc", "proc", 0, NULL);
	MUST(mount, "tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
	MUST(mkdirat, AT_FDCWD, "dev/pts", 0755);
	MUST(mount, "devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
	MUST(mkdirat, AT_FDCWD, "dev/shm", 0755);
	MUST(mount, "shm", "dev/shm", "tmpfs", closed, "mode=1777,size=65536k");
	MUST(mkdirat, AT_FDCWD, "dev/mqueue", 0755);
	MUST(mount, "mqueue", "dev/mqueue", "mqueue", closed, NULL);
	/* without a network namespace of its own a user namespace may not mount sysfs; no row asks for that */
	MUST(mount, "sysfs", "sys", "sysfs", closed | MS_RDONLY, NULL);
	MUST(mount, "cgroup", "sys/fs/cgroup", "cgroup2", closed | MS_RDONLY, NULL);
	for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
		char inside[32], outside[32];
		put(put(inside, "dev/"), devices[i].name);
		put(put(outside, "/dev/"), devices[i].name);
		if (userns) {
			MUST(mknodat, AT_FDCWD, inside, S_IFREG | 0666, 0);
			MUST(mount, outside, inside, NULL, MS_BIND, NULL);
		} else {
			MUST(mknodat, AT_FDCWD, inside, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor));
		}
	}
	for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
		char inside[32];
		put(put(inside, "dev/"), links[i][1]);
		MUST(symlinkat, links[i][0], AT_FDCWD, inside);
	}
	CALL(umask, 022);
	for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
		bool made = false;
		if (masked)
			mask(masked, directories[i], NULL, MS_BIND, NULL, NULL);
		else
			mask("tmpfs", directories[i], "tmpfs", closed | MS_RDONLY, "nr_blocks=1,nr_inodes=1", &made);
		if (made)
			masked = directories[i];
	}
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		mask("dev/null", files[i], NULL, MS_BIND, NULL, NULL);
	for (size_t i = 0; i < sizeof readonly / sizeof *readonly; i++) {
		bool made = false;
		mask(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL, &made);
		if (made)
			MUST(mount, NULL, readonly[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL);
	}
	MUST(pivot_root, ".", ".");
	MUST(umount2, ".", MNT_DETACH);
	MUST(chdir, "/");
	MUST(mount, NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL);
}

static struct sock_filter filter[BPF_MAXINSNS];

/* From root with everything to the process of the bundle. */
static void become(const char *command, long instructions)
{
	static const char *const env[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "HOME=/root", NULL };
	const uint64_t kept = 1 << CAP_AUDIT_WRITE | 1 << CAP_KILL | 1 << CAP_NET_BIND_SERVICE;
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2] = { { .effective = kept, .permitted = kept } };
	struct rlimit files = { 1024, 1024 };
	struct sock_fprog program = { .len = instructions, .filter = filter };
	const char *argv[] = { command, NULL };

	MUST(setgroups, 0, NULL);
	MUST(prlimit64, 0, RLIMIT_NOFILE, &files, NULL);
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (!(kept >> cap & 1))
			MUST(prctl, PR_CAPBSET_DROP, cap, 0, 0, 0);
	MUST(capset, &header, sets);
	MUST(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	MUST(close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC);
	if (instructions)
		MUST(seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
	MUST(execve, command, argv, env);
}

static void loopback_up(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	long fd = MUST(socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	MUST(ioctl, fd, SIOCSIFFLAGS, &lo);
	CALL(close, fd);
}

static void map_ids(int pid)
{
	static const char *const names[] = { "/uid_map", "/gid_map" };
	for (int i = 0; i < 2; i++) {
		char path[64];
		put(put_number(put(path, "/proc/"), pid), names[i]);
		long fd = MUST(openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC);
		MUST(write, fd, "0 100000 65536\n", 15);
		CALL(close, fd);
	}
}

static long read_filter(void)
{
	long fd = MUST(openat, AT_FDCWD, "seccomp.bpf", O_RDONLY | O_CLOEXEC);
	long n = MUST(read, fd, filter, sizeof filter);
	CALL(close, fd);
	return n / sizeof *filter;
}

/* As exit codes are in a shell. */
static int wait_for(int pid)
{
	int status;
	MUST(wait4, pid, &status, 0, NULL);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Its last process may have ended without being gone. */
static void remove_cgroup(void)
{
	long answer;
	while ((answer = CALL(unlinkat, AT_FDCWD, state.cgroup, AT_REMOVEDIR)) == -EBUSY)
		CALL(sched_yield);
	must(answer, __LINE__);
}

enum ending { CREATE, DETACH, RUN };

static int create(const char *bundle, const char *id, enum ending ending)
{
	bool userns = same(bundle, "userns");
	const char *command = same(bundle, "wait") || starts(bundle, "resident") ? "/wait" : "/true";
	long instructions = same(bundle, "seccomp") ? read_filter() : 0, listening = ending == CREATE ? gate(id, true) : -1;
	struct clone_args args = { .exit_signal = SIGCHLD };
	char *cgroup = put(put(state.cgroup, cgroups), "/");
	int pair[2];
	char byte;

	for (const char *p = bundle; *p; p++)
		*cgroup++ = *p == '/' ? '-' : *p;
	MUST(mkdirat, AT_FDCWD, state.cgroup, 0755);
	args.cgroup = MUST(openat, AT_FDCWD, state.cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	args.flags = CLONE_INTO_CGROUP | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWCGROUP;
	if (!same(bundle, "no-net"))
		args.flags |= CLONE_NEWNET;
	if (userns)
		args.flags |= CLONE_NEWUSER;
	MUST(socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
	state.pid = MUST(clone3, &args, sizeof args);
	if (!state.pid) {
		CALL(close, pair[0]);
		MUST(setsid);
		if (userns) {
			MUST(read, pair[1], &byte, 1);
			MUST(setresgid, 0, 0, 0);
			MUST(setresuid, 0, 0, 0);
		}
		MUST(keyctl, KEYCTL_JOIN_SESSION_KEYRING, id);
		if (args.flags & CLONE_NEWNET)
			loopback_up();
		MUST(sethostname, "husk", 4);
		make_root(userns);
		MUST(read, pair[1], &byte, 1);
		if (ending == CREATE) {
			MUST(write, pair[1], "", 1);
			CALL(close, pair[1]);
			long starter = MUST(accept4, listening, NULL, NULL, SOCK_CLOEXEC);
			MUST(read, starter, &byte, 1);
		}
		become(command, instructions);
	}
	CALL(close, pair[1]);
	if (userns) {
		map_ids(state.pid);
		MUST(write, pair[0], "", 1);
	}
	limit_devices(args.cgroup);
	MUST(write, pair[0], "", 1);
	if (ending == RUN) {
		int code = wait_for(state.pid);
		remove_cgroup();
		return code;
	}
	/* that it waits, or has executed */
	if (MUST(read, pair[0], &byte, 1) == 0 && ending == CREATE)
		return 1;
	save(id);
	return 0;
}

static int start(const char *id)
{
	char byte;
	long fd = gate(id, false);
	MUST(write, fd, "", 1);
	return MUST(read, fd, &byte, 1);
}

static int exec(const char *id, const char *command)
{
	struct clone_args args = { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD };

	load(id);
	long init = MUST(pidfd_open, state.pid, 0);
	args.cgroup = MUST(openat, AT_FDCWD, state.cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	MUST(setns, init, CLONE_NEWPID);
	long pid = MUST(clone3, &args, sizeof args);
	if (!pid) {
		MUST(setsid);
		MUST(setns, init, CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP);
		MUST(keyctl, KEYCTL_JOIN_SESSION_KEYRING, id);
		become(command, 0);
	}
	return wait_for(pid);
}

static int show(const char *id)
{
	char text[512], stat[512], *end;

	load(id);
	put(put_number(put(text, "/proc/"), state.pid), "/stat");
	long fd = CALL(openat, AT_FDCWD, text, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		MUST(read, fd, stat, sizeof stat);
		CALL(close, fd);
	}
	end = put(put(put(text, "{\"id\":\""), id), fd < 0 ? "\",\"status\":\"stopped\",\"pid\":" : "\",\"status\":\"running\",\"pid\":");
	end = put(put_number(end, state.pid), "}\n");
	MUST(write, 1, text, end - text);
	return 0;
}

static int signal_to(const char *id, int signal)
{
	load(id);
	long init = MUST(pidfd_open, state.pid, 0);
	MUST(pidfd_send_signal, init, signal, NULL, 0);
	return 0;
}

static int remove(const char *id, bool force)
{
	load(id);
	if (force) {
		struct pollfd init = { .fd = MUST(pidfd_open, state.pid, 0), .events = POLLIN };
		MUST(pidfd_send_signal, init.fd, SIGKILL, NULL, 0);
		MUST(ppoll, &init, 1, NULL, NULL, 0);
		CALL(unlinkat, AT_FDCWD, state_file(id, ".gate"), 0); /* of one that was not started */
	}
	remove_cgroup();
	MUST(unlinkat, AT_FDCWD, state_file(id, ""), 0);
	return 0;
}

static int print_filter(const char *pid_text)
{
#ifndef PTRACE_SECCOMP_GET_FILTER
#define PTRACE_SECCOMP_GET_FILTER 0x420c
#endif
	int pid = 0;
	for (; *pid_text; pid_text++)
		pid = pid * 10 + (*pid_text - '0');
	MUST(ptrace, PTRACE_SEIZE, pid, 0, 0);
	MUST(ptrace, PTRACE_INTERRUPT, pid, 0, 0);
	MUST(wait4, pid, NULL, __WALL, NULL);
	long n = MUST(ptrace, PTRACE_SECCOMP_GET_FILTER, pid, 0, filter);
	MUST(write, 1, filter, n * sizeof *filter);
	return 0;
}

static int main_(char **argv, char **env)
{
	const char *verb = NULL, *bundle = "", *words[2] = { "", "" };
	bool detach = false, force = false;
	int n = 0;

	for (; *env; env++)
		if (starts(*env, "FLOOR_CGROUP="))
			cgroups = *env + length("FLOOR_CGROUP=");
	for (argv++; *argv; argv++) {
		if (same(*argv, "--root") && argv[1])
			root = *++argv;
		else if (same(*argv, "--bundle") && argv[1])
			bundle = *++argv;
		else if (same(*argv, "--version"))
			return CALL(write, 1, "floor: the system calls alone\n", 30) != 30;
		else if (**argv == '-')
			detach |= same(*argv, "--detach"), force |= same(*argv, "--force");
		else if (!verb)
			verb = *argv;
		else if (n < 2)
			words[n++] = *argv;
	}
	if (verb && n) {
		if (same(verb, "run"))
			return create(bundle, words[0], detach ? DETACH : RUN);
		if (same(verb, "create"))
			return create(bundle, words[0], CREATE);
		if (same(verb, "start"))
			return start(words[0]);
		if (same(verb, "exec"))
			return exec(words[0], words[1]);
		if (same(verb, "state"))
			return show(words[0]);
		if (same(verb, "kill"))
			return signal_to(words[0], same(words[1], "KILL") ? SIGKILL : SIGTERM);
		if (same(verb, "delete"))
			return remove(words[0], force);
		if (same(verb, "filter"))
			return print_filter(words[0]);
	}
	CALL(write, 2, "floor: no such operation\n", 25);
	return 1;
}

__attribute__((used)) static void begin(long *stack)
{
	char **argv = (char **)stack + 1;
	CALL(exit_group, main_(argv, argv + *stack + 1));
}

#if defined __x86_64__
__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
#else
__asm__(".globl _start\n_start: mov x29, 0\n mov x0, sp\n bl begin\n");
#endif
