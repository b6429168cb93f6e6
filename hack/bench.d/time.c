/*
 * time ROUNDS PAUSE_MS ROWS BASE JSON NAME=PATH…   in a directory with the bundles that hack/bench makes; of the names "floor" is
 * the kernel's share, which has a column of ratios of its own
 *
 * Times the operations of container runtimes. Every round of a row runs each runtime once, in a new random order, so that
 * whatever else the machine does hits all alike. A process is timed from before its posix_spawn to after its wait4.
 * This is the subreaper: containers that create and run --detach leave behind become its children, so it knows without asking
 * when one has ended, and wait4 tells how much memory each took.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_RUNTIMES = 8, MAX_ARGS = 12, AT_ONCE = 50, IN_SEQUENCE = 100, CROWD = 1000 };

struct runtime {
	const char *name, *path;
	char root[4096 + 64];
};

/* What a row has found out about one runtime. */
struct cell {
	double *us;
	int n;
	long peak_kib;
	bool failed, absent;
};

/* The operation at work: any function below may end it. */
static struct {
	const struct runtime *runtime;
	/* while the clock runs */
	double began;
	long peak_kib;
	bool failed;
} now;

static double clock_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void die(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
	exit(125);
}

static void fail(const char *verb, int status)
{
	if (!now.failed)
		fprintf(stderr, "bench: %s %s: status %#x\n", now.runtime->name, verb, status);
	now.failed = true;
}

/* Starts the runtime with these arguments, up to NULL. */
static pid_t start(const char *verb, ...)
{
	static posix_spawn_file_actions_t null;
	static bool ready;
	char *argv[MAX_ARGS + 6] = { (char *)now.runtime->path, "--root", (char *)now.runtime->root, (char *)verb };
	int n = 4;
	pid_t pid;
	va_list args;

	if (!ready) {
		posix_spawn_file_actions_init(&null);
		posix_spawn_file_actions_addopen(&null, 0, "/dev/null", O_RDONLY, 0);
		posix_spawn_file_actions_addopen(&null, 1, "/dev/null", O_WRONLY, 0);
		ready = true;
	}
	va_start(args, verb);
	while (n < MAX_ARGS + 5 && (argv[n] = va_arg(args, char *)))
		n++;
	va_end(args);
	errno = posix_spawn(&pid, now.runtime->path, &null, NULL, argv, environ);
	if (errno)
		die(now.runtime->path);
	return pid;
}

/* Waits for this process, or with -1 for any; false when there is none. */
static bool reap(const char *verb, pid_t pid)
{
	struct rusage usage;
	int status;

	if (wait4(pid, &status, 0, &usage) < 0)
		return false;
	if (now.began && usage.ru_maxrss > now.peak_kib)
		now.peak_kib = usage.ru_maxrss;
	/* an orphan is a container's process: how it ends is not the runtime's doing */
	if (pid > 0 && status != 0)
		fail(verb, status);
	return true;
}

#define CALL(verb, ...) reap(verb, start(verb, __VA_ARGS__, NULL))

/* Until all containers have ended. */
static void until_alone(void)
{
	while (reap("", -1))
		;
}

/* What lies between these two is the operation; the rest prepares it and cleans up. */
static void begin(void)
{
	now.peak_kib = 0;
	now.began = clock_us();
}

static double end(void)
{
	double us = clock_us() - now.began;
	now.began = 0;
	return us;
}

static void force(const char *id)
{
	CALL("delete", "--force", id);
	until_alone();
}

/* The operations: each gives its time in microseconds. */
static double run_in(const char *bundle)
{
	begin();
	CALL("run", "--bundle", bundle, "r");
	return end();
}

static double run(void) { return run_in("true"); }
static double run_no_net(void) { return run_in("no-net"); }
static double run_userns(void) { return run_in("userns"); }
static double run_seccomp(void) { return run_in("seccomp"); }

/* crun keeps what libseccomp has made of a profile. */
static double run_seccomp_anew(void)
{
	char path[sizeof now.runtime->root + 32];
	struct dirent *entry;

	snprintf(path, sizeof path, "%s/.cache/seccomp", now.runtime->root);
	DIR *cache = opendir(path);
	while (cache && (entry = readdir(cache)))
		unlinkat(dirfd(cache), entry->d_name, 0);
	if (cache)
		closedir(cache);
	return run_seccomp();
}

