/*
 * trace HUSK FUNCTIONS COMMAND…   runs the command, which executes HUSK, and prints the functions of HUSK that it enters, in order
 *
 * FUNCTIONS is what `nm HUSK` says of them: an address, a letter and a name a line. Each begins with a breakpoint until it is entered,
 * in every process that executes HUSK; a process that executes something else runs on alone.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 1 << 16 };

static struct function {
	unsigned long address;
	char *name;
	unsigned char first;
	int seen;
} functions[MOST];
static size_t count;
static struct stat husk;

static int by_address(const void *a, const void *b)
{
	const struct function *f = a, *g = b;
	return (f->address > g->address) - (f->address < g->address);
}

static int memory(pid_t pid)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/mem", pid);
	int fd = open(path, O_RDWR);
	if (fd < 0)
		err(1, "%s", path);
	return fd;
}

static int is_husk(pid_t pid)
{
	char path[64];
	struct stat s;
	snprintf(path, sizeof path, "/proc/%d/exe", pid);
	return stat(path, &s) == 0 && s.st_dev == husk.st_dev && s.st_ino == husk.st_ino;
}

/* A fresh program: every function gets its breakpoint. */
static void begin(pid_t pid)
{
	int fd = memory(pid);
	for (size_t i = 0; i < count; i++)
		if (pread(fd, &functions[i].first, 1, functions[i].address) != 1 || pwrite(fd, "\xcc", 1, functions[i].address) != 1)
			err(1, "set a breakpoint in %s", functions[i].name);
	close(fd);
}

/* Whether the process stands at one of ours, which is gone then. */
static int passed(pid_t pid)
{
	struct user_regs_struct regs;
	if (ptrace(PTRACE_GETREGS, pid, 0, &regs) != 0)
		return 0;
	struct function key = { .address = regs.rip - 1 }, *f = bsearch(&key, functions, count, sizeof key, by_address);
	if (!f)
		return 0;
	if (!f->seen++)
		puts(f->name);
	int fd = memory(pid);
	if (pwrite(fd, &f->first, 1, f->address) != 1)
		err(1, "clear a breakpoint in %s", f->name);
	close(fd);
	regs.rip--;
	return ptrace(PTRACE_SETREGS, pid, 0, &regs) == 0;
}

int main(int argc, char **argv)
{
	char line[1 << 16], name[1 << 16], letter;
	int status;
	FILE *list;

	setvbuf(stdout, NULL, _IOLBF, sizeof line); /* what the command prints goes the same way */
	if (argc < 4 || stat(argv[1], &husk) != 0 || !(list = fopen(argv[2], "r")))
		errx(1, "trace HUSK FUNCTIONS COMMAND...");
	while (count < MOST && fgets(line, sizeof line, list))
		if (sscanf(line, "%lx %c %s", &functions[count].address, &letter, name) == 3 && strchr("tTwW", letter))
			functions[count++].name = strdup(name);
	qsort(functions, count, sizeof *functions, by_address);
	size_t kept = 0;
	for (size_t i = 0; i < count; i++) /* one of several names for the same function */
		if (!kept || functions[i].address != functions[kept - 1].address)
			functions[kept++] = functions[i];
	count = kept;
	pid_t first = fork(), pid;
	if (first == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		execvp(argv[3], argv + 3);
		err(127, "%s", argv[3]);
	}
	waitpid(first, &status, 0);
	ptrace(PTRACE_SETOPTIONS, first, 0, PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC);
	ptrace(PTRACE_CONT, first, 0, 0);
	while ((pid = waitpid(-1, &status, __WALL)) > 0) {
		if (!WIFSTOPPED(status)) {
			if (pid == first)
				return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
			continue;
		}
		int signal = WSTOPSIG(status), event = status >> 16;
		if (event == PTRACE_EVENT_EXEC && !is_husk(pid)) {
			ptrace(PTRACE_DETACH, pid, 0, 0);
			continue;
		}
		if (event == PTRACE_EVENT_EXEC)
			begin(pid);
		if (event || signal == SIGSTOP || (signal == SIGTRAP && passed(pid)))
			signal = 0;
		ptrace(PTRACE_CONT, pid, 0, signal);
	}
	return 1;
}