/* The bundle is in memory, what must be read is the runtime. It takes the whole machine's cache to be sure of that. */
static double run_cold(void)
{
	sync();
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "3", 1) != 1)
		die("/proc/sys/vm/drop_caches");
	close(fd);
	return run();
}

/* In KiB: the process's share of the memory that it and others have. */
static double pss_of(const char *pid)
{
	char path[64], line[256];
	double kib = 0;

	snprintf(path, sizeof path, "/proc/%s/smaps_rollup", pid);
	FILE *rollup = fopen(path, "r");
	while (rollup && fgets(line, sizeof line, rollup))
		if (sscanf(line, "Pss: %lf", &kib) == 1)
			break;
	if (rollup)
		fclose(rollup);
	return kib;
}

/* Of each of many that wait, since they share what is the program's. They are this process's children by then. */
static double waiting(void)
{
	char children[4096] = "", path[64], bundle[16];
	double kib = 0;
	int n = 0;

	for (int i = 0; i < AT_ONCE && !now.failed; i++) {
		snprintf(bundle, sizeof bundle, "many/%d", i);
		CALL("create", "--bundle", bundle, bundle + 5);
	}
	snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
	FILE *list = fopen(path, "r");
	if (!list)
		die(path);
	if (!fgets(children, sizeof children, list))
		fail("create leaves no process", 0);
	fclose(list);
	for (char *pid = strtok(children, " "); pid; pid = strtok(NULL, " "), n++)
		kib += pss_of(pid);
	for (int i = 0; i < AT_ONCE; i++) {
		snprintf(bundle, sizeof bundle, "%d", i);
		CALL("delete", "--force", bundle);
	}
	until_alone();
	return n ? kib / n : 0;
}

static double create(void)
{
	begin();
	CALL("create", "--bundle", "true", "c");
	double us = end();
	force("c");
	return us;
}

static double start_(void)
{
	CALL("create", "--bundle", "true", "s");
	begin();
	CALL("start", "s");
	double us = end();
	until_alone();
	CALL("delete", "s");
	return us;
}

static double whole_life(void)
{
	begin();
	CALL("create", "--bundle", "true", "l");
	CALL("start", "l");
	until_alone();
	CALL("delete", "l");
	return end();
}

static double list(void)
{
	begin();
	CALL("list", NULL);
	return end();
}

static double exec(void)
{
	begin();
	CALL("exec", "resident", "/true");
	return end();
}

static double state(void)
{
	begin();
	CALL("state", "resident");
	return end();
}

static double kill_(void)
{
	CALL("run", "--detach", "--bundle", "wait", "k");
	begin();
	CALL("kill", "k", "KILL");
	double us = end();
	until_alone();
	CALL("delete", "k");
	return us;
}

static double delete(void)
{
	CALL("run", "--detach", "--bundle", "true", "d");
	until_alone();
	begin();
	CALL("delete", "d");
	return end();
}

static double delete_force(void)
{
	CALL("run", "--detach", "--bundle", "wait", "f");
	begin();
	CALL("delete", "--force", "f");
	double us = end();
	until_alone();
	return us;
}

static double in_sequence(void)
{
	begin();
	for (int i = 0; i < IN_SEQUENCE && !now.failed; i++)
		CALL("run", "--bundle", "true", "q");
	return end();
}

static double at_once(void)
{
	pid_t pids[AT_ONCE];

	begin();
	for (int i = 0; i < AT_ONCE; i++) {
		char bundle[16];
		snprintf(bundle, sizeof bundle, "many/%d", i);
		pids[i] = start("run", "--bundle", bundle, bundle + 5, NULL);
	}
	for (int i = 0; i < AT_ONCE; i++)
		reap("run", pids[i]);
	return end();
}

/*
 * divisor: so many times fewer rounds, since one takes so much longer.
 * The goals are husk's: at most so many times the floor's median and the base's, and so many microseconds; 0 is none.
 */
static const struct row {
	const char *key, *text;
	double (*operation)(void);
	int divisor;
	enum beside { NOTHING, RESIDENT, CROWDED } beside;
	double floor, base, most;
} rows[] = {
	{ "run", "run", run, 1, NOTHING, 1.4, 0.65, 0 },
	{ "no-net", "run without network namespace", run_no_net, 1, NOTHING, 1.4, 0, 0 },
	{ "seccomp-anew", "run with a seccomp profile", run_seccomp_anew, 1, NOTHING, 1.5, 0.2, 0 },
	{ "seccomp", "the same, crun's filter cached", run_seccomp, 1, NOTHING, 0, 0.6, 0 },
	{ "userns", "run with user namespace", run_userns, 1, NOTHING, 1.4, 0, 0 },
	{ "life", "create + start + delete", whole_life, 1, NOTHING, 1.8, 0.55, 0 },
	{ "create", "create", create, 1, NOTHING, 1.5, 0, 0 },
	{ "start", "start", start_, 1, NOTHING, 0, 0.45, 450 },
	{ "state", "state", state, 1, RESIDENT, 0, 0.45, 450 },
	{ "kill", "kill", kill_, 1, NOTHING, 0, 0.45, 450 },
	{ "delete", "delete", delete, 1, NOTHING, 0, 0.45, 450 },
	{ "force", "delete --force of a running one", delete_force, 1, NOTHING, 0, 0, 1000 },
	{ "exec", "exec", exec, 1, RESIDENT, 1.6, 0.55, 0 },
	{ "at-once", "50 × run at once", at_once, 10, NOTHING, 0, 0.65, 0 },
	{ "sequence", "100 × run in sequence", in_sequence, 10, NOTHING, 0, 0.65, 0 },
	{ "cold", "run, nothing in the page cache", run_cold, 6, NOTHING, 0, 0.7, 0 },
	{ "waiting", "KiB of each of 50 created (PSS)", waiting, 20, NOTHING, 0, 0, 100 },
	{ "among", "create, start, delete among 1 000", whole_life, 1, CROWDED, 1.8, 0.55, 0 },
	{ "list", "list of 1 000", list, 1, CROWDED, 0, 0, 50000 },
};
enum { ROWS = sizeof rows / sizeof *rows };

/* A crowd takes long to make, and runc's some GiB: only when asked for by name. */
static bool chosen(const char *list, const struct row *row)
{
	size_t n = strlen(row->key);

	if (!*list)
		return row->beside != CROWDED;
	for (const char *p = list; (p = strstr(p, row->key)); p++)
		if ((p == list || p[-1] == ',') && (!p[n] || p[n] == ','))
			return true;
	return false;
}

/* A bundle of its own for each, with a cgroup of its own. */
static void bundle_for_crowd(const char *path)
{
	static const char like[] = "many-0";
	char config[65536], file[128], cgroup[64], *at;
	size_t n = 0;

	snprintf(cgroup, sizeof cgroup, "%s", path);
	for (at = cgroup; (at = strchr(at, '/')); )
		*at = '-';
	FILE *f = fopen("many/0/config.json", "r");
	if (f)
		n = fread(config, 1, sizeof config - 1, f);
	config[n] = 0;
	if (!f || fclose(f) || !(at = strstr(config, like)))
		die("many/0/config.json");
	snprintf(file, sizeof file, "%s/config.json", path);
	if (mkdir(path, 0755) < 0 || !(f = fopen(file, "w")))
		die(file);
	fprintf(f, "%.*s%s%s", (int)(at - config), config, cgroup, at + sizeof like - 1);
	fclose(f);
}

/* Containers that wait beside what is timed. They are children of a process of their own, which gives no signal at its end: so
 * until_alone waits for neither. They go when `until` is closed. */
static pid_t crowd(const int until[2], const int ready[2])
{
	char bundle[64], *id;
	char byte;

	pid_t pid = syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
	if (pid < 0)
		die("clone");
	if (pid > 0)
		return pid;
	close(until[1]);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		die("become subreaper");
	snprintf(bundle, sizeof bundle, "crowd/%s", now.runtime->name);
	if ((mkdir("crowd", 0755) < 0 && errno != EEXIST) || (mkdir(bundle, 0755) < 0 && errno != EEXIST))
		die(bundle);
	id = bundle + strlen(bundle);
	*id++ = '/';
	for (int i = 0; i < CROWD && !now.failed; i++) {
		sprintf(id, "%d", i);
		if (access(bundle, F_OK) < 0)
			bundle_for_crowd(bundle);
		CALL("create", "--bundle", bundle, id);
	}
	if (!now.failed && write(ready[1], "", 1) == 1)
		read(until[0], &byte, 1);
	for (int i = 0; i < CROWD; i++) {
		sprintf(id, "%d", i);
		CALL("delete", "--force", id);
	}
	until_alone();
	_exit(0);
}

static void measure(const struct row *row, struct runtime *runtimes, struct cell *cells, int n, int rounds, int pause_ms)
{
	struct timespec pause = { pause_ms / 1000, pause_ms % 1000 * 1000000L };
	int order[MAX_RUNTIMES], untils[MAX_RUNTIMES], until[2], ready[2];
	pid_t crowds[MAX_RUNTIMES];
	char byte;

	rounds = (rounds + row->divisor - 1) / row->divisor;
	for (int i = 0; i < n; i++) {
		order[i] = i;
		cells[i] = (struct cell){ .us = calloc(rounds, sizeof(double)) };
		now.runtime = &runtimes[i];
		now.failed = false;
		/* it knows its containers by their names alone */
		cells[i].absent = row->operation == list && !strcmp(now.runtime->name, "floor");
		if (row->beside == RESIDENT) {
			char bundle[64];
			snprintf(bundle, sizeof bundle, "resident/%s", runtimes[i].name);
			CALL("run", "--detach", "--bundle", bundle, "resident");
		}
		if (row->beside == CROWDED && !cells[i].absent) {
			if (pipe2(until, O_CLOEXEC) < 0 || pipe2(ready, O_CLOEXEC) < 0)
				die("pipe");
			crowds[i] = crowd(until, ready);
			close(until[0]);
			close(ready[1]);
			if (read(ready[0], &byte, 1) != 1)
				fail("the first 1 000 times create", 0);
			close(ready[0]);
			untils[i] = until[1];
		}
		cells[i].failed = now.failed;
	}
	/* round -1 fills the caches */
	for (int round = -1; round < rounds; round++) {
		for (int i = n - 1; i > 0; i--) {
			int j = random() % (i + 1), swapped = order[i];
			order[i] = order[j];
			order[j] = swapped;
		}
		for (int i = 0; i < n; i++) {
			struct cell *cell = &cells[order[i]];
			if (cell->failed || cell->absent)
				continue;
			now.runtime = &runtimes[order[i]];
			now.failed = false;
			now.peak_kib = 0;
			nanosleep(&pause, NULL);
			double us = row->operation();
			cell->failed = now.failed;
			if (round < 0 || now.failed)
				continue;
			cell->us[cell->n++] = us;
			if (now.peak_kib > cell->peak_kib)
				cell->peak_kib = now.peak_kib;
		}
	}
	for (int i = 0; i < n && row->beside == RESIDENT; i++) {
		now.runtime = &runtimes[i];
		CALL("delete", "--force", "resident");
	}
	/* a later crowd has the descriptors of those before it */
	for (int i = 0; i < n && row->beside == CROWDED; i++)
		if (!cells[i].absent)
			close(untils[i]);
	for (int i = 0; i < n && row->beside == CROWDED; i++)
		if (!cells[i].absent)
			waitpid(crowds[i], NULL, __WCLONE);
	until_alone();
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double quantile(const struct cell *cell, double q)
{
	return cell->n ? cell->us[(int)((cell->n - 1) * q + 0.5)] : 0;
}

static void print_us(double us)
{
	long n = us + 0.5;
	char text[24];

	if (n >= 10000)
		snprintf(text, sizeof text, "%ld %03ld", n / 1000, n % 1000);
	else
		snprintf(text, sizeof text, "%ld", n);
	printf(" %8s |", text);
}

static void print_ratio(const struct cell *of, const struct cell *to)
{
	if (to->failed || to->absent)
		printf("      - |");
	else
		printf(" %6.2f |", quantile(of, 0.5) / quantile(to, 0.5));
}

/* floor: its index, or -1 */
static void print_row(const struct row *row, const struct cell *cells, int n, int base, int floor)
{
	/* printf counts bytes, × has two */
	printf("| %-*s |", (int)(33 + (strstr(row->text, "×") != NULL)), row->text);
	for (int i = 0; i < n; i++) {
		if (cells[i].failed || cells[i].absent) {
			printf("    %5s |          |        |%s       |", cells[i].failed ? "fails" : "-", floor < 0 ? "" : "        |");
			continue;
		}
		print_us(quantile(&cells[i], 0.5));
		print_us(quantile(&cells[i], 0.9));
		print_ratio(&cells[i], &cells[base]);
		if (floor >= 0)
			print_ratio(&cells[i], &cells[floor]);
		printf(" %5ld |", cells[i].peak_kib);
	}
	putchar('\n');
	fflush(stdout);
}

static void print_head(const struct runtime *runtimes, int n, int base, int floor)
{
	printf("| %-33s |", "microseconds");
	for (int i = 0; i < n; i++)
		printf(" %8.8s |      p90 | ÷%-5.5s |%s   KiB |", runtimes[i].name, runtimes[base].name, floor < 0 ? "" : " ÷floor |");
	printf("\n| --------------------------------- |");
	for (int i = 0; i < n; i++)
		printf(" -------: | -------: | -----: |%s ----: |", floor < 0 ? "" : " -----: |");
	putchar('\n');
}

static void json_row(FILE *out, const struct row *row, const struct cell *cells, const struct runtime *runtimes, int n, bool first)
{
	fprintf(out, "%s\n    {\"key\": \"%s\", \"operation\": \"%s\", \"goal\": {\"floor\": %.2f, \"base\": %.2f, \"most\": %.0f}, \"runtimes\": {",
		first ? "" : ",", row->key, row->text, row->floor, row->base, row->most);
	for (int i = 0; i < n; i++) {
		const struct cell *c = &cells[i];
		fprintf(out, "%s\n      \"%s\": ", i ? "," : "", runtimes[i].name);
		if (c->failed || c->absent)
			fprintf(out, "null");
		else
			fprintf(out, "{\"median\": %.1f, \"p90\": %.1f, \"least\": %.1f, \"samples\": %d, \"peak_kib\": %ld}",
				quantile(c, 0.5), quantile(c, 0.9), quantile(c, 0), c->n, c->peak_kib);
	}
	fprintf(out, "}}");
}

int main(int argc, char **argv)
{
	struct runtime runtimes[MAX_RUNTIMES] = { 0 };
	struct cell cells[MAX_RUNTIMES];
	char here[4096];
	int n = argc - 6, base = 0, floor = -1;
	bool first = true, failed = false;

	if (n < 1 || n > MAX_RUNTIMES) {
		fprintf(stderr, "bench: %d runtimes: from 1 to %d can be timed\n", n, MAX_RUNTIMES);
		return 125;
	}
	int rounds = atoi(argv[1]), pause_ms = atoi(argv[2]);
	if (!getcwd(here, sizeof here))
		die("getcwd");
	for (int i = 0; i < n; i++) {
		char *equals = strchr(argv[6 + i], '=');
		*equals = 0;
		runtimes[i].name = argv[6 + i];
		runtimes[i].path = equals + 1;
		snprintf(runtimes[i].root, sizeof runtimes[i].root, "%s/state/%s", here, runtimes[i].name);
		if (!strcmp(runtimes[i].name, argv[4]))
			base = i;
		if (!strcmp(runtimes[i].name, "floor"))
			floor = i;
	}
	int want = *argv[3] != 0, have = 0;
	for (const char *p = argv[3]; *p; p++)
		want += *p == ',';
	for (int r = 0; r < ROWS; r++)
		have += chosen(argv[3], &rows[r]);
	if (want && want != have) {
		fprintf(stderr, "bench: --rows %s: %d of them are known\n", argv[3], have);
		return 125;
	}
	FILE *json = fopen(argv[5], "w");
	if (!json)
		die(argv[5]);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		die("become subreaper");
	srandom(time(NULL));

	fprintf(json, "{\n  \"rounds\": %d,\n  \"pause_ms\": %d,\n  \"base\": \"%s\",\n  \"rows\": [", rounds, pause_ms, runtimes[base].name);
	print_head(runtimes, n, base, floor);
	for (int r = 0; r < ROWS; r++) {
		if (!chosen(argv[3], &rows[r]))
			continue;
		measure(&rows[r], runtimes, cells, n, rounds, pause_ms);
		for (int i = 0; i < n; i++) {
			qsort(cells[i].us, cells[i].n, sizeof(double), ascending);
			failed |= cells[i].failed;
		}
		print_row(&rows[r], cells, n, base, floor);
		json_row(json, &rows[r], cells, runtimes, n, first);
		first = false;
		for (int i = 0; i < n; i++)
			free(cells[i].us);
	}
	fprintf(json, "\n  ]\n}\n");
	if (fclose(json))
		die(argv[5]);
	return failed;
}
