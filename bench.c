/* bench.c - what eventmpm.h costs, alone and beside others, on your machine
 *
 *     cc -O2 -pthread bench.c -o bench
 *     ./bench                          this server and the floor, the short set
 *     ./bench --compare                and nginx, Apache, lighttpd, h2o, in all
 *                                      scenes: half an hour
 *     ./bench --url http://HOST:PORT/  a server that somebody else has started
 *     ./bench --micro                  the parser, the queue, the wheel alone
 *     ./bench --scenes children        are the children one server?
 *     ./bench --check                  does the generator tell the truth?
 *     ./bench --help                   all options
 *
 * It starts what it measures, on loopback and a free port, with configurations
 * that it writes to a temporary folder, and ends it again, by process id, also
 * after ^C. Nothing but libc and POSIX threads is needed; Linux only.
 *
 * HOW IT MEASURES
 *   rounds      Per scene all servers run at the same time, at rest but for the
 *               one that is measured; one after the other, in reversed order in
 *               every second round. The tables have the median of the rounds
 *               and (largest - smallest) / median as spread; a ratio is the
 *               median of the ratios of each round, so that slow noise cancels.
 *   floor       An epoll loop that looks for blank lines and sends a canned
 *               reply: what the kernel alone costs here.
 *   the same    for all: 13 bytes of text/plain (what a reply weighs with its
 *               head is printed), the number of processes, one listening socket
 *               that they share, no access log, no limit of requests per
 *               connection. The number of worker threads is printed.
 *   CPU         of the whole process tree, by the kernel's nanosecond clocks of
 *               its processes; user and system as /proc/PID/stat divides them.
 *               Work that the kernel does for loopback inside a system call of
 *               the server counts as the server's, for all alike.
 *   closed loop Each connection sends its next request when the last reply is
 *               complete. The usual figure, but a server that stalls is asked
 *               less meanwhile: its percentiles look better than a user's.
 *   open loop   (--rate) Requests are due at fixed times, whatever the server
 *               does, and latency counts from that time, for those that had to
 *               wait for a connection and those never answered too.
 *   percentiles from a histogram with 0.8 % wide steps, all threads together.
 *   errors      No connection; closed before the reply; status not 2xx or 3xx;
 *               no reply in time (--timeout; it enters the percentiles with its
 *               age); reply malformed or of the wrong length. None of these is
 *               a request in requests/s.
 *   others      The CPU that neither the server nor this program used: where it
 *               is not small, the figures are noise. The last lines tell, and
 *               what a hypervisor took.
 *
 * `grep -n '^ \* >>' bench.c` prints the contents. Public domain or MIT, as
 * eventmpm.h is.
 */
#ifndef _GNU_SOURCE
#  define _GNU_SOURCE 1
#endif
#define EVENTMPM_IMPLEMENTATION
#include "eventmpm.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <inttypes.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---------------------------------------------------------------------------
 * >>base -- options, time, the end
 * ------------------------------------------------------------------------- */

#define COUNT(a)       (sizeof(a) / sizeof((a)[0]))
#define at_load(p)     __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define at_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define MAX_ROUNDS     64
#define MAX_SETTINGS   32
#define HELLO          "Hello, World!"

static struct {
    const char *url, *json, *plot, *scenes, *servers, *header;
    const char *against_binary;
    char        against_name[24];
    const char *set[MAX_SETTINGS];
    int    nset, rounds, processes, workers, threads, connections, pipeline;
    int    timeout_ms, crowd, idle, pid, kills;
    int    compare, close, pin, like_wrk;
    double seconds, rate;
} opt;

static char  tmp_dir[64];              /* "" until it exists */
static char  self[4096];               /* our own binary */
static char  command_line[1024];
static volatile sig_atomic_t interrupted;   /* the signal, 0: none */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    if (clock_gettime(id, &t) < 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2),
                                                     noreturn));
static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("\nbench: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);                           /* clean_up() ends what was started */
}

static void *need(size_t count, size_t size)
{
    void *p = calloc(count != 0 ? count : 1, size);
    if (p == NULL)
        die("out of memory");
    return p;
}

/* Sleeps until `until_ns`; the place where the main thread notices a signal. */
static void sleep_until(uint64_t until_ns)
{
    for (;;) {
        const uint64_t now = now_ns();
        struct timespec t = { 0, 0 };
        if (interrupted == SIGALRM)
            die("a scene took far longer than its bound");
        if (interrupted) {
            fputs("\nbench: interrupted\n", stderr);
            exit(128 + interrupted);
        }
        if (now >= until_ns)
            return;
        t.tv_nsec = (long)(until_ns - now < 50000000u ? until_ns - now
                                                      : 50000000u);
        nanosleep(&t, NULL);
    }
}

static void sleep_ms(double ms)
{
    sleep_until(now_ns() + (uint64_t)(ms * 1e6));
}

static int steps_done, steps;          /* measurements, for the progress */

/* Progress, on stderr: one line that is written over, or plain lines. */
static void progress(const char *fmt, ...)
    __attribute__((format(printf, 1, 2)));
static void progress(const char *fmt, ...)
{
    va_list ap;
    char line[200];
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (line[0] == '\0')
        fputs(isatty(2) ? "\r\33[K" : "", stderr);
    else if (isatty(2))
        fprintf(stderr, "\r%3d%% %-73.73s", 100 * steps_done / (steps + !steps),
                line);
    else
        fprintf(stderr, "# %3d%% %s\n", 100 * steps_done / (steps + !steps),
                line);
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int processors(void)
{
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

static double median_of(const double *v, int n)
{
    double s[MAX_ROUNDS];
    int i, all = n;
    for (i = n = 0; i < all; i++)
        if (!isnan(v[i]))
            s[n++] = v[i];
    if (n == 0)
        return NAN;
    qsort(s, (size_t)n, sizeof *s, compare_doubles);
    return n % 2 ? s[n / 2] : (s[n / 2 - 1] + s[n / 2]) / 2;
}

/* Of two numbers, the one that is one where the other is NAN. */
static double lesser(double a, double b)
{
    return isnan(a) || b < a ? b : a;
}

static double greater(double a, double b)
{
    return isnan(a) || b > a ? b : a;
}

/* Is `name` among the comma-separated words (or does a word begin it)? */
static int picked(const char *words, const char *name)
{
    while (words != NULL && *words != '\0') {
        const size_t n = strcspn(words, ",");
        if (n > 0 && strncmp(words, name, n) == 0)
            return 1;
        words += n + (words[n] == ',');
    }
    return 0;
}

/* The whole of a small file (or of /proc), with a NUL; -1: not readable. */
static long slurp(const char *path, char *to, size_t cap)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t n = 0;
    ssize_t r = 0;
    if (fd < 0)
        return -1;
    while (n + 1 < cap && (r = read(fd, to + n, cap - 1 - n)) > 0)
        n += (size_t)r;
    close(fd);
    to[n] = '\0';
    return r < 0 ? -1 : (long)n;
}

/* The number behind `key` in text of lines "key   123 kB". */
static uint64_t number_after(const char *text, const char *key)
{
    const char *p = text;
    const size_t n = strlen(key);
    while (p != NULL && strncmp(p, key, n) != 0) {
        p = strchr(p, '\n');
        p = p != NULL ? p + 1 : NULL;
    }
    return p != NULL ? strtoull(p + n, NULL, 10) : 0;
}

/* ---------------------------------------------------------------------------
 * >>hist -- latencies in steps of under 0.8 %
 *
 * A value below 128 has a bucket of its own; above, each power of two has 128.
 *
 *   ns    0 1 2 .. 127 | 128 .. 255 | 256,7 .. 510,1 | 512..5 ..
 *   step        1            1              2              4
 * ------------------------------------------------------------------------- */

#define HIST_HALF    128u
#define HIST_SHIFTS  36u                   /* up to 2^43 ns, over two hours */
#define HIST_BUCKETS (HIST_HALF * (HIST_SHIFTS + 1))

typedef struct hist {
    uint64_t count, sum, max;
    uint64_t in[HIST_BUCKETS];
} hist;

static unsigned hist_bucket(uint64_t ns)
{
    unsigned shift;
    if (ns < HIST_HALF)
        return (unsigned)ns;
    shift = 63u - (unsigned)__builtin_clzll(ns) - 7u;
    if (shift >= HIST_SHIFTS)
        return HIST_BUCKETS - 1;
    return HIST_HALF * (shift + 1) + (unsigned)((ns >> shift) - HIST_HALF);
}

static double hist_middle(unsigned bucket)
{
    const unsigned shift = bucket / HIST_HALF;
    if (shift <= 1)
        return bucket;
    return ((double)(bucket % HIST_HALF) + HIST_HALF + 0.5) *
           (double)((uint64_t)1 << (shift - 1));
}

static void hist_add(hist *h, uint64_t ns)
{
    h->in[hist_bucket(ns)]++;
    h->count++;
    h->sum += ns;
    if (ns > h->max)
        h->max = ns;
}

static void hist_merge(hist *to, const hist *h)
{
    unsigned i;
    for (i = 0; i < HIST_BUCKETS; i++)
        to->in[i] += h->in[i];
    to->count += h->count;
    to->sum += h->sum;
    to->max = h->max > to->max ? h->max : to->max;
}

/* The q-th part of all values lies at or below this, in milliseconds. */
static double hist_ms(const hist *h, double q)
{
    const uint64_t rank = (uint64_t)(q * (double)h->count + 0.999999);
    uint64_t seen = 0;
    unsigned i;
    if (h->count == 0)
        return NAN;
    for (i = 0; i < HIST_BUCKETS; i++)
        if ((seen += h->in[i]) >= rank && seen > 0)
            break;
    return lesser(hist_middle(i < HIST_BUCKETS ? i : HIST_BUCKETS - 1),
                (double)h->max) / 1e6;
}

/* ---------------------------------------------------------------------------
 * >>proc -- processes: started, looked at, ended
 *
 * What is started is noted in `kids`; the first signal makes the main thread
 * leave at its next sleep, the second one kills from the handler. For the worst
 * case the kernel helps: orphans of our servers become our children (child
 * subreaper), and a server gets TERM should this process vanish.
 * ------------------------------------------------------------------------- */

#define MAX_KIDS 16
#define MAX_TREE 128

static volatile pid_t kids[MAX_KIDS];

typedef struct tree {                 /* a process and all that descend of it */
    pid_t pid[MAX_TREE];
    int   n;
} tree;

static void tree_of(pid_t root, tree *t)
{
    glob_t g;
    size_t i;
    int k, before;
    t->n = 0;
    t->pid[t->n++] = root;
    if (glob("/proc/[0-9]*/stat", GLOB_NOSORT, NULL, &g) != 0)
        return;
    do                                 /* until there are no more children */
        for (before = t->n, i = 0; i < g.gl_pathc; i++) {
            const pid_t pid = (pid_t)atol(g.gl_pathv[i] + 6);
            char text[1024];
            const char *p;
            for (k = 0; k < t->n && t->pid[k] != pid; k++)
                ;
            if (k < t->n || t->n == MAX_TREE ||
                slurp(g.gl_pathv[i], text, sizeof text) < 0 ||
                (p = strrchr(text, ')')) == NULL || strlen(p) < 4)
                continue;
            for (k = 0; k < t->n; k++)
                if (t->pid[k] == (pid_t)atol(p + 4)) {
                    t->pid[t->n++] = pid;
                    break;
                }
        }
    while (t->n > before);
    globfree(&g);
}

/* Adds up the number behind `key` in the files (a pattern below /proc/PID) of
 * all processes. */
static double tree_sum(const tree *t, const char *files, const char *key)
{
    double sum = 0;
    int i;
    for (i = 0; i < t->n; i++) {
        char pattern[100], text[4096];
        glob_t g;
        size_t k;
        snprintf(pattern, sizeof pattern, "/proc/%d/%s", (int)t->pid[i], files);
        if (glob(pattern, GLOB_NOSORT, NULL, &g) != 0)
            continue;
        for (k = 0; k < g.gl_pathc; k++)
            if (slurp(g.gl_pathv[k], text, sizeof text) >= 0)
                sum += (double)number_after(text, key);
        globfree(&g);
    }
    return sum;
}

/* Memory of the tree in bytes: proportional, and what nobody else shares. */
static void memory_of(const tree *t, double *pss, double *uss)
{
    *pss = 1024 * tree_sum(t, "smaps_rollup", "Pss:");
    *uss = 1024 * (tree_sum(t, "smaps_rollup", "Private_Clean:") +
                   tree_sum(t, "smaps_rollup", "Private_Dirty:"));
}

static int sockets_of(pid_t pid)
{
    char pattern[64], link[64];
    glob_t g;
    size_t k;
    int n = 0;
    snprintf(pattern, sizeof pattern, "/proc/%d/fd/*", (int)pid);
    if (glob(pattern, GLOB_NOSORT, NULL, &g) != 0)
        return 0;
    for (k = 0; k < g.gl_pathc; k++)
        n += readlink(g.gl_pathv[k], link, sizeof link) >= 7 &&
             memcmp(link, "socket:", 7) == 0;
    globfree(&g);
    return n;
}

typedef struct cpu {
    double ns, user, sys;              /* in all; and how /proc divides it */
} cpu;

static cpu cpu_of(const tree *t)
{
    cpu c = { 0, 0, 0 };
    int i;
    for (i = 0; i < t->n; i++) {
        char path[64], text[1024];
        const char *p;
        unsigned long v[4] = { 0, 0, 0, 0 };
        clockid_t id;
        snprintf(path, sizeof path, "/proc/%d/stat", (int)t->pid[i]);
        if (slurp(path, text, sizeof text) < 0 ||
            (p = strrchr(text, ')')) == NULL)
            continue;
        sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u"
                      " %lu %lu %lu %lu", &v[0], &v[1], &v[2], &v[3]);
        c.user += (double)(v[0] + v[2]);
        c.sys += (double)(v[1] + v[3]);
        if (clock_getcpuclockid(t->pid[i], &id) == 0)
            c.ns += (double)clock_ns(id) +    /* and children that have ended */
                    (double)(v[2] + v[3]) * 1e9 / (double)sysconf(_SC_CLK_TCK);
    }
    return c;
}

/* What all processors of the machine have done so far, in nanoseconds; and how
 * long they stood still because a hypervisor had others to run. */
static double cpu_of_machine(double *stolen)
{
    char text[4096];
    double user, nice_, sys, idle, iowait, irq, soft, steal;
    *stolen = 0;
    if (slurp("/proc/stat", text, sizeof text) < 0 ||
        sscanf(text, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &user, &nice_, &sys,
               &idle, &iowait, &irq, &soft, &steal) != 8)
        return 0;
    *stolen = steal * 1e9 / (double)sysconf(_SC_CLK_TCK);
    return (user + nice_ + sys + irq + soft) * 1e9 /
           (double)sysconf(_SC_CLK_TCK);
}

/* --pin: servers get the lower half of the processors, we the upper one. */
static void pin_to_half(int upper)
{
    const int n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    cpu_set_t set;
    int i;
    if (!opt.pin || n < 2)
        return;
    CPU_ZERO(&set);
    for (i = 0; i < n; i++)
        if ((i >= n / 2) == (upper != 0))
            CPU_SET((size_t)i, &set);
    sched_setaffinity(0, sizeof set, &set);
}

/* Starts a program (argv ends with NULL) with its output in a file. */
static pid_t spawn(const char *const *argv, const char *log)
{
    char *args[32 + 2 * MAX_SETTINGS];
    pid_t pid;
    int i, n = 0, fd;
    while (argv[n] != NULL && n < (int)COUNT(args) - 1)
        n++;
    memcpy(args, argv, (size_t)n * sizeof *args);
    args[n] = NULL;
    for (i = 0; i < MAX_KIDS && kids[i] != 0; i++)
        ;
    if (i == MAX_KIDS)
        die("too many processes");
    pid = fork();
    if (pid < 0)
        die("fork: %s", strerror(errno));
    if (pid == 0) {
        static const int reset[] = { SIGINT, SIGTERM, SIGHUP, SIGALRM,
                                     SIGPIPE };
        size_t k;
        setpgid(0, 0);                 /* ^C is for us, we end the others */
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        for (k = 0; k < COUNT(reset); k++)
            signal(reset[k], SIG_DFL);
        fd = open("/dev/null", O_RDONLY);
        dup2(fd, 0);
        fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        dup2(fd, 1);
        dup2(fd, 2);
        pin_to_half(0);
        execvp(args[0], args);
        _exit(127);
    }
    kids[i] = pid;
    return pid;
}

static int is_gone(pid_t pid)
{
    int status;
    return pid == 0 || waitpid(pid, &status, WNOHANG) == pid ||
           kill(pid, 0) < 0;
}

/* Ends a process and its tree: asks, waits three seconds, kills. Runs to the
 * end whatever signals arrive. */
static void end_process(pid_t pid, int sig)
{
    tree t;
    uint64_t until = now_ns() + 3000000000u;
    int i, left = 1, killed = 0;
    tree_of(pid, &t);
    kill(pid, sig);
    while (left > 0 && now_ns() < until) {
        struct timespec nap = { 0, 5000000 };
        for (i = left = 0; i < t.n; i++)
            if (t.pid[i] != 0) {
                if (is_gone(t.pid[i]))
                    t.pid[i] = 0;
                else
                    left++;
            }
        if (left > 0 && !killed && now_ns() + 200000000u > until) {
            for (i = 0; i < t.n; i++)
                if (t.pid[i] != 0)
                    kill(t.pid[i], SIGKILL);
            killed = 1;
            until = now_ns() + 2000000000u;
        }
        if (left > 0)
            nanosleep(&nap, NULL);
    }
    for (i = 0; i < MAX_KIDS; i++)
        if (kids[i] == pid)
            kids[i] = 0;
}

static int remove_one(const char *path, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    remove(path);
    return 0;
}

static tree inherited;                 /* children that were there before us */

static void clean_up(void)
{
    tree t;
    int i, k;
    for (i = 0; i < MAX_KIDS; i++)
        if (kids[i] != 0)
            end_process(kids[i], SIGTERM);
    tree_of(getpid(), &t);
    for (i = 1; i < t.n; i++) {        /* orphans that came to us */
        for (k = 0; k < inherited.n && inherited.pid[k] != t.pid[i]; k++)
            ;
        if (k < inherited.n)
            continue;
        kill(t.pid[i], SIGKILL);
        waitpid(t.pid[i], NULL, 0);
    }
    if (tmp_dir[0] != '\0')
        nftw(tmp_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    tmp_dir[0] = '\0';
}

static void on_signal(int sig)
{
    int i;
    if (interrupted && sig != SIGALRM) {
        for (i = 0; i < MAX_KIDS; i++)
            if (kids[i] != 0)
                kill(-kids[i], SIGKILL);   /* each leads a group of its own */
        _exit(128 + sig);
    }
    interrupted = sig;
}

/* ---------------------------------------------------------------------------
 * >>reply -- the head of an answer, and a client that waits for one
 * ------------------------------------------------------------------------- */

typedef struct target {
    struct sockaddr_storage addr;
    socklen_t len;
    char      host[300];               /* value of Host */
    int       loopback;                /* 127.0.0.1: more source addresses */
} target;

typedef struct reply_head {
    size_t  len;
    int64_t length;                    /* of the body, -1: not told */
    int     status, chunked, closing;
} reply_head;

static int field_is(const char *line, const char *end, const char *name,
                    const char **value)
{
    const size_t n = strlen(name);
    if ((size_t)(end - line) <= n || line[n] != ':' ||
        strncasecmp(line, name, n) != 0)
        return 0;
    for (line += n + 1; line < end && (*line == ' ' || *line == '\t'); line++)
        ;
    *value = line;
    return 1;
}

/* Reads the head that begins at p. 1: h is filled; 0: more is needed; -1: this
 * is no HTTP. */
static int parse_head(const char *p, size_t n, reply_head *h)
{
    const char *end = (const char *)memmem(p, n, "\r\n\r\n", 4), *line, *v;
    int kept = 0;
    if (end == NULL)
        return n > 9 && memcmp(p, "HTTP/1.", 7) != 0 ? -1 : 0;
    end += 2;
    h->len = (size_t)(end - p) + 2;
    h->length = -1;
    h->chunked = 0;
    if (h->len < 16 || memcmp(p, "HTTP/1.", 7) != 0 || p[8] != ' ')
        return -1;
    h->status = atoi(p + 9);
    h->closing = p[7] == '0';
    for (line = p; line < end;) {
        const char *eol = (const char *)memchr(line, '\r',
                                               (size_t)(end - line));
        if (eol == NULL)
            return -1;
        if (field_is(line, eol, "content-length", &v)) {
            char *stop;
            h->length = strtoll(v, &stop, 10);
            if (stop == v || h->length < 0 || strchr(" \t\r", *stop) == NULL)
                return -1;
        } else if (field_is(line, eol, "transfer-encoding", &v))
            h->chunked = 1;
        else if (field_is(line, eol, "connection", &v)) {
            while (v < eol) {          /* a list */
                if (strncasecmp(v, "close", 5) == 0)
                    h->closing = 1;
                else if (strncasecmp(v, "keep-alive", 10) == 0)
                    kept = 1;
                while (v < eol && *v != ',')
                    v++;
                while (v < eol && strchr(", \t", *v) != NULL)
                    v++;
            }
        }
        line = eol + 2;
    }
    if (kept)
        h->closing = 0;
    if (h->status == 204 || h->status == 304 || h->status < 200)
        h->length = h->chunked = 0;
    if (h->length < 0 && !h->chunked)
        h->closing = 1;
    return h->status >= 100 && h->status < 600 ? 1 : -1;
}

typedef struct answer {
    int     status;
    size_t  head;                      /* bytes */
    int64_t body;
    double  ms;                        /* from before connect() or send() */
    char    text[8192];                /* how it begins, with a NUL */
} answer;

static int connect_to(const target *t, int ms)
{
    const int fd = socket(t->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval tv;
    const int on = 1;
    if (fd < 0)
        return -1;
    tv.tv_sec = ms / 1000;
    tv.tv_usec = ms % 1000 * 1000;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (const struct sockaddr *)&t->addr, t->len) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Asks on a connected, blocking socket and waits for the whole reply. */
static int ask_on(int fd, const target *t, const char *path, answer *a)
{
    const uint64_t start = now_ns();
    char buf[16384];
    reply_head h;
    size_t have = 0;
    int n = snprintf(buf, sizeof buf, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n",
                     path, t->host);
    memset(a, 0, offsetof(answer, text));
    a->body = -1;
    if (send(fd, buf, (size_t)n, MSG_NOSIGNAL) != n)
        return -1;
    for (;;) {
        const ssize_t r = recv(fd, buf, sizeof buf, 0);
        if (r <= 0)
            return r == 0 && a->body >= 0 && h.length < 0 ? 0 : -1;
        if (have < sizeof a->text - 1) {
            size_t k = sizeof a->text - 1 - have;
            if (k > (size_t)r)
                k = (size_t)r;
            memcpy(a->text + have, buf, k);
            a->text[have + k] = '\0';
        }
        have += (size_t)r;
        if (a->body < 0) {
            n = parse_head(a->text,
                           have < sizeof a->text ? have : sizeof a->text - 1,
                           &h);
            if (n < 0 || (n == 0 && have >= sizeof a->text) ||
                (n > 0 && h.chunked))
                return -1;
            if (n == 0)
                continue;
            a->status = h.status;
            a->head = h.len;
        }
        a->body = (int64_t)(have - a->head);
        a->ms = (double)(now_ns() - start) / 1e6;
        if (h.length >= 0 && a->body >= h.length)
            return 0;
    }
}

static int ask(const target *t, const char *path, int ms, answer *a)
{
    const uint64_t start = now_ns();
    const int fd = connect_to(t, ms);
    int r;
    memset(a, 0, sizeof *a);
    if (fd < 0)
        return -1;
    r = ask_on(fd, t, path, a);
    close(fd);
    a->ms = (double)(now_ns() - start) / 1e6;
    return r;
}

static void target_local(target *t, int port)
{
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)&t->addr;
    memset(t, 0, sizeof *t);
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    t->len = sizeof *in;
    t->loopback = 1;
    snprintf(t->host, sizeof t->host, "127.0.0.1:%d", port);
}

/* ---------------------------------------------------------------------------
 * >>load -- the generator
 *
 * Each thread has its own epoll, connections, counters and histograms. It reads
 * whatever a batch of events brings and then sends the next requests of all of
 * them. Level-triggered, EPOLLIN for life, EPOLLOUT only while a request could
 * not be sent whole.
 *
 *   CLOSED -> OPENING -> SENDING -> WAITING -> (reply) -> SENDING ...
 *      ^                               |          \
 *      +----- closed, error, late -----+           FREE   nothing due (open
 *                                                         loop), or a crowd
 *
 * Connections are opened a few at a time, so that no backlog overflows; until
 * all have had a first reply nothing is measured. The main thread sets `phase`;
 * a thread shows in `seen` that it has noticed.
 * ------------------------------------------------------------------------- */

enum { WARMING, MEASURING, MEASURED, ENDING };
enum { CLOSED, OPENING, SENDING, WAITING, FREE };
enum { IN_HEAD, IN_BODY, IN_SIZE, IN_CHUNK, IN_CHUNK_END, IN_TRAILER, IN_REST };

#define SIZE_BEGUN ((int64_t)1 << 60)  /* conn.left IN_SIZE: a digit was seen */
#define SIZE_OVER  ((int64_t)1 << 61)  /* ... and the last one */
enum { E_CONNECT, E_CLOSED, E_STATUS, E_TIMEOUT, E_MALFORMED, ERRORS };

static const char *const error_names[ERRORS] = {
    "no connection", "closed", "status", "no reply in time", "malformed"
};

#define PART_MAX  16384u               /* a reply's head at most */
#define READ_MAX  131072u
#define BATCH     512
#define UNANSWERED_MAX 128           /* connections being opened, all threads */
#define CROWD_MAX 16                 /* ... of a crowd that will be idle */

typedef struct load_spec {
    const target *to;
    const char   *path[2], *header;  /* header: "Name: value\r\n...", or NULL */
    double        share;               /* of requests that go to path[1] */
    int           connections, threads, pipeline, timeout_ms;
    int           close;               /* a connection per request */
    int           idle;               /* one request, then wait; `nudge` asks */
    int           in_step;             /* handlers sleep: see wait_in_step() */
    int           like_wrk;          /* ask epoll before each request, as wrk */
    double        rate;                /* requests/s: open loop; 0: closed */
    double        warm_s;              /* of an open loop, before its window */
    int64_t       expect;              /* bytes of every body, -1: any */
} load_spec;

typedef struct conn {
    int      fd, state, reading;
    int      kind;                     /* which path is being asked */
    int      born;                     /* has had a reply, ever */
    int      sent_any, out_armed, registered, listed, closing;
    int      pending;                  /* replies to come */
    unsigned part_len;
    char    *part;                     /* a head that has not come whole */
    size_t   unsent;                   /* of the request text */
    int64_t  left, body;               /* body bytes to come; had */
    uint64_t start_ns;                 /* latency counts from here */
    uint64_t since_ns;                 /* the time-out counts from here */
} conn;

typedef struct counts {                /* atomic; one writer */
    uint64_t done[2], bytes, errors[ERRORS];
    uint32_t open;                     /* have had a reply; crowd: still open */
} counts;

typedef struct load load;

typedef struct generator {
    load     *l;
    pthread_t thread;
    int       number, epoll, timer, n, next_new, opening;
    int       nfree, nlater, nretry;
    conn     *conns, **free, **later, **retry;
    char     *buf;                     /* PART_MAX + READ_MAX */
    uint64_t  now, scanned_ns, measuring_ns, armed_ns, random;
    uint64_t  k, due_ns;               /* open loop: the next request */
    uint32_t  phase;
    int       next_nudged;
    uint64_t  nudged, over_before;
    char      known[1024];             /* the last head, and what it means */
    reply_head known_head;
    hist      latency[2];
    uint32_t  seen, drained;           /* atomic */
    counts    count;
} generator;

struct load {
    load_spec  spec;
    char      *text[2];
    size_t     text_len[2];
    generator *gens;
    int        sources;                /* of addresses to connect from */
    uint32_t   phase, nudge;           /* atomic; the main thread */
    /* atomic: the crowd is busy, by path[1] */
    uint32_t   turned;
    uint64_t   rate_from, window_from, window_to;      /* atomic */
};

#define bump(p, n)                                                          \
    __atomic_store_n((p), __atomic_load_n((p), __ATOMIC_RELAXED) + (n),     \
                     __ATOMIC_RELAXED)

static void conn_open(generator *g, conn *c);

static void conn_watch(generator *g, conn *c, int out)
{
    struct epoll_event e;
    memset(&e, 0, sizeof e);
    e.events = EPOLLIN | (out ? (uint32_t)EPOLLOUT : 0u);
    e.data.ptr = c;
    epoll_ctl(g->epoll, c->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd,
              &e);
    c->registered = 1;
    c->out_armed = out;
}

/* Are the connections of those that wait, and are not opened again? */
static int is_crowd(const load *l)
{
    return l->spec.idle && !at_load(&l->turned);
}

static void conn_shut(conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->state = CLOSED;
    c->part_len = 0;
    c->pending = 0;
}

static void record(generator *g, const conn *c, uint64_t ns)
{
    const load *l = g->l;
    if (l->spec.rate <= 0) {
        if (g->phase == MEASURING)
            hist_add(&g->latency[c->kind], ns);
    } else if (!g->drained && c->start_ns >= at_load(&l->window_from) &&
               c->start_ns < at_load(&l->window_to))
        hist_add(&g->latency[c->kind], ns);
}

/* The connection is of no more use; its requests have failed. */
static void conn_fail(generator *g, conn *c, int why)
{
    if (c->pending > 0 || c->state != FREE)
        bump(&g->count.errors[why],
             (uint64_t)(c->pending > 0 ? c->pending : 1));
    conn_shut(c);
    if (is_crowd(g->l) && c->born)     /* one of the crowd is gone for good */
        bump(&g->count.open, -1u);
    else if (why == E_CONNECT || (!c->born && !g->l->spec.close))
        g->retry[g->nretry++] = c;     /* at the next tick */
    else
        conn_open(g, c);
}

/* Sends what is left of the request. */
static void conn_push(generator *g, conn *c)
{
    const load *l = g->l;
    const size_t len = l->text_len[c->kind];
    const ssize_t r = send(c->fd, l->text[c->kind] + (len - c->unsent),
                           c->unsent, MSG_NOSIGNAL);
    if (r < 0 && errno != EAGAIN) {
        conn_fail(g, c, c->sent_any ? E_CLOSED : E_CONNECT);
        return;
    }
    if (r > 0) {
        c->unsent -= (size_t)r;
        c->sent_any = 1;
        c->state = c->unsent == 0 ? WAITING : SENDING;
    }
    if (!c->registered || c->out_armed != (c->unsent > 0))
        conn_watch(g, c, c->unsent > 0);
}

/* Sends the next request (or batch); `due` is 0 in a closed loop. */
static void conn_ask(generator *g, conn *c, uint64_t due)
{
    const load_spec *s = &g->l->spec;
    c->kind = at_load(&g->l->turned) != 0;
    if (s->share > 0) {
        g->random ^= g->random << 13;
        g->random ^= g->random >> 7;
        g->random ^= g->random << 17;
        c->kind = (double)(g->random >> 11) < s->share * 9007199254740992.0;
    }
    c->pending = s->pipeline;
    c->unsent = g->l->text_len[c->kind];
    c->state = c->state == OPENING ? OPENING : SENDING;
    c->since_ns = now_ns();
    c->start_ns = due != 0 ? due : c->since_ns;
    conn_push(g, c);
}

static void conn_free(generator *g, conn *c)
{
    c->state = FREE;
    if (!c->listed)
        g->free[g->nfree++] = c;
    c->listed = 1;
}

static void conn_open(generator *g, conn *c)
{
    const load *l = g->l;
    const target *t = l->spec.to;
    const int on = 1;
    c->fd = socket(t->addr.ss_family,
                   SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    c->registered = c->out_armed = c->sent_any = c->closing = 0;
    c->reading = IN_HEAD;
    c->state = OPENING;
    if (c->fd < 0) {
        conn_fail(g, c, E_CONNECT);
        return;
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (l->sources > 1) {              /* 28,000 ports per address */
        struct sockaddr_in from;
        memset(&from, 0, sizeof from);
        from.sin_family = AF_INET;
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 +
                                     (uint32_t)((c - g->conns) % l->sources));
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        bind(c->fd, (const struct sockaddr *)(const void *)&from, sizeof from);
    }
    c->since_ns = now_ns();
    if (connect(c->fd, (const struct sockaddr *)&t->addr, t->len) < 0 &&
        errno != EINPROGRESS) {
        conn_fail(g, c, E_CONNECT);
        return;
    }
    if (l->spec.rate > 0 && c->born) {
        conn_watch(g, c, 0);
        conn_free(g, c);
    } else {
        const uint64_t began = c->since_ns;
        conn_ask(g, c, 0);
        if (l->spec.close && c->state != CLOSED)
            c->start_ns = began;       /* connecting is part of it */
    }
}

static void open_more(generator *g)
{
    const load_spec *s = &g->l->spec;
    const int most = s->idle ? CROWD_MAX : UNANSWERED_MAX / s->threads;
    while (g->next_new < g->n && g->opening <= most) {
        g->opening++;
        conn_open(g, &g->conns[g->next_new++]);
    }
}

/* Asks the crowd once more, some at a time; if it has turned, all at once. */
static void nudge_more(generator *g)
{
    const int turned = at_load(&g->l->turned) != 0;
    uint64_t over = g->count.done[0];
    int e;
    for (e = 0; e < ERRORS; e++)
        over += g->count.errors[e];
    if (g->next_nudged == 0)
        g->over_before = over;
    while (g->next_nudged < g->n &&
           (turned || g->nudged < over - g->over_before + CROWD_MAX)) {
        conn *c = &g->conns[g->next_nudged++];
        if (turned && c->state == CLOSED)
            conn_open(g, c);
        if (c->state != FREE)
            continue;
        g->nudged++;
        conn_ask(g, c, 0);
    }
}

/* One reply is complete. Returns 0 if the connection is not to be read on. */
static int reply_done(generator *g, conn *c, int status)
{
    const load_spec *s = &g->l->spec;
    if (!c->born) {
        c->born = 1;
        g->opening--;
        bump(&g->count.open, 1u);
    }
    if (status < 200 || status >= 400)
        bump(&g->count.errors[E_STATUS], 1u);
    else if (s->expect >= 0 && c->body != s->expect)
        bump(&g->count.errors[E_MALFORMED], 1u);
    else {
        bump(&g->count.done[c->kind], 1u);
        record(g, c, g->now - c->start_ns);
    }
    c->reading = IN_HEAD;
    c->pending--;
    if (c->closing || (s->close && c->pending == 0)) {
        if (c->pending > 0) {
            conn_fail(g, c, E_CLOSED);
            return 0;
        }
        conn_shut(c);
        if (is_crowd(g->l))
            bump(&g->count.open, -1u);
        else
            conn_open(g, c);
        return 0;
    }
    if (c->pending > 0)
        return 1;
    if (is_crowd(g->l))
        c->state = FREE;
    else if (s->rate > 0)
        conn_free(g, c);
    else
        g->later[g->nlater++] = c;
    return 1;
}

/* Takes the bytes of replies. Returns 0 if the connection is not to be used
 * further here. */
static int conn_take(generator *g, conn *c, const char *p, const char *end)
{
    while (p < end) {
        size_t n = (size_t)(end - p);
        if (c->pending == 0)
            break;
        if (c->reading == IN_HEAD) {
            reply_head *h = &g->known_head;
            if (h->len == 0 || n < h->len || g->l->spec.like_wrk ||
                memcmp(p, g->known, h->len) != 0) {
                reply_head fresh;
                const int r = parse_head(p, n, &fresh);
                if (r < 0 || (r == 0 && n >= PART_MAX))
                    break;
                if (r == 0) {
                    if (c->part == NULL)
                        c->part = (char *)malloc(PART_MAX);
                    if (c->part == NULL)
                        break;
                    memcpy(c->part, p, n);
                    c->part_len = (unsigned)n;
                    return 1;
                }
                *h = fresh;
                if (h->len <= sizeof g->known)
                    memcpy(g->known, p, h->len);
            }
            p += h->len;
            if (h->len > sizeof g->known)
                h->len = 0;            /* too long to be remembered */
            c->body = 0;
            if (h->status < 200)
                continue;
            c->left = h->length;
            c->closing = h->closing;
            c->reading = h->chunked      ? IN_SIZE
                         : h->length < 0 ? IN_REST
                                         : IN_BODY;
            if (h->chunked)
                c->left = 0;
            if (h->status >= 400)
                c->body = -1;          /* is no count, but says so to the end */
            if (c->reading == IN_BODY && c->left == 0 &&
                !reply_done(g, c, c->body < 0 ? 500 : 200))
                return 0;
        } else if (c->reading == IN_BODY || c->reading == IN_CHUNK) {
            if ((int64_t)n > c->left)
                n = (size_t)c->left;
            p += n;
            c->left -= (int64_t)n;
            if (c->body >= 0)
                c->body += (int64_t)n;
            if (c->left > 0)
                continue;
            if (c->reading == IN_CHUNK)
                c->reading = IN_CHUNK_END;
            else if (!reply_done(g, c, c->body < 0 ? 500 : 200))
                return 0;
        } else if (c->reading == IN_REST) {
            if (c->body >= 0)
                c->body += (int64_t)n;
            p = end;
        } else if (c->reading == IN_SIZE) {
            const int ch = *p++;
            if (ch == '\n') {          /* in a trailer: the line's length */
                if (!(c->left & SIZE_BEGUN))
                    goto malformed;
                c->left &= SIZE_BEGUN - 1;
                c->reading = c->left > 0 ? IN_CHUNK : IN_TRAILER;
            } else if (c->left & SIZE_OVER)
                continue;
            else if (isxdigit(ch)) {
                if ((c->left & (SIZE_BEGUN - 1)) >> 52)
                    goto malformed;
                c->left = (c->left & (SIZE_BEGUN - 1)) * 16 + SIZE_BEGUN +
                          (ch <= '9' ? ch - '0' : (ch | 32) - 'a' + 10);
            } else if (c->left & SIZE_BEGUN)
                c->left |= SIZE_OVER;
            else
                goto malformed;
        } else if (c->reading == IN_CHUNK_END) {
            const int ch = *p++;
            if (ch == '\n') {
                c->reading = IN_SIZE;
                c->left = 0;
            } else if (ch != '\r')
                goto malformed;
        } else {                       /* IN_TRAILER: up to an empty line */
            const int ch = *p++;
            if (ch == '\n' && c->left == 0) {
                if (!reply_done(g, c, c->body < 0 ? 500 : 200))
                    return 0;
            } else if (ch == '\n')
                c->left = 0;
            else if (ch != '\r')
                c->left++;
        }
    }
    if (p < end) {                    /* not HTTP, or more than was asked for */
malformed:
        c->pending += c->pending == 0;
        conn_fail(g, c, E_MALFORMED);
        return 0;
    }
    return 1;
}

static void conn_read(generator *g, conn *c)
{
    const unsigned before = c->part_len;
    char *at = g->buf + PART_MAX - before;
    const ssize_t r = recv(c->fd, g->buf + PART_MAX, READ_MAX, 0);
    if (r < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    g->now = now_ns();
    if (r > 0) {
        bump(&g->count.bytes, (uint64_t)r);
        if (before > 0)
            memcpy(at, c->part, before);
        c->part_len = 0;
        conn_take(g, c, at, g->buf + PART_MAX + r);
    } else if (r == 0 && c->pending == 1 && c->reading == IN_REST) {
        c->closing = 1;
        reply_done(g, c, c->body < 0 ? 500 : 200);
    } else
        conn_fail(g, c, c->sent_any || c->state == FREE ? E_CLOSED : E_CONNECT);
}

/* Open loop: when the next request is due; the threads take turns. */
static uint64_t next_due(const generator *g)
{
    const load *l = g->l;
    const uint64_t k = g->k * (uint64_t)l->spec.threads + (uint64_t)g->number;
    return at_load(&l->rate_from) + (uint64_t)((double)k * 1e9 / l->spec.rate);
}

/* Open loop: gives what is due to free connections. */
static void dispatch(generator *g)
{
    const load *l = g->l;
    const uint64_t from = at_load(&l->rate_from), to = at_load(&l->window_to);
    uint64_t now;
    if (from == 0)
        return;
    now = now_ns();
    for (;;) {
        conn *c;
        g->due_ns = next_due(g);
        while (g->nfree > 0 && g->free[g->nfree - 1]->state != FREE)
            g->free[--g->nfree]->listed = 0;
        if (g->due_ns > now || g->due_ns >= to || g->nfree == 0)
            break;
        c = g->free[--g->nfree];
        c->listed = 0;
        g->k++;
        conn_ask(g, c, g->due_ns);
    }
    if (g->due_ns > now && g->due_ns < to && g->armed_ns != g->due_ns) {
        struct itimerspec t;
        memset(&t, 0, sizeof t);
        t.it_value.tv_sec = (time_t)(g->due_ns / 1000000000u);
        t.it_value.tv_nsec = (long)(g->due_ns % 1000000000u);
        timerfd_settime(g->timer, TFD_TIMER_ABSTIME, &t, NULL);
        g->armed_ns = g->due_ns;
    }
}

/* Open loop, after the window: have all that were due in it been answered? What
 * is not, one time-out later, counts with its age. */
static void drain(generator *g)
{
    const load *l = g->l;
    const uint64_t to = at_load(&l->window_to);
    const uint64_t patience = (uint64_t)l->spec.timeout_ms * 1000000u;
    int i, busy = 0;
    if (to == 0 || g->drained || now_ns() < to)
        return;
    for (i = 0; i < g->n; i++)
        busy += g->conns[i].pending > 0 && g->conns[i].start_ns < to;
    if ((busy > 0 || g->due_ns < to) && now_ns() < to + patience)
        return;
    g->now = now_ns();
    for (i = 0; i < g->n; i++) {
        conn *c = &g->conns[i];
        if (c->pending > 0 && c->start_ns < to) {
            bump(&g->count.errors[E_TIMEOUT], 1u);
            record(g, c, g->now - c->start_ns);
        }
    }
    while (g->due_ns < to) {           /* never sent: no connection was free */
        if (g->due_ns >= at_load(&l->window_from)) {
            bump(&g->count.errors[E_TIMEOUT], 1u);
            hist_add(&g->latency[0], g->now - g->due_ns);
        }
        g->k++;
        g->due_ns = next_due(g);
    }
    at_store(&g->drained, 1u);
}

/* Every 20 ms at least: what is late, what failed to connect, which phase. */
static void generator_tick(generator *g)
{
    load *l = g->l;
    const uint64_t now = now_ns();
    const uint64_t patience = (uint64_t)l->spec.timeout_ms * 1000000u;
    const uint32_t phase = at_load(&l->phase);
    int i, n = g->nretry;
    g->now = now;
    if (phase != g->phase) {
        if (phase == MEASURING && l->spec.rate <= 0)
            memset(g->latency, 0, sizeof g->latency);
        if (phase == MEASURING)
            g->measuring_ns = now;
        /* what hangs all the time would not be seen at all */
        for (i = 0; phase == MEASURED && i < g->n; i++) {
            const conn *c = &g->conns[i];
            const int late = now - c->since_ns >= patience;
            if (c->pending > 0 && l->spec.rate <= 0 &&
                (late || c->since_ns <= g->measuring_ns)) {
                record(g, c, now - c->start_ns);
                bump(&g->count.errors[E_TIMEOUT], (uint32_t)late);
            }
        }
        g->phase = phase;
        at_store(&g->seen, phase);
    }
    if (phase >= MEASURED)
        return;
    g->nretry = 0;
    for (i = 0; i < n; i++)            /* what fails again is put before i */
        conn_open(g, g->retry[i]);
    open_more(g);
    if (now - g->scanned_ns > 100000000u) {
        g->scanned_ns = now;
        for (i = 0; i < g->n; i++) {
            conn *c = &g->conns[i];
            if (c->pending > 0 && c->since_ns + patience < now) {
                record(g, c, now - c->start_ns);
                conn_fail(g, c, E_TIMEOUT);
            }
        }
    }
    drain(g);
}

static void *generator_run(void *arg)
{
    generator *g = (generator *)arg;
    load *l = g->l;
    struct epoll_event ev[BATCH];
    uint64_t last_tick = 0;
    while (at_load(&l->phase) != ENDING) {
        int i, n;
        const uint64_t now = now_ns();
        if (now - last_tick > 10000000u || at_load(&l->phase) != g->phase) {
            last_tick = now;
            generator_tick(g);
        }
        if (l->spec.rate > 0)
            dispatch(g);
        n = epoll_wait(g->epoll, ev, BATCH, 20);
        for (i = 0; i < n; i++) {
            conn *c = (conn *)ev[i].data.ptr;
            if (c == NULL) {
                uint64_t x;
                const ssize_t r = read(g->timer, &x, sizeof x);
                (void)r;
                continue;
            }
            if (ev[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
                conn_read(g, c);
            else if (c->unsent > 0 && c->state != CLOSED)
                conn_push(g, c);
            else if (c->pending == 0 && c->state == WAITING)
                conn_ask(g, c, 0);     /* like_wrk */
        }
        for (i = 0; i < g->nlater; i++)
            if (g->later[i]->pending == 0 && g->later[i]->state == WAITING) {
                if (l->spec.like_wrk)
                    conn_watch(g, g->later[i], 1);
                else
                    conn_ask(g, g->later[i], 0);
            }
        g->nlater = 0;
        if (g->opening > 0 || g->next_new < g->n)
            open_more(g);
        if (at_load(&l->nudge))
            nudge_more(g);
    }
    while (g->n-- > 0) {
        conn_shut(&g->conns[g->n]);
        free(g->conns[g->n].part);
    }
    return NULL;
}

static char *request_text(const load_spec *s, const char *path, size_t *len)
{
    const size_t cap = strlen(path) + strlen(s->to->host) + 100 +
                       (s->header != NULL ? strlen(s->header) : 0);
    char *text = (char *)need(cap, (size_t)s->pipeline), *at = text;
    int i;
    for (i = 0; i < s->pipeline; i++)
        at += snprintf(at, cap, "GET %s HTTP/1.1\r\nHost: %s\r\n%s%s\r\n", path,
                       s->to->host, s->close ? "Connection: close\r\n" : "",
                       s->header != NULL ? s->header : "");
    *len = (size_t)(at - text);
    return text;
}

static load *load_start(const load_spec *spec)
{
    load *l = (load *)need(1, sizeof *l);
    const load_spec *s = &l->spec;
    int i, k;
    l->spec = *spec;
    if (l->spec.threads > s->connections)
        l->spec.threads = s->connections;
    l->sources = 1;
    if (s->to->loopback && (s->close || s->connections > 20000))
        l->sources = s->close ? 4 : 1 + s->connections / 20000;
    for (i = 0; i < 2; i++)
        l->text[i] = request_text(s, s->path[s->path[i] != NULL ? i : 0],
                                  &l->text_len[i]);
    l->gens = (generator *)need((size_t)s->threads, sizeof *l->gens);
    for (i = 0; i < s->threads; i++) {
        generator *g = &l->gens[i];
        struct epoll_event e;
        g->l = l;
        g->number = i;
        g->n = s->connections / s->threads + (i < s->connections % s->threads);
        g->conns = (conn *)need((size_t)g->n, sizeof *g->conns);
        g->free = (conn **)need((size_t)g->n, sizeof *g->free);
        g->later = (conn **)need((size_t)g->n, sizeof *g->later);
        g->retry = (conn **)need((size_t)g->n, sizeof *g->retry);
        g->buf = (char *)need(1, PART_MAX + READ_MAX);
        g->random = 88172645463325252u + (uint64_t)i * 7919u;
        for (k = 0; k < g->n; k++)
            g->conns[k].fd = -1;
        g->epoll = epoll_create1(EPOLL_CLOEXEC);
        g->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        memset(&e, 0, sizeof e);
        e.events = EPOLLIN;
        if (g->epoll < 0 || g->timer < 0 ||
            epoll_ctl(g->epoll, EPOLL_CTL_ADD, g->timer, &e) < 0)
            die("epoll: %s", strerror(errno));
    }
    for (i = 0; i < s->threads; i++)
        if (pthread_create(&l->gens[i].thread, NULL, generator_run,
                           &l->gens[i]) != 0)
            die("cannot create a thread");
    return l;
}

static counts load_counts(const load *l)
{
    counts sum;
    int i, e;
    memset(&sum, 0, sizeof sum);
    for (i = 0; i < l->spec.threads; i++) {
        const counts *c = &l->gens[i].count;
        sum.done[0] += at_load(&c->done[0]);
        sum.done[1] += at_load(&c->done[1]);
        sum.bytes += at_load(&c->bytes);
        for (e = 0; e < ERRORS; e++)
            sum.errors[e] += at_load(&c->errors[e]);
        sum.open += at_load(&c->open);
    }
    return sum;
}

/* Waits until every connection has had a reply; returns how many have. */
static int load_wait_open(load *l, double seconds)
{
    const uint64_t until = now_ns() + (uint64_t)(seconds * 1e9);
    while ((int)load_counts(l).open < l->spec.connections && now_ns() < until)
        sleep_ms(1);
    return (int)load_counts(l).open;
}

typedef struct figures {
    double   seconds, rate, light_rate, mb_per_s;
    double   cpu_us, user_us, sys_us, client_us, others;
    uint64_t requests, errors[ERRORS];
    hist     latency[2];
} figures;

static void load_fill(load *l, figures *f, const counts *a, const counts *b,
                      double seconds)
{
    int i, e;
    memset(f, 0, sizeof *f);
    f->seconds = seconds;
    f->requests = b->done[0] + b->done[1] - a->done[0] - a->done[1];
    f->rate = (double)f->requests / seconds;
    f->light_rate = (double)(b->done[0] - a->done[0]) / seconds;
    f->mb_per_s = (double)(b->bytes - a->bytes) / seconds / 1e6;
    for (e = 0; e < ERRORS; e++)
        f->errors[e] = b->errors[e] - a->errors[e];
    for (i = 0; i < l->spec.threads; i++)
        for (e = 0; e < 2; e++)
            hist_merge(&f->latency[e], &l->gens[i].latency[e]);
}

static uint64_t load_done(const load *l)
{
    const counts c = load_counts(l);
    return c.done[0] + c.done[1];
}

/* The replies of handlers that sleep come in step, and a window counts one
 * step more or less by chance. So it begins with a reply (`from` is 0), and
 * ends with as many for each connection, on average; how many that are is
 * returned. */
static uint64_t wait_in_step(const load *l, uint64_t from)
{
    const uint64_t until = now_ns() + 1500000000u, now = load_done(l);
    const uint64_t each = (uint64_t)l->spec.connections;
    const uint64_t goal = from == 0 ? now + 1
                                    : from + (now - from + each - 1) / each *
                                    each;
    while (load_done(l) < goal && now_ns() < until)
        sleep_ms(0.1);
    return load_done(l) < goal ? load_done(l) - from : goal - from;
}

/* Measures for so long; `of` is the server's tree, or NULL. */
static void load_measure(load *l, double seconds, const tree *of, figures *f)
{
    counts a, b, last;
    cpu ca = { 0, 0, 0 }, cb = { 0, 0, 0 };
    double ma, mb, pa, pb, per, stolen;
    uint64_t from, to, in_step = 0;
    int i;
    if (l->spec.in_step)
        wait_in_step(l, 0);
    if (l->spec.rate > 0) {
        from = now_ns() + 50000000u;
        at_store(&l->window_from, from + (uint64_t)(l->spec.warm_s * 1e9));
        at_store(&l->window_to, l->window_from + (uint64_t)(seconds * 1e9));
        at_store(&l->rate_from, from);
        sleep_until(l->window_from);
    }
    at_store(&l->phase, (uint32_t)MEASURING);
    from = now_ns();
    a = load_counts(l);
    if (of != NULL)
        ca = cpu_of(of);
    pa = (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    ma = cpu_of_machine(&stolen);
    sleep_until(l->spec.rate > 0 ? l->window_to
                                 : from + (uint64_t)(seconds * 1e9));
    if (l->spec.in_step)
        in_step = wait_in_step(l, a.done[0] + a.done[1]);
    to = now_ns();
    b = load_counts(l);
    if (of != NULL)
        cb = cpu_of(of);
    pb = (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    mb = cpu_of_machine(&stolen);
    if (l->spec.rate > 0)              /* bounded by drain()'s patience */
        for (i = 0; i < l->spec.threads; i++)
            while (!at_load(&l->gens[i].drained))
                sleep_ms(1);
    at_store(&l->phase, (uint32_t)MEASURED);
    for (i = 0; i < l->spec.threads; i++)
        while (at_load(&l->gens[i].seen) != MEASURED)
            sleep_ms(1);
    last = load_counts(l);
    memcpy(b.errors, last.errors, sizeof b.errors);
    load_fill(l, f, &a, &b, (double)(to - from) / 1e9);
    if (l->spec.in_step) {
        f->requests = in_step;
        f->rate = (double)in_step / f->seconds;
    }
    per = f->requests > 0 ? 1 / (double)f->requests : NAN;
    f->cpu_us = (cb.ns - ca.ns) / 1e3 * per;
    f->user_us = f->cpu_us * (cb.user - ca.user) /
                 (cb.user - ca.user + cb.sys - ca.sys);
    f->sys_us = f->cpu_us - f->user_us;
    f->client_us = (pb - pa) / 1e3 * per;
    f->others = (mb - ma - (cb.ns - ca.ns) - (pb - pa)) / (double)(to - from);
}

static void load_stop(load *l)
{
    int i;
    at_store(&l->phase, (uint32_t)ENDING);
    for (i = 0; i < l->spec.threads; i++) {
        generator *g = &l->gens[i];
        pthread_join(g->thread, NULL);
        close(g->epoll);
        close(g->timer);
        free(g->conns);
        free(g->free);
        free(g->later);
        free(g->retry);
        free(g->buf);
    }
    free(l->gens);
    free(l->text[0]);
    free(l->text[1]);
    free(l);
}

static load_spec load_defaults(const target *t, const char *path,
                               int connections)
{
    load_spec s;
    memset(&s, 0, sizeof s);
    s.to = t;
    s.path[0] = path;
    s.connections = connections;
    s.threads = opt.threads;
    s.pipeline = 1;
    s.timeout_ms = opt.timeout_ms;
    s.like_wrk = opt.like_wrk;
    s.expect = -1;
    s.warm_s = 0.3;
    return s;
}

/* ---------------------------------------------------------------------------
 * >>crowd -- clients with little to do, in a thread of their own
 *
 *   slow heads    a request without end: one more header line every 5 seconds
 *   slow readers  ask for 10 MB, with a small receive buffer, and take 1 KB of
 *                 it every second
 *   streams       read events without end; one that ends is asked for again
 * ------------------------------------------------------------------------- */

enum { SLOW_HEADS, SLOW_READERS, STREAMS };

typedef struct crowd {
    const target *to;
    const char   *path;
    pthread_t     thread;
    int           kind, n;
    int          *fds;
    uint32_t      ready, stop, open, ended;    /* atomic */
} crowd;

static int crowd_enter(const crowd *w)
{
    const int fd = socket(w->to->addr.ss_family,
                          SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int small = 4096;
    struct pollfd p;
    char text[512];
    int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: %s\r\n%s",
                     w->path, w->to->host,
                     w->kind == SLOW_HEADS ? "" : "\r\n");
    if (fd < 0)
        return -1;
    if (w->kind == SLOW_READERS)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    p.fd = fd;
    p.events = POLLOUT;
    p.revents = 0;
    if ((connect(fd, (const struct sockaddr *)&w->to->addr, w->to->len) == 0 ||
         errno == EINPROGRESS) &&
        poll(&p, 1, 1000) == 1 && send(fd, text, (size_t)n, MSG_NOSIGNAL) == n)
        return fd;
    close(fd);
    return -1;
}

/* Does what connection i does now and then; 0: it has ended. */
static int crowd_act(const crowd *w, int i, uint32_t turn)
{
    char buf[1024];
    ssize_t r;
    if (w->kind == STREAMS) {          /* the last chunk is an end, too */
        r = recv(w->fds[i], buf, sizeof buf, 0);
        return r < 0 ? errno == EAGAIN
                     : r > 0 && memcmp(buf, "0\r\n\r", r > 4 ? 5 : (size_t)r) &&
                           memmem(buf, (size_t)r, "\r\n0\r\n\r\n", 7) == NULL;
    }
    if (w->kind == SLOW_READERS) {
        r = recv(w->fds[i], buf, sizeof buf, 0);
        return r > 0 || (r < 0 && errno == EAGAIN);
    }
    r = recv(w->fds[i], buf, sizeof buf, MSG_PEEK);
    if (r >= 0 || errno != EAGAIN)
        return 0;                      /* answered or closed before its end */
    r = snprintf(buf, sizeof buf, "X-Slow-%u: %d\r\n", turn, i);
    return send(w->fds[i], buf, (size_t)r, MSG_NOSIGNAL) == r;
}

static void *crowd_run(void *arg)
{
    crowd *w = (crowd *)arg;
    const uint64_t period = w->kind == SLOW_HEADS     ? 5000000000u
                            : w->kind == SLOW_READERS ? 1000000000u
                                                      : 100000000u;
    uint64_t start;
    uint32_t turn = 0;
    int i, alive = 0;
    for (i = 0; i < w->n && !at_load(&w->stop); i++) {
        struct timespec nap = { 0, 5000000 };
        w->fds[i] = crowd_enter(w);
        alive += w->fds[i] >= 0;
        if (i % 100 == 99)
            nanosleep(&nap, NULL);     /* not more than a backlog takes */
    }
    at_store(&w->open, (uint32_t)alive);
    at_store(&w->ready, 1u);
    start = now_ns();
    for (i = 0; !at_load(&w->stop);) {
        const uint64_t due = start + turn * period +
                             period * (uint64_t)i / (uint64_t)w->n;
        if (now_ns() < due) {
            struct timespec nap = { 0, 5000000 };
            nanosleep(&nap, NULL);
            continue;
        }
        if (w->fds[i] >= 0 && !crowd_act(w, i, turn)) {
            close(w->fds[i]);
            w->fds[i] = w->kind == STREAMS ? crowd_enter(w) : -1;
            alive -= w->fds[i] < 0;
            bump(&w->ended, 1u);
            at_store(&w->open, (uint32_t)alive);
        }
        if (++i == w->n) {
            i = 0;
            turn++;
        }
    }
    for (i = 0; i < w->n; i++)
        if (w->fds[i] >= 0)
            close(w->fds[i]);
    return NULL;
}

static void crowd_start(crowd *w, const target *t, int kind, int n,
                        const char *path)
{
    const uint64_t until = now_ns() + 20000000000u;
    int i;
    memset(w, 0, sizeof *w);
    w->to = t;
    w->path = path;
    w->kind = kind;
    w->n = n;
    w->fds = (int *)need((size_t)n, sizeof *w->fds);
    for (i = 0; i < n; i++)
        w->fds[i] = -1;
    if (pthread_create(&w->thread, NULL, crowd_run, w) != 0)
        die("cannot create a thread");
    while (!at_load(&w->ready) && now_ns() < until)
        sleep_ms(2);
}

static int crowd_stop(crowd *w)        /* returns how many were still there */
{
    const int open = (int)at_load(&w->open);
    at_store(&w->stop, 1u);
    pthread_join(w->thread, NULL);
    free(w->fds);
    return open;
}

/* ---------------------------------------------------------------------------
 * >>floor -- what the kernel alone costs: --serve-floor PORT
 *
 * Parses nothing: counts blank lines and sends as many canned replies, in one
 * write for one read. One socket for all processes, EPOLLEXCLUSIVE, which wakes
 * the last one that waited; so each goes to the end of that line after every 16
 * connections, as nginx does.
 * ------------------------------------------------------------------------- */

#define FLOOR_EVENTS 512

static void floor_answer(int fd, unsigned char *seen, int closing)
{
    static const char reply[] = "HTTP/1.1 200 OK\r\n"
                                "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                                "Server: floor\r\nContent-Type: text/plain\r\n"
                                "Content-Length: 13\r\n\r\n" HELLO;
    static char in[65536], out[(sizeof in / 4 + 1) * (sizeof reply - 1)];
    const ssize_t n = recv(fd, in, sizeof in, 0);
    const char *p, *end = in + n;
    size_t len = 0, sent = 0;
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            close(fd);
        return;
    }
    for (p = in; p < end; p++) {       /* *seen: how much of CR LF CR LF */
        if (*seen == 0 &&
            (p = (const char *)memchr(p, '\r', (size_t)(end - p))) == NULL)
            break;
        *seen = *p == "\r\n\r\n"[*seen] ? (unsigned char)(*seen + 1)
                                         : *p == '\r';
        if (*seen == 4) {
            *seen = 0;
            memcpy(out + len, reply, sizeof reply - 1);
            len += sizeof reply - 1;
        }
    }
    while (sent < len) {
        const ssize_t r = send(fd, out + sent, len - sent, MSG_NOSIGNAL);
        struct pollfd full;
        if (r < 0 && errno != EAGAIN)
            break;
        sent += r > 0 ? (size_t)r : 0;
        full.fd = fd;
        full.events = POLLOUT;
        full.revents = 0;
        if (sent < len && poll(&full, 1, 5000) != 1)
            break;
    }
    if (closing && len > 0)
        close(fd);
}

static void floor_run(int listener, int closing)
{
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev[FLOOR_EVENTS], e;
    struct rlimit limit;
    unsigned char *seen;
    int accepted = 0;
    getrlimit(RLIMIT_NOFILE, &limit);
    seen = (unsigned char *)need((size_t)limit.rlim_cur, 1);
    memset(&e, 0, sizeof e);
    e.events = EPOLLIN | (uint32_t)EPOLLEXCLUSIVE;
    e.data.fd = listener;
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        const int n = epoll_wait(epoll, ev, FLOOR_EVENTS, -1);
        int i;
        for (i = 0; i < n; i++) {
            int fd = ev[i].data.fd;
            if (fd != listener) {
                floor_answer(fd, &seen[fd], closing);
                continue;
            }
            fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd < 0)
                continue;
            seen[fd] = 0;
            e.events = EPOLLIN;
            e.data.fd = fd;
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
            if (++accepted % 16 == 0) {
                epoll_ctl(epoll, EPOLL_CTL_DEL, listener, NULL);
                e.events = EPOLLIN | (uint32_t)EPOLLEXCLUSIVE;
                e.data.fd = listener;
                epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e);
            }
        }
    }
}

static int serve_floor(int port, int closing)
{
    const int fd =
        socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    target t;
    int i;
    target_local(&t, port);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);   /* inherited */
    if (fd < 0 || bind(fd, (const struct sockaddr *)&t.addr, t.len) < 0 ||
        listen(fd, 511) < 0)
        die("port %d: %s", port, strerror(errno));
    for (i = 0; i < (opt.processes > 0 ? opt.processes : processors()); i++)
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGTERM);
            floor_run(fd, closing);
        }
    for (;;)
        pause();
}

/* ---------------------------------------------------------------------------
 * >>this -- eventmpm.h as it is measured: --serve PORT DIR
 * ------------------------------------------------------------------------- */

static long query_ms(empm_request *req, long fallback)
{
    const char *v = empm_query(req, "ms");
    const long ms = v != NULL ? strtol(v, NULL, 10) : fallback;
    return ms < 0 ? 0 : ms > 10000 ? 10000 : ms;
}

static int on_hello(empm_request *req, void *user)
{
    (void)user;
    return empm_write(req, HELLO, sizeof HELLO - 1);
}

/* Blocks, as a handler does that asks a database. Answers when it began, and in
 * which process. */
static int on_block(empm_request *req, void *user)
{
    const uint64_t began = now_ns();
    const long ms = query_ms(req, 10);
    struct timespec t;
    (void)user;
    t.tv_sec = ms / 1000;
    t.tv_nsec = ms % 1000 * 1000000;
    nanosleep(&t, NULL);
    return empm_printf(req, "%" PRIu64 " %ld\n", began, (long)getpid());
}

static int on_burn(empm_request *req, void *user)
{
    const uint64_t until = clock_ns(CLOCK_THREAD_CPUTIME_ID) +
                           (uint64_t)query_ms(req, 20) * 1000000u;
    (void)user;
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) < until)
        ;
    return empm_write(req, HELLO, sizeof HELLO - 1);
}

/* An event each 100 ms until the client goes or the server stops. */
static int on_tick(empm_request *req, enum empm_why why, void *user)
{
    if (why == EMPM_GONE || why == EMPM_STOPPING)
        return EMPM_OK;
    if (why != EMPM_HALF_CLOSED) {
        empm_printf(req, "data: %" PRIu64 "\n\n", now_ns());
        if (empm_suspend(req, 100, on_tick, user) == 0)
            return EMPM_OK;
    }
    return EMPM_SUSPENDED;
}

static int on_events(empm_request *req, void *user)
{
    empm_set_header(req, "Content-Type", "text/event-stream");
    return on_tick(req, EMPM_RESUMED, user);
}

/* The table is what shall be read: that it starts and stops is no news. */
static void only_trouble(enum empm_log_level level, const char *line,
                         void *user)
{
    (void)user;
    if (level <= EMPM_LOG_WARN)
        fprintf(stderr, "%s\n", line);
}

/* With --processes 0 as it comes out of the box. */
static int serve_this(int port, const char *dir, int argc, char **argv)
{
    static const empm_route routes[] = {
        EMPM_ROUTE("GET /hello",  on_hello,  NULL),
        EMPM_ROUTE("GET /block",  on_block,  NULL),
        EMPM_ROUTE("GET /burn",   on_burn,   NULL),
        EMPM_ROUTE("GET /events", on_events, NULL),
        EMPM_FILES("GET /", NULL),
        EMPM_ROUTES_END
    };
    empm_config cfg = empm_defaults();
    empm__source source;
    char text[200], listen_on[40];
    int i, r;
    snprintf(listen_on, sizeof listen_on, "127.0.0.1:%d", port);
    cfg.routes = routes;
    cfg.listen[0] = listen_on;
    cfg.user_name = geteuid() == 0 ? "root" : NULL;
    cfg.log = only_trouble;
    cfg.document_root = dir;
    if (opt.processes > 0) {
        cfg.processes = opt.processes;
        cfg.threads_per_child = opt.workers;
        cfg.thread_limit = opt.workers > cfg.thread_limit ? opt.workers
                                                          : cfg.thread_limit;
        cfg.max_request_workers = opt.workers * opt.processes;
        cfg.max_keep_alive_requests = 0;
        cfg.keep_alive_timeout_ms = 60000;
    }
    for (i = 0; i < opt.nset; i++) {
        char name[100];
        const size_t n = strcspn(opt.set[i], " ");
        snprintf(name, sizeof name, "%.*s", (int)n, opt.set[i]);
        if (empm_set(&cfg, name, opt.set[i] + n + (opt.set[i][n] == ' '), text,
                     sizeof text) != EMPM_OK)
            die("--set '%s': %s", opt.set[i], text);
    }
    if (getenv("LISTEN_FDS") != NULL)
        setpgid(0, 0);                 /* upgraded: a group of its own, too */
    memset(&source, 0, sizeof source);
    source.base = &cfg;                /* empm_run(), and USR2 starts us anew */
    source.argc = argc;
    source.argv = argv;
    r = empm__program_run(&source, NULL);
    empm_config_free(&cfg);
    return r == EMPM_OK ? 0 : 1;
}

/* ---------------------------------------------------------------------------
 * >>servers -- what can be started, and with which configuration
 *
 * Each is Debian's package as its manual would set it up for this work: no
 * access log, sendfile, keep-alive without limit of requests and for 60 s, one
 * listening socket. Apache answers hello from mod_rewrite and ErrorDocument,
 * which is faster than a file; nginx with `return`; lighttpd and h2o from a
 * file, which both keep in their caches. Apache's /block sleeps in mod_lua, and
 * holds a worker as ours does. h2o has threads instead of processes.
 * (It stays root if we are: a change of user would make it survive our sudden
 * end, see >>proc.)
 * ------------------------------------------------------------------------- */

enum { THIS, AGAINST, FLOOR, NGINX, APACHE, LIGHTTPD, H2O, SERVERS };

typedef struct server {
    int         kind;
    const char *name;
    const char *binary;                /* looked for in PATH and the sbins */
    const char *ask_version, *skip;    /* and what to skip of the answer */
    char        path[256], version[120];
    int         in_use;
    int         port, reply_bytes;
    pid_t       pid;                   /* 0: not running */
    target      at;
    tree        processes;
} server;

static server servers[SERVERS];

static void write_file(const char *path, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void write_file(const char *path, const char *fmt, ...)
{
    FILE *f = fopen(path, "w");
    va_list ap;
    if (f == NULL)
        die("%s: %s", path, strerror(errno));
    va_start(ap, fmt);
    vfprintf(f, fmt, ap);
    va_end(ap);
    if (fclose(f) != 0)
        die("%s: %s", path, strerror(errno));
}

/* The folder with the files that are served and the configurations. */
static void make_folder(void)
{
    static const struct { const char *name; size_t bytes; } files[] = {
        { "4k.bin", 4096 }, { "100k.bin", 102400 }, { "10m.bin", 10485760 }
    };
    char path[128], block[4096];
    uint32_t x = 1;
    size_t i, k, n;
    const char *base = getenv("TMPDIR");
    umask(022);
    snprintf(tmp_dir, sizeof tmp_dir, "%s/bench-XXXXXX",
             base != NULL && strlen(base) < 40 ? base : "/tmp");
    if (mkdtemp(tmp_dir) == NULL) {
        tmp_dir[0] = '\0';
        die("cannot make a temporary folder: %s", strerror(errno));
    }
    chmod(tmp_dir, 0755);              /* servers run as nobody */
    snprintf(path, sizeof path, "%s/docs", tmp_dir);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/docs/hello", tmp_dir);
    write_file(path, "%s", HELLO);
    for (i = 0; i < COUNT(files); i++) {
        FILE *f;
        snprintf(path, sizeof path, "%s/docs/%s", tmp_dir, files[i].name);
        f = fopen(path, "w");
        if (f == NULL)
            die("%s: %s", path, strerror(errno));
        for (n = 0; n < files[i].bytes; n += sizeof block) {
            for (k = 0; k < sizeof block; k++)
                block[k] = (char)((x = x * 1664525u + 1013904223u) >> 24);
            fwrite(block, 1, sizeof block, f);
        }
        if (fclose(f) != 0)
            die("%s: %s", path, strerror(errno));
    }
}

#define MODULES "/usr/lib/apache2/modules/"

/* the scene has said how many children */
static int own_shape;

static void write_config(const server *s, const char *conf)
{
    const char *d = tmp_dir;
    const int port = s->port, root = geteuid() == 0;
    const int n = opt.processes > 0 ? opt.processes : processors();
    struct rlimit limit;
    char shape[400] = "";
    long fds;
    getrlimit(RLIMIT_NOFILE, &limit);
    fds = limit.rlim_cur > 1000000 ? 1000000 : (long)limit.rlim_cur;
    if (s->kind == NGINX)
        write_file(conf,
            "%sdaemon off; worker_processes %d; pid %s/nginx.pid;\n"
            "worker_rlimit_nofile %ld; error_log %s/nginx.log;\n"
            "events { worker_connections %ld; }\n"
            "http {\n"
            "    access_log off; sendfile on; tcp_nopush on;\n"
            "    open_file_cache max=64 inactive=60s;\n"   /* as all others */
            "    default_type text/plain;\n"
            "    keepalive_requests 1000000000; keepalive_timeout 60;\n"
            "    client_body_temp_path %s/n1; proxy_temp_path %s/n2;\n"
            "    fastcgi_temp_path %s/n3; uwsgi_temp_path %s/n4;\n"
            "    scgi_temp_path %s/n5;\n"
            "    server {\n"
            "        listen 127.0.0.1:%d; root %s/docs;\n"
            "        location = /hello { return 200 \"" HELLO "\"; }\n"
            "    }\n"
            "}\n", root ? "user nobody nogroup; " : "", n, d, fds, d,
            fds > 1000 ? fds - 100 : fds, d, d, d, d, d, port, d);
    else if (s->kind == APACHE) {
        char script[128];
        snprintf(script, sizeof script, "%s/block.lua", d);
        write_file(script,
            "function handle(r)\n    r.usleep(1000 * "
                   "tonumber(r:parseargs().ms))\n"
            "    r:puts('0 0\\n')\n    return apache2.OK\nend\n");
        if (opt.processes > 0)
            snprintf(shape, sizeof shape,
                "ServerLimit %d\nStartServers %d\nThreadLimit %d\n"
                "ThreadsPerChild %d\nMaxRequestWorkers %d\n"
                "MinSpareThreads 1\nMaxSpareThreads %d\n"
                "%sKeepAlive On\nMaxKeepAliveRequests 0\n"
                "KeepAliveTimeout 60\n", n, n, opt.workers, opt.workers,
                n * opt.workers, n * opt.workers,
                own_shape ? "" : "AsyncRequestWorkerFactor 1000\n");
        write_file(conf,
            "ServerRoot %s\nServerName bench\nPidFile %s/apache.pid\n"
            "DefaultRuntimeDir %s\nListen 127.0.0.1:%d\n"
            "ErrorLog %s/apache.log\n%s"
            "LoadModule mpm_event_module  " MODULES "mod_mpm_event.so\n"
            "LoadModule authz_core_module " MODULES "mod_authz_core.so\n"
            "LoadModule rewrite_module    " MODULES "mod_rewrite.so\n"
            "LoadModule headers_module    " MODULES "mod_headers.so\n"
            "<IfFile " MODULES "mod_lua.so>\n"
            "    LoadModule lua_module    " MODULES "mod_lua.so\n"
            "    LuaMapHandler /block     %s\n    LuaScope thread\n"
            "</IfFile>\n%s"
            "EnableSendfile On\nEnableMMAP Off\n"
            "DocumentRoot %s/docs\n"
            "<Directory />\n    AllowOverride None\n"
            "    Options FollowSymLinks\n    Require all granted\n"
            "</Directory>\n"
            "ErrorDocument 200 \"" HELLO "\"\nRewriteEngine On\n"
            "RewriteRule ^/hello$ - [R=200,L]\n"
            "<Location /hello>\n    Header always set Content-Type text/plain\n"
            "</Location>\n", d, d, d, port, d,
            root ? "User nobody\nGroup nogroup\n" : "", script, shape, d);
    } else if (s->kind == LIGHTTPD)
        write_file(conf,
            "server.document-root = \"%s/docs\"\n"
            "server.bind = \"127.0.0.1\"\nserver.port = %d\n"
            "server.max-worker = %d\nserver.errorlog = \"%s/lighttpd.log\"\n"
            "server.max-keep-alive-requests = 1000000000\n"
            "server.max-keep-alive-idle = 60\n"
            "server.max-fds = %ld\nserver.max-connections = %ld\n"
            "server.upload-dirs = ( \"%s\" )\n"
            "mimetype.assign = ( \"\" => \"text/plain\" )\n",
            d, port, n, d, fds, fds > 1000 ? fds - 100 : fds / 2, d);
    else if (s->kind == H2O)
        write_file(conf,
            "%snum-threads: %d\nmax-connections: %ld\n"
            "listen:\n  host: 127.0.0.1\n  port: %d\n"
            "http1-request-timeout: 60\n"
            "file.mime.setdefaulttype: text/plain\n"
            "hosts:\n  default:\n    paths:\n      /:\n"
            "        file.dir: %s/docs\n",
            root ? "user: root\n" : "", n, fds > 1000 ? fds - 100 : fds, port,
            d);
}

/* A port that is free now. */
static int free_port(void)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    target t;
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    target_local(&t, 0);
    memset(&in, 0, sizeof in);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&t.addr, t.len) < 0 ||
        getsockname(fd, (struct sockaddr *)(void *)&in, &len) < 0)
        die("no free port: %s", strerror(errno));
    close(fd);
    return ntohs(in.sin_port);
}

/* Starts it and asks until it answers as it should. Returns 0 if it does not:
 * then it is not used any more. */
static int server_start(server *s, int closing)
{
    char conf[128], log[128], port[12], n[12], workers[12], docs[128];
    char pid_file[128];
    const char *argv[16 + 2 * MAX_SETTINGS];
    const uint64_t until = now_ns() + 8000000000u;
    answer a;
    int k = 0, i;
    s->port = free_port();
    target_local(&s->at, s->port);
    snprintf(conf, sizeof conf, "%s/%s.conf", tmp_dir, s->name);
    snprintf(log, sizeof log, "%s/%s.out", tmp_dir, s->name);
    snprintf(docs, sizeof docs, "%s/docs", tmp_dir);
    snprintf(port, sizeof port, "%d", s->port);
    snprintf(pid_file, sizeof pid_file, "PidFile %s/%d.pid", tmp_dir, s->port);
    snprintf(n, sizeof n, "%d", opt.processes);
    snprintf(workers, sizeof workers, "%d", opt.workers);
    argv[k++] = s->path;
    if (s->kind <= FLOOR) {
        if (s->kind != FLOOR) {
            argv[k++] = "--serve";
            argv[k++] = port;
            argv[k++] = "--dir";
            argv[k++] = docs;
            argv[k++] = "--workers";
            argv[k++] = workers;
            argv[k++] = "--set";
            argv[k++] = pid_file;
        } else {
            argv[k++] = closing ? "--serve-floor-close" : "--serve-floor";
            argv[k++] = port;
        }
        argv[k++] = "--processes";
        argv[k++] = n;
        for (i = 0; i < opt.nset && s->kind == THIS; i++) {
            argv[k++] = "--set";
            argv[k++] = opt.set[i];
        }
    } else {
        write_config(s, conf);
        if (s->kind == NGINX) {
            argv[k++] = "-p";
            argv[k++] = tmp_dir;
        }
        if (s->kind == LIGHTTPD)
            argv[k++] = "-D";
        if (s->kind == APACHE)
            argv[k++] = "-DFOREGROUND";
        argv[k++] = s->kind == NGINX || s->kind == H2O ? "-c" : "-f";
        argv[k++] = conf;
    }
    argv[k] = NULL;
    s->pid = spawn(argv, log);
    while (ask(&s->at, "/hello", 1000, &a) < 0 && now_ns() < until &&
           !is_gone(s->pid))
        sleep_ms(10);
    if (a.status == 200 && a.body == (int64_t)sizeof HELLO - 1 &&
        strcmp(a.text + a.head, HELLO) == 0) {
        s->reply_bytes = (int)(a.head + sizeof HELLO - 1);
        sleep_ms(s->kind == APACHE ? 300 : 50);    /* all its processes */
        tree_of(s->pid, &s->processes);
        return 1;
    }
    progress("%s", "");
    if (slurp(log, a.text, sizeof a.text) < 0)
        a.text[0] = '\0';
    printf("%s does not answer as it should (status %d) and is left out. "
           "Its output:\n%s\n", s->name, a.status, a.text);
    end_process(s->pid, SIGTERM);
    s->pid = 0;
    s->in_use = 0;
    return 0;
}

static void server_stop(server *s)
{
    if (s->pid != 0)
        end_process(s->pid, SIGTERM);
    s->pid = 0;
}

/* After USR2 another process serves: it takes the place of the one that was
 * started, which drains. 0: there is none. */
static int server_upgraded(server *s, double seconds)
{
    const uint64_t until = now_ns() + (uint64_t)(seconds * 1e9);
    char path[128], text[32];
    int i;
    snprintf(path, sizeof path, "%s/%d.pid", tmp_dir, s->port);
    do {
        const pid_t pid = slurp(path, text, sizeof text) > 0 ? atoi(text) : 0;
        for (i = 0; i < MAX_KIDS && kids[i] != 0; i++)
            ;
        if (pid > 0 && pid != s->pid && i < MAX_KIDS) {
            kids[i] = s->pid = pid;
            tree_of(s->pid, &s->processes);
            return 1;
        }
        sleep_ms(2);
    } while (now_ns() < until);
    return 0;
}

/* How many sockets each process of the tree has; what it had before is taken
 * off. Returns how many processes there are. */
static int sockets_by_process(const server *s, int *n, int sign)
{
    int i;
    for (i = 0; i < s->processes.n; i++)
        n[i] = sign * sockets_of(s->processes.pid[i]) + (sign > 0 ? n[i] : 0);
    return s->processes.n;
}

static void find_binary(server *s)
{
    static const char *const folders[] = { "/usr/sbin", "/usr/bin",
                                           "/usr/local/sbin",
                                           "/usr/local/bin" };
    char command[400], *nl;
    size_t i, n;
    FILE *f;
    for (i = 0; i < COUNT(folders); i++) {
        snprintf(s->path, sizeof s->path, "%s/%s", folders[i], s->binary);
        if (access(s->path, X_OK) == 0)
            break;
        s->path[0] = '\0';
    }
    if (s->path[0] == '\0')
        return;
    snprintf(command, sizeof command, "%s %s 2>&1", s->path, s->ask_version);
    f = popen(command, "r");
    if (f == NULL || fgets(s->version, sizeof s->version, f) == NULL)
        s->version[0] = '\0';
    if (f != NULL) {
        while (fgets(command, sizeof command, f) != NULL)
            ;
        pclose(f);
    }
    if ((nl = strchr(s->version, '\n')) != NULL)
        *nl = '\0';
    n = strlen(s->skip);
    if (strncmp(s->version, s->skip, n) == 0)
        memmove(s->version, s->version + n, strlen(s->version + n) + 1);
}

static void find_servers(void)
{
    static const struct { const char *name, *binary, *ask, *skip; } known[] = {
        { "eventmpm", "",         "",   "" },
        { "against",  "",         "",   "" },
        { "floor",    "",         "",   "" },
        { "nginx",    "nginx",    "-v", "nginx version: " },
        { "apache",   "apache2",  "-v", "Server version: " },
        { "lighttpd", "lighttpd", "-v", "" },
        { "h2o",      "h2o",      "-v", "" }
    };
    int i;
    for (i = 0; i < SERVERS; i++) {
        server *s = &servers[i];
        s->kind = i;
        s->name = known[i].name;
        s->binary = known[i].binary;
        s->ask_version = known[i].ask;
        s->skip = known[i].skip;
        if (i == AGAINST && opt.against_binary != NULL) {
            s->name = opt.against_name;
            snprintf(s->path, sizeof s->path, "%s", opt.against_binary);
            snprintf(s->version, sizeof s->version, "%s", opt.against_binary);
        } else if (i == THIS || i == FLOOR) {
            snprintf(s->path, sizeof s->path, "%.255s", self);
            snprintf(s->version, sizeof s->version, "%s",
                     i == THIS ? "eventmpm.h " EMPM_VERSION
                               : "bare epoll loop, canned reply");
        } else if (i > FLOOR && (opt.compare || opt.servers != NULL))
            find_binary(s);
        s->in_use = s->path[0] != '\0' &&
                    (opt.servers == NULL || picked(opt.servers, s->name));
    }
}

/* ---------------------------------------------------------------------------
 * >>results -- figures by scene, server, metric and round
 * ------------------------------------------------------------------------- */

enum { LOAD, IDLE, HEADS, READERS, BLOCKING, BURNING, BURST, BALANCE, REST,
       CALLS, SHARING, GROWN, MOVING, CHURN, KILLS, TUNED };
enum { ALL = (1 << SERVERS) - 1, OURS = 1 << THIS | 1 << AGAINST,
       REAL = ALL & ~(1 << FLOOR), EVENT = OURS | 1 << APACHE };
enum { BY_NAME = -1 };                 /* in no set: --scenes asks for it */

typedef struct scene {
    const char *name;
    int         kind;
    /* in the set without --compare; BY_NAME */
    int         in_short;
    int         who;                   /* bits of the servers that it is for */
    int         most_rounds;           /* 0: as many as asked for */
    int         connections, pipeline, close;
    const char *path, *title;
} scene;

static const scene scenes[] = {
    { "hello-1",    LOAD, 0, ALL, 0,    1,  1, 0, "/hello",
      "13 bytes, keep-alive, 1 connection" },
    { "hello-16",   LOAD, 1, ALL, 0,   16,  1, 0, "/hello",
      "13 bytes, keep-alive, 16 connections" },
    { "hello-64",   LOAD, 1, ALL, 0,   64,  1, 0, "/hello",
      "13 bytes, keep-alive, 64 connections" },
    { "hello-256",  LOAD, 0, ALL, 0,  256,  1, 0, "/hello",
      "13 bytes, keep-alive, 256 connections" },
    { "hello-1000", LOAD, 1, ALL, 0, 1000,  1, 0, "/hello",
      "13 bytes, keep-alive, 1000 connections" },
    { "pipeline",   LOAD, 1, ALL, 0,   64, 16, 0, "/hello",
      "13 bytes, 16 requests in one write, 64 connections" },
    { "close",      LOAD, 1, ALL, 0,   64,  1, 1, "/hello",
      "13 bytes, a connection per request, 64 at a time" },
    { "file-4k",    LOAD, 1, REAL, 0,  64,  1, 0, "/4k.bin",
      "a file of 4 KB, 64 connections" },
    { "file-100k",  LOAD, 0, REAL, 0,  64,  1, 0, "/100k.bin",
      "a file of 100 KB, 64 connections" },
    { "file-10m",   LOAD, 0, REAL, 0,  16,  1, 0, "/10m.bin",
      "a file of 10 MB, 16 connections" },
    { "calls",      CALLS, 0, ALL, 1,  64,  1, 0, "/hello",
      "system calls per request, 64 connections (perf)" },
    { "idle",       IDLE, 1, ALL, 3, 15000, 1, 0, "/hello",
      "idle keep-alive connections: bytes of process memory for each" },
    { "heads-200",  HEADS, 0, ALL, 0,  200, 1, 0, "/hello",
      "200 clients whose heads never end, beside 16 busy connections" },
    { "heads-2000", HEADS, 0, ALL, 0, 2000, 1, 0, "/hello",
      "2000 clients whose heads never end, beside 16 busy connections" },
    { "readers",    READERS, 0, REAL, 0, 200, 1, 0, "/10m.bin",
      "200 clients that read 10 MB at 1 KB/s, beside 16 busy connections" },
    { "blocking",   BLOCKING, 1, OURS, 0, 64, 1, 0, "/hello",
      "half of the requests block 10 ms, 64 connections: the other half" },
    { "burning",    BURNING, 0, OURS, 0,  16, 1, 0, "/hello",
      "8 connections keep handlers computing, beside 16 busy connections" },
    { "burst",      BURST, 1, OURS, 0,    64, 1, 0, "/block?ms=100",
      "as many blocking requests at once as there are idle workers" },
    { "balance",    BALANCE, 1, ALL, 0,  200, 1, 0, "/hello",
      "200 light connections, one after the other: who gets them" },
    { "rest",       REST, 1, ALL, 1,     100, 1, 0, "/hello",
      "wake-ups per second of all threads while nothing happens" },
    { "children-4x4", SHARING, BY_NAME, EVENT, 3, 16, 1, 0, "/block?ms=500",
      "4 children of 4 workers, 16 clients, a handler that takes 500 ms" },
    { "children-8x2", SHARING, BY_NAME, EVENT, 3, 16, 1, 0, "/block?ms=500",
      "8 children of 2 workers, 16 clients, a handler that takes 500 ms" },
    { "children-200", GROWN, BY_NAME, EVENT, 3, 200, 1, 0, "/block?ms=500",
      "out of the box, 200 clients at once, a handler that takes 500 ms" },
    { "children-300", GROWN, BY_NAME, EVENT, 3, 300, 1, 0, "/block?ms=500",
      "out of the box, 300 idle clients, then the handler takes 500 ms" },
    { "children-idle", MOVING, BY_NAME, EVENT, 3, 10000, 1, 0, "/hello",
      "idle keep-alive connections, a reload, then a request on each" },
    { "children-churn", CHURN, BY_NAME, OURS, 3, 100, 1, 0, "/hello",
      "20 reloads, then 5 upgrades, under 100 busy clients and 20 streams" },
    { "children-kill", KILLS, BY_NAME, OURS, 3, 48, 1, 0, "/block?ms=20",
      "children of 4 x 4 killed with -9 under 48 clients" },
    { "children-tuned", TUNED, BY_NAME, 1 << THIS, 3, 64, 1, 0, "/hello",
      "13 bytes, 64 connections: out of the box, and tuned" }
};
#define SCENES ((int)COUNT(scenes))

/* Scenes that say themselves how many children there are; 0: out of the box. */
static const struct { const char *scene; int processes, workers; } shapes[] = {
    { "children-4x4", 4, 4 }, { "children-8x2", 8, 2 },
    { "children-200", 0, 0 }, { "children-300", 0, 0 },
    { "children-kill", 4, 4 }, { "children-tuned", 0, 0 }
};

typedef struct column {
    const char *metric, *head;
    int         decimals, spread;      /* spread: print it beside */
    int         ratios;             /* 1: to nginx, 2: to the floor, after it */
} column;

static const column load_columns[] = {
    { "rps", "requests/s", 0, 1, 3 },
    { "cpu", "CPU us", 2, 1, 3 },
    { "user", "user", 2, 0, 0 },
    { "sys", "sys", 2, 0, 0 },
    { "p50", "p50 ms", 3, 0, 0 },
    { "p99", "p99 ms", 3, 0, 0 },
    { "p999", "p99.9", 3, 0, 0 },
    { "mbps", "MB/s", 0, 0, 0 },
    { "errors", "errors", 0, 0, 0 },
    { "client", "client us", 2, 0, 0 }
};
static const column calls_columns[] = {
    { "calls", "calls/request", 2, 0, 0 }
};
static const column idle_columns[] = {
    { "opened", "opened", 0, 0, 0 },
    { "pss0", "PSS MB before", 2, 0, 0 },
    { "pss", "PSS each", 0, 1, 1 },
    { "uss", "USS each", 0, 0, 0 },
    { "fresh", "fresh ms", 2, 0, 0 },
    { "fresh_max", "worst ms", 2, 0, 0 },
    { "alive", "alive after", 0, 0, 0 }
};
static const column beside_columns[] = {
    { "quiet", "quiet r/s", 0, 0, 0 },
    { "with", "with r/s", 0, 0, 0 },
    { "part", "with/quiet", 2, 1, 0 },
    { "quiet50", "p50 ms", 3, 0, 0 },
    { "with50", "with", 3, 0, 0 },
    { "quiet99", "p99 ms", 3, 0, 0 },
    { "with99", "with", 3, 0, 0 },
    { "errors", "errors", 0, 0, 0 },
    { "there", "still there", 0, 0, 0 }
};
static const column blocking_columns[] = {
    { "rate", "light r/s", 0, 0, 0 },
    { "light50", "p50 ms", 3, 0, 0 },
    { "light99", "p99 ms", 3, 1, 0 },
    { "quiet99", "quiet p99", 3, 0, 0 },
    { "queue99", "computed", 3, 0, 0 },
    { "excess", "excess ms", 3, 0, 0 },
    { "over_one", "over one", 3, 0, 0 },
    { "heavy50", "heavy p50", 2, 0, 0 },
    { "most", "most/child", 0, 0, 0 },
    { "errors", "errors", 0, 0, 0 }
};
static const column burst_columns[] = {
    { "all", "all run ms", 3, 1, 0 },
    { "worst", "worst ms", 3, 0, 0 },
    { "sending", "sending ms", 3, 0, 0 },
    { "jobs", "jobs", 0, 0, 0 }
};
static const column balance_columns[] = {
    { "share", "most in one %", 1, 1, 0 },
    { "processes", "processes", 0, 0, 0 }
};
static const column rest_columns[] = {
    { "alone", "without clients", 2, 0, 0 },
    { "crowd", "100 idle ones", 2, 0, 0 },
    { "threads", "threads", 0, 0, 0 }
};

static const column sharing_columns[] = {
    { "keep", "keep-alive r/s", 1, 1, 0 },
    { "keep50", "p50 ms", 0, 0, 0 },
    { "keep99", "p99", 0, 0, 0 },
    { "close", "close r/s", 1, 1, 0 },
    { "close50", "p50 ms", 0, 0, 0 },
    { "close99", "p99", 0, 0, 0 },
    { "burst", "burst ms", 0, 0, 0 },
    { "gaps", "3 ms apart", 0, 0, 0 },
    { "errors", "errors", 0, 0, 0 }
};
static const column grown_columns[] = {
    { "first", "first 5 s r/s", 1, 0, 0 },
    { "rps", "then r/s", 1, 1, 0 },
    { "ideal", "ideal", 0, 0, 0 },
    { "p50", "p50 ms", 0, 0, 0 },
    { "p99", "p99 ms", 0, 0, 0 },
    { "processes", "children", 0, 0, 0 },
    { "errors", "errors", 0, 0, 0 }
};
static const column moving_columns[] = {
    { "opened", "opened", 0, 0, 0 },
    { "failed", "reload: failed", 0, 0, 0 },
    { "closed", "closed", 0, 0, 0 },
    { "gone", "old gone s", 2, 0, 0 },
    { "failed2", "upgrade: failed", 0, 0, 0 },
    { "closed2", "closed", 0, 0, 0 },
    { "gone2", "old gone s", 2, 0, 0 }
};
static const column churn_columns[] = {
    { "reloads", "reloads", 0, 0, 0 },
    { "upgrades", "upgrades", 0, 0, 0 },
    { "requests", "requests", 0, 0, 0 },
    { "errors", "failed", 0, 0, 0 },
    { "worst", "slowest ms", 0, 0, 0 },
    { "ended", "streams ended", 0, 0, 0 },
    { "left", "old left", 0, 0, 0 }
};
static const column kills_columns[] = {
    { "kills", "kills", 0, 0, 0 },
    { "replies", "replies", 0, 0, 0 },
    { "own", "lost: its own", 0, 0, 0 },
    { "others", "others'", 0, 0, 0 },
    { "hung", "hung", 0, 0, 0 }
};
static const column tuned_columns[] = {
    { "box", "box us", 2, 0, 0 },
    { "kept", "kept us", 2, 0, 0 },
    { "tuned", "tuned us", 2, 0, 0 },
    { "box_ratio", "box/tuned", 3, 0, 0 },
    { "kept_ratio", "kept/tuned", 3, 0, 0 },
    { "box_rps", "box r/s", 0, 0, 0 },
    { "tuned_rps", "tuned r/s", 0, 0, 0 }
};

typedef struct columns {
    const column *of;
    int           n;
    const char   *note;
} columns;

#define COLUMNS(list, note) { list, (int)COUNT(list), note }
static const columns columns_of[] = {
    COLUMNS(load_columns, NULL),
    COLUMNS(idle_columns,
            "Bytes per connection are the slope between a third of the crowd "
            "and all of it,\nafter a warm-up; fresh: a new connection's first "
            "reply beside the full crowd."),
    COLUMNS(beside_columns,
            "A header line each 5 s; the two runs of a round are neighbours."),
    COLUMNS(beside_columns, "The two runs of a round are neighbours."),
    COLUMNS(blocking_columns,
            "Quiet: the same rate of light requests (open loop) alone. "
            "Computed: p99 of the wait for\na worker with these connections "
            "per child. Excess: p99 less these two. Over one: p99\nless quiet "
            "p99 and the wait if all workers were of one child; at most 1 is "
            "the goal."),
    COLUMNS(beside_columns,
            "Each of the 8 asks for 20 ms of computing, again and again."),
    COLUMNS(burst_columns,
            "From the first request sent until the last handler runs, by one "
            "clock; of 10 bursts\nthe median and the worst. As many "
            "connections to each child as it has workers."),
    COLUMNS(balance_columns, NULL),
    COLUMNS(rest_columns,
            "voluntary_ctxt_switches of all threads of the tree during 4 s."),
    COLUMNS(calls_columns, NULL),
    COLUMNS(sharing_columns,
            "16 workers could do 32 r/s: goals 31, and 30 with a connection "
            "per request. The slowest\nanswer of 3 bursts of 16, sent at once "
            "and 3 ms apart: goal 530 ms."),
    COLUMNS(grown_columns,
            "Goals: 380 of 400 r/s and a p50 of 520 ms with 200 clients; 590 "
            "of 600 r/s with 300."),
    COLUMNS(moving_columns,
            "Failed: no answer to the request. Closed: these and those closed "
            "after it. Old gone: from\nthe signal until the last process of "
            "before has ended, requests from 3 s on. Goals: 0, 0, 2 s."),
    COLUMNS(churn_columns,
            "Goals: nothing failed. A stream that ends is asked for again. Old "
            "left: processes of before,\n2 s after the last stream has been "
            "closed."),
    COLUMNS(kills_columns,
            "Its own: connections whose descriptor the killed child had, by "
            "/proc. Others': lost though\nit had them not. Hung: no reply for "
            "3 s. Goals: 0 and 0."),
    COLUMNS(tuned_columns,
            "CPU per request. Kept: out of the box, MaxKeepAliveRequests 0. "
            "Tuned: as many processes as\nprocessors, and that. Ratios: median "
            "of 5 neighbours; the goal is 1.03.")
};

typedef struct series {                /* one metric over the rounds */
    int         scene, server, n;
    const char *metric;
    double      v[MAX_ROUNDS];
} series;

static series store[2048];
static int    nstore;
static char   calls_detail[SERVERS][400];   /* the scene "calls" in words */

static series *find_series(int sc, int sv, const char *metric)
{
    int i;
    for (i = 0; i < nstore; i++)
        if (store[i].scene == sc && store[i].server == sv &&
            strcmp(store[i].metric, metric) == 0)
            return &store[i];
    return NULL;
}

static void note(int sc, int sv, const char *metric, double v)
{
    series *s = find_series(sc, sv, metric);
    if (s == NULL) {
        if (nstore == (int)COUNT(store))
            die("too many results");
        s = &store[nstore++];
        s->scene = sc;
        s->server = sv;
        s->metric = metric;
    }
    if (s->n < MAX_ROUNDS)
        s->v[s->n++] = v;
}

static void range_of(const series *s, double *low, double *high)
{
    int i;
    *low = *high = NAN;
    for (i = 0; i < s->n; i++) {
        *low = lesser(*low, s->v[i]);
        *high = greater(*high, s->v[i]);
    }
}

/* The median of the rounds, NAN if there is none. */
static double result(int sc, int sv, const char *metric)
{
    const series *s = find_series(sc, sv, metric);
    return s != NULL ? median_of(s->v, s->n) : NAN;
}

static double ratio_of(int sc, int sv, int to, const char *metric)
{
    const series *a = find_series(sc, sv, metric);
    const series *b = find_series(sc, to, metric);
    double v[MAX_ROUNDS];
    int i, n = 0;
    if (a == NULL || b == NULL || a == b)
        return NAN;
    for (i = 0; i < a->n && i < b->n; i++)
        if (b->v[i] > 0 && isfinite(b->v[i]) && isfinite(a->v[i]))
            v[n++] = a->v[i] / b->v[i];
    return median_of(v, n);
}

/* ---------------------------------------------------------------------------
 * >>scenes -- one round of one scene with one server, each
 *
 * Every wait in them is bounded. New scene? Also: a row in scenes[], and in
 * columns_of[] if it is of a new kind.
 * ------------------------------------------------------------------------- */

static void note_errors(int sc, int sv, const figures *f)
{
    double sum = 0;
    int e;
    for (e = 0; e < ERRORS; e++)
        sum += (double)f->errors[e];
    note(sc, sv, "errors", sum);
}

static void note_load(int sc, int sv, const figures *f)
{
    note(sc, sv, "rps", f->rate);
    note(sc, sv, "cpu", f->cpu_us);
    note(sc, sv, "user", f->user_us);
    note(sc, sv, "sys", f->sys_us);
    note(sc, sv, "p50", hist_ms(&f->latency[0], 0.5));
    note(sc, sv, "p90", hist_ms(&f->latency[0], 0.9));
    note(sc, sv, "p99", hist_ms(&f->latency[0], 0.99));
    note(sc, sv, "p999", hist_ms(&f->latency[0], 0.999));
    note(sc, sv, "max", (double)f->latency[0].max / 1e6);
    note(sc, sv, "mbps", f->mb_per_s);
    note(sc, sv, "client", f->client_us);
    note(sc, sv, "others", f->others);
    note_errors(sc, sv, f);
}

/* Runs a load beside whatever else happens and measures it. */
static void run_load(const load_spec *spec, const tree *of, figures *f)
{
    load *l = load_start(spec);
    load_wait_open(l, 5);
    sleep_ms(250);
    load_measure(l, opt.seconds, of, f);
    load_stop(l);
    sleep_ms(50);
}

static void scene_load(int sc, server *s)
{
    static figures f;
    const scene *w = &scenes[sc];
    load_spec spec = load_defaults(&s->at, w->path, w->connections);
    spec.pipeline = w->pipeline;
    spec.close = w->close;
    spec.rate = w->pipeline > 1 || w->close ? 0 : opt.rate;
    spec.expect = strcmp(w->path, "/4k.bin") == 0     ? 4096
                  : strcmp(w->path, "/100k.bin") == 0 ? 102400
                  : strcmp(w->path, "/10m.bin") == 0
                      ? 10485760
                      : (int64_t)sizeof HELLO - 1;
    run_load(&spec, &s->processes, &f);
    note_load(sc, s->kind, &f);
    progress("%-12s %-10s %9.0f requests/s  %7.2f us CPU", w->name, s->name,
             f.rate, f.cpu_us);
}

/* A third of the crowd, then all of it; at the end each is asked once more. */
static void scene_idle(int sc, server *s)
{
    static figures f;
    const int third = opt.crowd / 3;
    load_spec spec = load_defaults(&s->at, "/hello", 256);
    double pss0, uss0, pss[2], uss[2], fresh[20], worst = 0;
    load *l[2];
    answer a;
    int i, opened[2], alive = 0, n = 0;
    l[0] = load_start(&spec);          /* the warm-up */
    load_measure(l[0], 0.5, NULL, &f);
    load_stop(l[0]);
    sleep_ms(300);
    memory_of(&s->processes, &pss0, &uss0);
    spec.idle = 1;
    spec.threads = 1;
    for (i = 0; i < 2; i++) {
        spec.connections = i == 0 ? third : opt.crowd - third;
        l[i] = load_start(&spec);
        opened[i] = load_wait_open(l[i], 10 + opt.crowd / 2000.0);
        sleep_ms(300);
        memory_of(&s->processes, &pss[i], &uss[i]);
        progress("%-12s %-10s %6d open, %7.1f MB", scenes[sc].name, s->name,
                 opened[0] + (i > 0 ? opened[1] : 0), pss[i] / 1e6);
    }
    for (i = 0; i < (int)COUNT(fresh) && worst < INFINITY; i++) {
        if (ask(&s->at, "/hello", 3000, &a) == 0)
            fresh[n++] = a.ms;
        worst = greater(worst, n == i + 1 ? a.ms : INFINITY);
        sleep_ms(5);
    }
    for (i = 0; i < 2; i++) {
        const uint64_t until = now_ns() + 8000000000u;
        const uint64_t before = load_counts(l[i]).done[0];
        const uint32_t asked = load_counts(l[i]).open;
        at_store(&l[i]->nudge, 1u);
        while (load_counts(l[i]).done[0] - before < asked && now_ns() < until)
            sleep_ms(10);
        alive += (int)(load_counts(l[i]).done[0] - before);
    }
    for (i = 0; i < 2; i++)
        load_stop(l[i]);
    note(sc, s->kind, "opened", opened[0] + opened[1]);
    note(sc, s->kind, "pss0", pss0 / 1e6);
    note(sc, s->kind, "pss",
         opened[1] > 0 ? (pss[1] - pss[0]) / opened[1] : NAN);
    note(sc, s->kind, "uss",
         opened[1] > 0 ? (uss[1] - uss[0]) / opened[1] : NAN);
    note(sc, s->kind, "fresh", median_of(fresh, n));
    note(sc, s->kind, "fresh_max", worst);
    note(sc, s->kind, "alive", alive);
    sleep_ms(300 + opt.crowd / 50.0);  /* the server closes them */
}

/* The same normal client twice: alone, then beside somebody. */
static void scene_beside(int sc, server *s)
{
    static figures quiet, with;
    const scene *w = &scenes[sc];
    load_spec spec = load_defaults(&s->at, "/hello", 16);
    load_spec burn = load_defaults(&s->at, "/burn?ms=20", 8);
    load *other = NULL;
    crowd slow;
    int there;
    spec.expect = (int64_t)sizeof HELLO - 1;
    burn.threads = 1;
    burn.timeout_ms = 60000;
    run_load(&spec, &s->processes, &quiet);
    if (w->kind == BURNING) {
        other = load_start(&burn);
        load_wait_open(other, 5);
    } else
        crowd_start(&slow, &s->at, w->kind == HEADS ? SLOW_HEADS : SLOW_READERS,
                    w->connections, w->path);
    run_load(&spec, &s->processes, &with);
    if (other != NULL) {
        there = (int)load_counts(other).open;
        load_stop(other);
    } else
        there = crowd_stop(&slow);
    sleep_ms(200);
    note(sc, s->kind, "quiet", quiet.rate);
    note(sc, s->kind, "with", with.rate);
    note(sc, s->kind, "part", with.rate / quiet.rate);
    note(sc, s->kind, "quiet50", hist_ms(&quiet.latency[0], 0.5));
    note(sc, s->kind, "with50", hist_ms(&with.latency[0], 0.5));
    note(sc, s->kind, "quiet99", hist_ms(&quiet.latency[0], 0.99));
    note(sc, s->kind, "with99", hist_ms(&with.latency[0], 0.99));
    note_errors(sc, s->kind, &with);
    note(sc, s->kind, "there", there);
    progress("%-12s %-10s %9.0f requests/s alone, %9.0f beside", w->name,
             s->name, quiet.rate, with.rate);
}

/* How long light requests wait for a worker, by simulation: n clients of one
 * child with m workers, first come first served; one request in two, by chance,
 * holds a worker for `hold_ms` (up to 2 % more), the other for no time. */
static void simulate(hist *h, int n, int m, double hold_ms)
{
    double until[256], arrived[256], now = 0;    /* by worker; by client */
    int    heavy[256], line[256], at[256], head = 0, count = 0, i, k;
    uint32_t x = 12345;
    int starts = 0;
    if (n > 256 || m > 256 || n <= 0 || m <= 0)
        return;
    for (i = 0; i < m; i++)
        until[i] = -1;                 /* idle */
    for (i = 0; i < n; i++) {
        arrived[i] = 0;
        x = x * 1664525u + 1013904223u;
        heavy[i] = (x >> 31) != 0;
        line[count++] = i;
    }
    while (now < 21000) {             /* 21 s, the first of which is left out */
        for (k = 0; k < m && until[k] >= 0; k++)
            ;
        if (k < m && count > 0) {      /* a worker takes the next one */
            const int c = line[head];
            head = (head + 1) % 256;
            count--;
            if (heavy[c]) {
                /* the first ones have begun at any time before */
                x = x * 1664525u + 1013904223u;
                until[k] =
                    now + hold_ms * (starts++ < m ? (x >> 8) / 16777216.0
                                                  : 1 + (x >> 8) / 8.4e8);
                at[k] = c;
                continue;
            }
            if (now > 1000)
                hist_add(h, (uint64_t)((now - arrived[c]) * 1e6));
            i = c;
        } else {                       /* time passes until one is free */
            for (k = i = 0; i < m; i++)
                if (until[i] >= 0 && (until[k] < 0 || until[i] < until[k]))
                    k = i;
            now = until[k];
            until[k] = -1;
            i = at[k];
        }
        arrived[i] = now;              /* client i asks again */
        x = x * 1664525u + 1013904223u;
        heavy[i] = (x >> 31) != 0;
        line[(head + count++) % 256] = i;
    }
}

static void scene_blocking(int sc, server *s)
{
    static figures mixed, quiet;
    static hist waits, waits_of_one;
    load_spec spec = load_defaults(&s->at, "/hello", scenes[sc].connections);
    int n[MAX_TREE], processes, i, most = 0;
    double over;
    load *l;
    memset(n, 0, sizeof n);
    memset(&waits, 0, sizeof waits);
    memset(&waits_of_one, 0, sizeof waits_of_one);
    sockets_by_process(s, n, -1);
    spec.path[1] = "/block?ms=10";
    spec.share = 0.5;
    l = load_start(&spec);
    load_wait_open(l, 5);
    sleep_ms(250);
    processes = sockets_by_process(s, n, 1);
    load_measure(l, opt.seconds, &s->processes, &mixed);
    load_stop(l);
    sleep_ms(100);
    for (i = 0; i < processes; i++) {
        simulate(&waits, n[i], opt.workers, hist_ms(&mixed.latency[1], 0.1));
        most = n[i] > most ? n[i] : most;
    }
    simulate(&waits_of_one, spec.connections, opt.workers * opt.processes,
             hist_ms(&mixed.latency[1], 0.1));
    spec.share = 0;
    spec.rate = mixed.light_rate > 1 ? mixed.light_rate : 1;
    run_load(&spec, &s->processes, &quiet);
    over = hist_ms(&mixed.latency[0], 0.99) - hist_ms(&quiet.latency[0], 0.99);
    note(sc, s->kind, "rate", mixed.light_rate);
    note(sc, s->kind, "light50", hist_ms(&mixed.latency[0], 0.5));
    note(sc, s->kind, "light99", hist_ms(&mixed.latency[0], 0.99));
    note(sc, s->kind, "quiet99", hist_ms(&quiet.latency[0], 0.99));
    note(sc, s->kind, "queue99", hist_ms(&waits, 0.99));
    note(sc, s->kind, "excess", over - hist_ms(&waits, 0.99));
    note(sc, s->kind, "over_one", over - hist_ms(&waits_of_one, 0.99));
    note(sc, s->kind, "heavy50", hist_ms(&mixed.latency[1], 0.5));
    note(sc, s->kind, "most", most);
    note_errors(sc, s->kind, &mixed);
    progress("%-12s %-10s p99 %.3f ms, quiet %.3f, computed %.3f",
             scenes[sc].name, s->name, hist_ms(&mixed.latency[0], 0.99),
             hist_ms(&quiet.latency[0], 0.99), hist_ms(&waits, 0.99));
}

/* All idle workers get a job at once. First finds as many connections to each
 * child as it has workers: the reply to /block says which child it was. */
static void scene_burst(int sc, server *s)
{
    enum { MOST = 1024, BURSTS = 10 };
    int fds[MOST], used[MAX_TREE], n = 0, tries, i, k;
    const int want = opt.workers * opt.processes;
    double all[BURSTS], worst = 0, sending[BURSTS];
    char request[256], text[16384];
    answer a;
    const int len = snprintf(request, sizeof request,
                             "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n",
                             scenes[sc].path, s->at.host);
    memset(used, 0, sizeof used);
    for (tries = 0; tries < 8 * want && n < want && n < MOST; tries++) {
        const int fd = connect_to(&s->at, 2000);
        const char *pid = NULL;
        int keep = 0;
        if (fd >= 0 && ask_on(fd, &s->at, "/block?ms=0", &a) == 0)
            pid = strchr(a.text + a.head, ' ');
        for (i = 0; pid != NULL && i < s->processes.n; i++)
            if (s->processes.pid[i] == (pid_t)atol(pid + 1) &&
                used[i] < opt.workers) {
                used[i]++;
                keep = 1;
            }
        if (keep)
            fds[n++] = fd;
        else if (fd >= 0)
            close(fd);
    }
    for (k = 0; k < BURSTS && n > 0; k++) {
        uint64_t first, sent, last = 0;
        sleep_ms(120);                 /* all workers are idle again */
        first = now_ns();
        for (i = 0; i < n; i++)
            if (send(fds[i], request, (size_t)len, MSG_NOSIGNAL) != len)
                break;
        sent = now_ns();
        for (i = 0; i < n; i++) {
            ssize_t r = recv(fds[i], text, sizeof text - 1, 0);
            const char *body;
            uint64_t began;
            text[r > 0 ? r : 0] = '\0';
            body = strstr(text, "\r\n\r\n");
            began = body != NULL ? strtoull(body + 4, NULL, 10) : 0;
            if (began == 0)
                last = UINT64_MAX;     /* no answer: not all have run */
            else if (began > last)
                last = began;
        }
        all[k] = last == UINT64_MAX ? INFINITY : (double)(last - first) / 1e6;
        sending[k] = (double)(sent - first) / 1e6;
        worst = greater(worst, all[k]);
    }
    for (i = 0; i < n; i++)
        close(fds[i]);
    note(sc, s->kind, "all", median_of(all, k));
    note(sc, s->kind, "worst", worst);
    note(sc, s->kind, "sending", median_of(sending, k));
    note(sc, s->kind, "jobs", n);
    progress("%-12s %-10s %d jobs run after %.3f ms", scenes[sc].name, s->name,
             n, median_of(all, k));
}

static void scene_balance(int sc, server *s)
{
    enum { MOST = 1024 };
    const int want = scenes[sc].connections;
    int fds[MOST], n[MAX_TREE], i, processes, most = 0, sum = 0, some = 0;
    answer a;
    memset(n, 0, sizeof n);
    sockets_by_process(s, n, -1);
    for (i = 0; i < want; i++) {
        fds[i] = connect_to(&s->at, 2000);
        if (fds[i] >= 0)
            ask_on(fds[i], &s->at, "/hello", &a);
        sleep_ms(1);
    }
    processes = sockets_by_process(s, n, 1);
    for (i = 0; i < processes; i++) {
        most = n[i] > most ? n[i] : most;
        sum += n[i] > 0 ? n[i] : 0;
        some += n[i] > 0;
    }
    for (i = 0; i < want; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    /* with one process that could have taken them, there is nothing to share */
    note(sc, s->kind, "share", s->kind == H2O ? NAN : 100.0 * most / sum);
    note(sc, s->kind, "processes", some);
    progress("%-12s %-10s %d of %d in one process", scenes[sc].name, s->name,
             most, sum);
    sleep_ms(200);
}

/* How often its threads have gone to sleep and been woken. */
static double wakeups_of(const server *s)
{
    return s->pid == 0 ? 0 : tree_sum(&s->processes, "task/*/status",
                                      "voluntary_ctxt_switches:");
}

/* For all servers at once: none of them has anything to do. */
static void scene_rest(int sc)
{
    const double span = 4;
    double before[2][SERVERS], after[2][SERVERS];
    load *crowds[SERVERS];
    int i, k;
    memset(crowds, 0, sizeof crowds);
    for (k = 0; k < 2; k++) {
        progress("%-12s all servers, %s", scenes[sc].name,
                 k == 0 ? "without clients" : "with 100 idle clients each");
        sleep_ms(1500);
        for (i = 0; i < SERVERS; i++)
            before[k][i] = wakeups_of(&servers[i]);
        sleep_ms(span * 1000);
        for (i = 0; i < SERVERS; i++)
            after[k][i] = wakeups_of(&servers[i]);
        for (i = 0; k == 0 && i < SERVERS; i++)
            if (servers[i].pid != 0) {
                load_spec spec = load_defaults(&servers[i].at, "/hello",
                                               scenes[sc].connections);
                spec.idle = 1;
                spec.threads = 1;
                crowds[i] = load_start(&spec);
                load_wait_open(crowds[i], 5);
            }
    }
    for (i = 0; i < SERVERS; i++) {
        if (crowds[i] == NULL)
            continue;
        load_stop(crowds[i]);
        note(sc, i, "alone", (after[0][i] - before[0][i]) / span);
        note(sc, i, "crowd", (after[1][i] - before[1][i]) / span);
        note(sc, i, "threads", tree_sum(&servers[i].processes, "status",
                                        "Threads:"));
    }
}

/* The calls that perf can count by name, where the kernel has them. */
static const char *const call_names[] = {
    "read", "recvfrom", "recvmsg", "readv", "write", "writev", "sendto",
    "sendmsg", "sendfile64", "epoll_wait", "epoll_pwait", "epoll_ctl", "futex",
    "sched_yield", "accept4", "close", "fcntl", "setsockopt", "clock_gettime",
    "openat", "newfstatat"
};

/* Attaches perf to the tree and has it count; 0: it cannot. */
static pid_t count_calls(const server *s, const char *out)
{
    static char list[4096], pids[MAX_TREE * 12];
    static const char *const roots[] = { "/sys/kernel/tracing",
                                         "/sys/kernel/debug/tracing" };
    const char *argv[] = { "/usr/bin/perf", "stat", "-x,", "-e", list, "-p",
                           pids, "-o", out, NULL };
    char path[200], log[128];
    size_t i, r, n, p = 0;
    n = (size_t)snprintf(list, sizeof list, "raw_syscalls:sys_enter");
    for (i = 0; i < COUNT(call_names); i++)
        for (r = 0; r < COUNT(roots); r++) {
            snprintf(path, sizeof path, "%s/events/syscalls/sys_enter_%s",
                     roots[r], call_names[i]);
            if (access(path, F_OK) == 0) {
                n += (size_t)snprintf(list + n, sizeof list - n,
                                      ",syscalls:sys_enter_%s", call_names[i]);
                break;
            }
        }
    for (i = 0; i < (size_t)s->processes.n; i++)
        p += (size_t)snprintf(pids + p, sizeof pids - p, "%s%d",
                              i > 0 ? "," : "", (int)s->processes.pid[i]);
    snprintf(log, sizeof log, "%s/perf.out", tmp_dir);
    return access(argv[0], X_OK) == 0 ? spawn(argv, log) : 0;
}

/* Counts from before the first request until after the last, so that calls and
 * requests are of the same span. */
static void scene_calls(int sc, server *s)
{
    static char text[32768];
    load_spec spec = load_defaults(&s->at, "/hello", scenes[sc].connections);
    char out[128], *line = text, *detail = calls_detail[s->kind];
    double all = NAN, requests;
    size_t n = 0;
    load *l;
    pid_t pid;
    snprintf(out, sizeof out, "%s/calls", tmp_dir);
    pid = count_calls(s, out);
    if (pid == 0)
        return;
    sleep_ms(1500);                    /* it attaches to every thread */
    l = load_start(&spec);
    load_wait_open(l, 5);
    sleep_ms(opt.seconds * 1000);
    at_store(&l->phase, (uint32_t)MEASURED);
    requests = (double)load_counts(l).done[0];
    load_stop(l);
    sleep_ms(50);
    end_process(pid, SIGINT);
    if (slurp(out, text, sizeof text) < 0)
        text[0] = '\0';                /* perf was not allowed to */
    for (; line != NULL && *line != '\0'; line = strchr(line, '\n'),
                                          line += line != NULL) {
        const char *at = strstr(line, "sys_enter");
        char name[60] = "";
        double count;
        if (sscanf(line, "%lf,", &count) != 1 || at == NULL)
            continue;
        if (sscanf(at, "sys_enter_%59[^,]", name) != 1)
            all = count / requests;    /* raw_syscalls: comes first */
        else if (count / requests >= 0.005 && n < sizeof calls_detail[0] - 60)
            n += (size_t)snprintf(detail + n, sizeof calls_detail[0] - n,
                                  "%s%s %.2f", n > 0 ? ", " : "", name,
                                  count / requests);
    }
    unlink(out);
    note(sc, s->kind, "calls", all);
    progress("%-12s %-10s %.2f", scenes[sc].name, s->name, all);
}

/* ---------------------------------------------------------------------------
 * >>children -- scenes: are the children of a server one server?
 * ------------------------------------------------------------------------- */

/* The slowest answer, in ms, of n requests that arrive at once, each on a fresh
 * connection, or one after the other. */
static double slowest_of(const target *t, const char *path, int n, int gap_ms)
{
    enum { MOST = 64 };
    struct pollfd p[MOST];
    uint64_t sent[MOST], until;
    char text[512], in[4096];
    const int len = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: "
                             "%s\r\nConnection: close\r\n\r\n", path, t->host);
    double worst = 0;
    int i, left = n;
    for (i = 0; i < n; i++) {
        p[i].fd = connect_to(t, 2000);
        p[i].events = POLLIN;
    }
    sleep_ms(5);
    for (i = 0; i < n; i++) {
        sent[i] = now_ns();
        if (send(p[i].fd, text, (size_t)len, MSG_NOSIGNAL) != len)
            worst = INFINITY;
        if (gap_ms > 0)
            sleep_ms(gap_ms);
    }
    until = now_ns() + 10000000000u;
    while (left > 0 && now_ns() < until) {
        sleep_ms(0);                   /* a signal? */
        if (poll(p, (nfds_t)n, 100) <= 0)
            continue;
        for (i = 0; i < n; i++) {
            ssize_t r;
            if (p[i].fd < 0 || p[i].revents == 0)
                continue;
            r = recv(p[i].fd, in, sizeof in, 0);
            worst = greater(worst, r > 12 && memcmp(in + 9, "200", 3) == 0
                                       ? (double)(now_ns() - sent[i]) / 1e6
                                       : INFINITY);
            close(p[i].fd);
            p[i].fd = -1;
            left--;
        }
    }
    for (i = 0; i < n; i++)
        if (p[i].fd >= 0)
            close(p[i].fd);
    return left > 0 ? INFINITY : worst;
}

static void scene_sharing(int sc, server *s)
{
    static const char *const names[2][3] = { { "keep", "keep50", "keep99" },
                                             { "close", "close50",
                                              "close99" } };
    static figures f[2];
    const scene *w = &scenes[sc];
    double worst[2] = { 0, 0 };
    int i, k;
    for (k = 0; k < 2; k++) {
        load_spec spec = load_defaults(&s->at, w->path, w->connections);
        load *l;
        spec.close = k;
        spec.in_step = 1;
        l = load_start(&spec);
        load_wait_open(l, 3);
        load_measure(l, greater(opt.seconds, 4), &s->processes, &f[k]);
        load_stop(l);
        sleep_ms(600);                 /* what still runs ends */
        note(sc, s->kind, names[k][0], f[k].rate);
        note(sc, s->kind, names[k][1], hist_ms(&f[k].latency[0], 0.5));
        note(sc, s->kind, names[k][2], hist_ms(&f[k].latency[0], 0.99));
    }
    for (i = 0; i < ERRORS; i++)
        f[0].errors[i] += f[1].errors[i];
    note_errors(sc, s->kind, &f[0]);
    for (k = 0; k < 2; k++)
        for (i = 0; i < 3 && worst[k] < INFINITY; i++) {
            worst[k] = greater(worst[k], slowest_of(&s->at, w->path,
                                                    w->connections, 3 * k));
            sleep_ms(200);
        }
    note(sc, s->kind, "burst", worst[0]);
    note(sc, s->kind, "gaps", worst[1]);
    progress("%-12s %-10s %.1f/s, %.1f/s without keep-alive, burst %.0f ms",
             w->name, s->name, f[0].rate, f[1].rate, worst[0]);
}

/* All at once; or all have been idle for 2 s, with a connection each. */
static void scene_grown(int sc, server *s)
{
    static figures f;
    const scene *w = &scenes[sc];
    const int idle = strcmp(w->name, "children-300") == 0;
    load_spec spec = load_defaults(&s->at, w->path, w->connections);
    uint64_t before = 0, from;
    double first;
    hist *h = &f.latency[idle];
    tree t;
    load *l;
    spec.path[0] = idle ? "/hello" : w->path;
    spec.path[1] = w->path;
    spec.idle = idle;
    spec.in_step = 1;
    spec.timeout_ms = 10000;
    l = load_start(&spec);
    if (idle) {
        load_wait_open(l, 5);
        sleep_ms(2000);
        before = load_done(l);
        at_store(&l->turned, 1u);
        at_store(&l->nudge, 1u);
    }
    from = now_ns();
    sleep_until(from + 5000000000u);
    first = (double)(load_done(l) - before) / ((double)(now_ns() - from) / 1e9);
    load_measure(l, 5, NULL, &f);
    tree_of(s->pid, &t);
    load_stop(l);
    note(sc, s->kind, "first", first);
    note(sc, s->kind, "rps", f.rate);
    note(sc, s->kind, "ideal", 2 * w->connections);
    note(sc, s->kind, "p50", hist_ms(h, 0.5));
    note(sc, s->kind, "p99", hist_ms(h, 0.99));
    note(sc, s->kind, "processes", t.n - 1);
    note_errors(sc, s->kind, &f);
    progress("%-12s %-10s %.1f of %d/s", w->name, s->name, f.rate,
             2 * w->connections);
    sleep_ms(1000);
}

/* Seconds from `since` until all of these processes have ended. */
static double wait_gone(const tree *of, uint64_t since, double seconds)
{
    const uint64_t until = since + (uint64_t)(seconds * 1e9);
    int i = 0;
    for (;;) {
        while (i < of->n && is_gone(of->pid[i]))
            i++;
        if (i == of->n)
            return (double)(now_ns() - since) / 1e9;
        if (now_ns() >= until)
            return INFINITY;
        sleep_ms(2);
    }
}

/* The children of a server, or all of its processes. */
static tree processes_of(const server *s, int with_parent)
{
    tree t;
    tree_of(s->pid, &t);
    if (!with_parent)
        memmove(t.pid, t.pid + 1, (size_t)--t.n * sizeof *t.pid);
    return t;
}

/* Nobody but its clients keeps what has been replaced; a little later it is
 * gone, or is ended. Returns how many processes were left. */
static int end_of_old(const tree *of)
{
    int i, left = 0;
    wait_gone(of, now_ns(), 2);
    for (i = 0; i < of->n; i++)
        if (!is_gone(of->pid[i])) {
            left++;
            end_process(of->pid[i], SIGKILL);
        }
    /* parents that have left by themselves */
    for (i = 0; i < MAX_KIDS; i++)
        if (kids[i] != 0 && is_gone(kids[i]))
            kids[i] = 0;
    return left;
}

static void scene_moving(int sc, server *s)
{
    static const char *const names[2][3] = { { "failed", "closed", "gone" },
                                             { "failed2", "closed2",
                                              "gone2" } };
    const scene *w = &scenes[sc];
    load_spec spec = load_defaults(&s->at, w->path, w->connections);
    int k;
    if (spec.connections > opt.crowd)
        spec.connections = opt.crowd;
    spec.idle = 1;
    spec.threads = 1;
    for (k = 0; k < (s->kind == APACHE ? 1 : 2); k++) {
        load *l = load_start(&spec);
        const int opened = load_wait_open(l, 10 + spec.connections / 1000.0);
        const tree old = processes_of(s, k);
        uint64_t since, before, until;
        double gone;
        int failed;
        sleep_ms(300);
        since = now_ns();
        kill(s->pid, k == 0 ? SIGUSR1 : SIGUSR2);
        if (k == 1)
            server_upgraded(s, 3);
        gone = wait_gone(&old, since, 3);
        before = load_done(l);
        at_store(&l->nudge, 1u);
        until = now_ns() + 10000000000u;
        while (load_done(l) - before < (uint64_t)opened && now_ns() < until &&
               (int)load_counts(l).open > 0)
            sleep_ms(5);
        failed = opened - (int)(load_done(l) - before);
        if (gone == INFINITY)
            gone = wait_gone(&old, since, 15);
        note(sc, s->kind, names[k][0], failed);
        note(sc, s->kind, names[k][1], opened - (int)load_counts(l).open);
        note(sc, s->kind, names[k][2], gone);
        if (k == 0)
            note(sc, s->kind, "opened", opened);
        progress("%-12s %-10s %s: %d of %d failed, %d closed, old gone after "
                 "%.2f s", w->name, s->name, k == 0 ? "reload" : "upgrade",
                 failed, opened, opened - (int)load_counts(l).open, gone);
        load_stop(l);
        end_of_old(&old);
        tree_of(s->pid, &s->processes);
    }
}

/* Waits until a fresh connection is answered by a process that is none of the
 * old ones; 0: not in time. */
static int new_answers(const server *s, const tree *old, double seconds)
{
    const uint64_t until = now_ns() + (uint64_t)(seconds * 1e9);
    while (now_ns() < until) {
        const char *pid;
        answer a;
        int i;
        if (ask(&s->at, "/block?ms=0", 1000, &a) == 0 && a.status == 200 &&
            (pid = strchr(a.text + a.head, ' ')) != NULL) {
            for (i = 0; i < old->n && old->pid[i] != (pid_t)atol(pid + 1); i++)
                ;
            if (i == old->n)
                return 1;
        }
        sleep_ms(10);
    }
    return 0;
}

static void scene_churn(int sc, server *s)
{
    enum { RELOADS = 20, UPGRADES = 5, READERS_OF_EVENTS = 20 };
    static figures f;
    const scene *w = &scenes[sc];
    load_spec spec = load_defaults(&s->at, w->path, w->connections);
    tree old, all;
    counts c;
    crowd streams;
    load *l;
    int i, k, e, done[2] = { 0, 0 }, failed = 0;
    spec.expect = (int64_t)sizeof HELLO - 1;
    memset(&all, 0, sizeof all);
    crowd_start(&streams, &s->at, STREAMS, READERS_OF_EVENTS, "/events");
    l = load_start(&spec);
    load_wait_open(l, 5);
    at_store(&l->phase, (uint32_t)MEASURING);
    for (i = 0; i < RELOADS + UPGRADES; i++) {
        const int upgrades = i >= RELOADS;
        progress("%-12s %-10s %s %d", w->name, s->name,
                 upgrades ? "upgrade" : "reload",
                 upgrades ? i - RELOADS + 1 : i + 1);
        old = processes_of(s, upgrades);
        for (k = 0; k < old.n && all.n < MAX_TREE; k++)
            all.pid[all.n++] = old.pid[k];
        kill(s->pid, upgrades ? SIGUSR2 : SIGUSR1);
        done[upgrades] += (!upgrades || server_upgraded(s, 5)) &&
                          new_answers(s, &old, 5);
        sleep_ms(100);
    }
    at_store(&l->phase, (uint32_t)MEASURED);
    sleep_ms(50);
    c = load_counts(l);
    for (e = 0; e < ERRORS; e++)
        failed += (int)c.errors[e];
    load_fill(l, &f, &c, &c, 1);
    load_stop(l);
    crowd_stop(&streams);
    note(sc, s->kind, "reloads", done[0]);
    note(sc, s->kind, "upgrades", done[1]);
    note(sc, s->kind, "requests", (double)c.done[0]);
    note(sc, s->kind, "errors", failed);
    note(sc, s->kind, "worst", (double)f.latency[0].max / 1e6);
    note(sc, s->kind, "ended", at_load(&streams.ended));
    note(sc, s->kind, "left", end_of_old(&all));
    progress("%-12s %-10s %d failed, %u streams ended", w->name, s->name,
             failed, at_load(&streams.ended));
    tree_of(s->pid, &s->processes);
}

/* --- kill ----------------------------------------------------------------- */

enum { VICTIMS_CLIENTS = 64 };         /* at most */

typedef struct witness {               /* a client that knows its connection */
    uint64_t since_ns;
    unsigned port;                     /* ours: by it /proc knows the socket */
    int      doomed;                   /* the child to be killed has it */
} witness;

typedef struct witnesses {
    const target *to;
    const char   *path;
    struct pollfd p[VICTIMS_CLIENTS];
    witness       of[VICTIMS_CLIENTS];
    int           n;
    unsigned      replies, own, others, hung;
} witnesses;

static void witness_ask(witnesses *w, int i)
{
    char text[512];
    const int len = snprintf(text, sizeof text,
                             "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", w->path,
                             w->to->host);
    w->of[i].since_ns = now_ns();
    if (send(w->p[i].fd, text, (size_t)len, MSG_NOSIGNAL) < 0)
        w->p[i].revents = POLLHUP;     /* recv() will say the same */
}

static void witness_open(witnesses *w, int i)
{
    struct sockaddr_in in;
    socklen_t len = sizeof in;
    memset(&in, 0, sizeof in);
    w->p[i].fd = connect_to(w->to, 2000);
    w->p[i].events = POLLIN;
    getsockname(w->p[i].fd, (struct sockaddr *)(void *)&in, &len);
    w->of[i].port = ntohs(in.sin_port);
    w->of[i].doomed = 0;
    witness_ask(w, i);
}

/* Each asks again and again. A connection that is lost counts by whether the
 * child that was killed had it. */
static void witness_run(witnesses *w, double ms)
{
    const uint64_t until = now_ns() + (uint64_t)(ms * 1e6);
    while (now_ns() < until) {
        int i;
        sleep_ms(0);                   /* a signal? */
        poll(w->p, (nfds_t)w->n, 5);
        for (i = 0; i < w->n; i++) {
            char in[4096];
            reply_head h;
            ssize_t r = 1;
            const int late = now_ns() - w->of[i].since_ns > 3000000000u;
            if (w->p[i].revents == 0 && !late)
                continue;
            if (w->p[i].revents != 0)
                r = recv(w->p[i].fd, in, sizeof in, 0);
            else
                w->hung++;
            if (w->p[i].revents != 0 && r > 0 &&
                parse_head(in, (size_t)r, &h) == 1 && h.status == 200) {
                w->replies++;          /* it may have come before the kill */
                if (!h.closing) {
                    witness_ask(w, i);
                    continue;
                }
            } else if (w->p[i].revents != 0 && w->of[i].doomed)
                w->own++;
            else if (w->p[i].revents != 0)
                w->others++;
            close(w->p[i].fd);
            witness_open(w, i);
        }
    }
}

/* Marks the connections of which this process, which is stopped, has the
 * descriptor: their inodes by the ports of our ends. */
static void witness_mark(witnesses *w, pid_t pid, int port)
{
    static char text[1 << 20];
    char pattern[64], link[64], name[64], *line;
    glob_t g;
    size_t k;
    int i;
    for (i = 0; i < w->n; i++)
        w->of[i].doomed = 0;
    snprintf(pattern, sizeof pattern, "/proc/%d/fd/*", (int)pid);
    if (slurp("/proc/net/tcp", text, sizeof text) < 0 ||
        glob(pattern, GLOB_NOSORT, NULL, &g) != 0)
        return;
    for (line = strchr(text, '\n'); line != NULL; line = strchr(line + 1,
                                                                '\n')) {
        unsigned from, to;
        unsigned long inode;
        if (sscanf(line, " %*d: %*8s:%4X %*8s:%4X %*s %*s %*s %*s %*s %*s %lu",
                   &from, &to, &inode) != 3 || from != (unsigned)port)
            continue;
        snprintf(name, sizeof name, "socket:[%lu]", inode);
        for (i = 0; i < w->n && w->of[i].port != to; i++)
            ;
        for (k = 0; i < w->n && k < g.gl_pathc; k++) {
            const ssize_t r = readlink(g.gl_pathv[k], link, sizeof link - 1);
            link[r > 0 ? r : 0] = '\0';
            w->of[i].doomed |= strcmp(link, name) == 0;
        }
    }
    globfree(&g);
}

/* Waits until all threads of a process stand still. */
static void stop_process(pid_t pid)
{
    const uint64_t until = now_ns() + 100000000u;
    char path[64], text[1024];
    const char *p;
    kill(pid, SIGSTOP);
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    do
        sleep_ms(1);
    while (slurp(path, text, sizeof text) > 0 &&
           (p = strrchr(text, ')')) != NULL && p[1] != '\0' && p[2] != 'T' &&
           now_ns() < until);
}

static void scene_kills(int sc, server *s)
{
    static witnesses w;
    tree children;
    uint32_t x = 1;
    int i, k;
    memset(&w, 0, sizeof w);
    w.to = &s->at;
    w.path = scenes[sc].path;
    w.n = scenes[sc].connections;
    for (i = 0; i < w.n; i++)
        witness_open(&w, i);
    for (k = 0; k < opt.kills && !is_gone(s->pid); k++) {
        witness_run(&w, 100);
        children = processes_of(s, 0);
        if (children.n == 0)
            continue;
        x = x * 1664525u + 1013904223u;
        i = (int)(x >> 8) % children.n;
        stop_process(children.pid[i]);
        witness_mark(&w, children.pid[i], s->port);
        kill(children.pid[i], SIGKILL);
        if (k % 10 == 0)
            progress("%-12s %-10s kill %d: %u its own, %u others", "kill",
                     s->name, k, w.own, w.others);
    }
    witness_run(&w, 3500);             /* what hangs */
    for (i = 0; i < w.n; i++)
        close(w.p[i].fd);
    note(sc, s->kind, "kills", k);
    note(sc, s->kind, "replies", w.replies);
    note(sc, s->kind, "own", w.own);
    note(sc, s->kind, "others", w.others);
    note(sc, s->kind, "hung", w.hung);
}

/* --- out of the box ------------------------------------------------------- */

/* The same server three times: as it comes, without its limit of requests per
 * connection, and tuned. */
static void scene_tuned(int sc, server *s)
{
    enum { SLICES = 5 };
    static figures f;
    server as[3];
    double us[3][SLICES], rps[3][SLICES], ratio[2][SLICES];
    int i, k;
    if (opt.nset == MAX_SETTINGS)
        die("too many --set");
    as[0] = as[1] = as[2] = *s;
    opt.set[opt.nset++] = "MaxKeepAliveRequests 0";
    server_start(&as[1], 0);
    opt.nset--;
    opt.processes = processors();
    server_start(&as[2], 0);
    opt.processes = 0;
    for (k = 0; k < SLICES && as[1].pid != 0 && as[2].pid != 0; k++) {
        for (i = 0; i < 3; i++) {
            server *one = &as[k % 2 ? 2 - i : i];
            load_spec spec = load_defaults(&one->at, scenes[sc].path,
                                           scenes[sc].connections);
            tree_of(one->pid, &one->processes);
            run_load(&spec, &one->processes, &f);
            us[one - as][k] = f.cpu_us;
            rps[one - as][k] = f.rate;
        }
        for (i = 0; i < 2; i++)
            ratio[i][k] = us[i][k] / us[2][k];
        progress("%-12s %-10s out of the box %.2f us, kept %.2f, tuned %.2f",
                 scenes[sc].name, s->name, us[0][k], us[1][k], us[2][k]);
    }
    server_stop(&as[1]);
    server_stop(&as[2]);
    note(sc, s->kind, "box", median_of(us[0], k));
    note(sc, s->kind, "kept", median_of(us[1], k));
    note(sc, s->kind, "tuned", median_of(us[2], k));
    note(sc, s->kind, "box_ratio", median_of(ratio[0], k));
    note(sc, s->kind, "kept_ratio", median_of(ratio[1], k));
    note(sc, s->kind, "box_rps", median_of(rps[0], k));
    note(sc, s->kind, "tuned_rps", median_of(rps[2], k));
}

static void run_scene(int sc, server *s)
{
    alarm((unsigned)(120 + 18 * opt.seconds + opt.crowd / 500.0 + opt.kills));
    switch (scenes[sc].kind) {
    case LOAD:     scene_load(sc, s);     break;
    case IDLE:     scene_idle(sc, s);     break;
    case HEADS:
    case READERS:
    case BURNING:  scene_beside(sc, s);   break;
    case BLOCKING: scene_blocking(sc, s); break;
    case BURST:    scene_burst(sc, s);    break;
    case BALANCE:  scene_balance(sc, s);  break;
    case CALLS:    scene_calls(sc, s);    break;
    case REST:     scene_rest(sc);        break;
    case SHARING:  scene_sharing(sc, s);  break;
    case GROWN:    scene_grown(sc, s);    break;
    case MOVING:   scene_moving(sc, s);   break;
    case CHURN:    scene_churn(sc, s);    break;
    case KILLS:    scene_kills(sc, s);    break;
    case TUNED:    scene_tuned(sc, s);    break;
    default:                              break;
    }
    alarm(0);
}

/* ---------------------------------------------------------------------------
 * >>report -- tables, JSON, a plot
 * ------------------------------------------------------------------------- */

static char machine[400];

static void describe_machine(void)
{
    static char text[65536];
    struct utsname u;
    struct rlimit limit;
    char *model = NULL, *eol;
    uname(&u);
    getrlimit(RLIMIT_NOFILE, &limit);
    if (slurp("/proc/cpuinfo", text, sizeof text) > 0 &&
        (model = strstr(text, "model name")) != NULL &&
        (model = strchr(model, ':')) != NULL) {
        model += 2;
        if ((eol = strchr(model, '\n')) != NULL)
            *eol = '\0';
    }
    snprintf(machine, sizeof machine,
             "%s x %ld, %s %s, %" PRIu64 " descriptors",
             model != NULL ? model : u.machine, sysconf(_SC_NPROCESSORS_ONLN),
             u.sysname, u.release, (uint64_t)limit.rlim_cur);
}

/* What was measured and how: before the first figure. */
static void print_head(void)
{
    double load_average = 0;
    char date[64], text[64];
    time_t now = time(NULL);
    char children[120] = "eventmpm and apache out of the box";
    int i;
    strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", gmtime(&now));
    if (opt.processes > 0)
        snprintf(children, sizeof children, "%d processes%s, %d worker threads "
                 "each (eventmpm, apache)", opt.processes,
                 servers[H2O].in_use ? " (h2o: one with as many threads)" : "",
                 opt.workers);
    if (slurp("/proc/loadavg", text, sizeof text) > 0)
        load_average = atof(text);
    printf("%s\n%s, %s\n", command_line, machine, date);
    for (i = 0; i < SERVERS; i++)
        if (servers[i].in_use)
            printf("  %-10s %s\n", servers[i].name, servers[i].version);
    printf("%d rounds of %g s, order reversed every second time; medians; "
           "spread is (max-min)/median.\nServers: %s, one shared\nlistening "
           "socket. Client: %d threads, %s loop%s.\n",
           opt.rounds, opt.seconds, children, opt.threads, opt.rate > 0
           ? "open" : "closed",
           opt.pin ? ", on the upper half of the processors,\n"
                     "servers on the lower" : ", on the same processors");
    if (load_average > 0.5)
        printf("NOTE: the load average is %.1f: this machine is not quiet.\n",
               load_average);
    fflush(stdout);
}

/* "12.3", or "-" for what is no number. */
static void cell(char *to, size_t cap, double v, int decimals)
{
    if (isnan(v))
        snprintf(to, cap, "-");
    else if (isinf(v))
        snprintf(to, cap, "never");
    else
        snprintf(to, cap, "%.*f", decimals, v);
}

static void print_scene(int sc)
{
    enum { WIDE = 32 };
    static char grid[SERVERS + 1][WIDE][24];
    const columns *cols = &columns_of[scenes[sc].kind];
    const int refs[2] = { NGINX, FLOOR };
    int rows = 0, wide = 0, i, k, r;
    for (i = -1; i < SERVERS; i++) {
        int at = 0;
        if (i >= 0 && find_series(sc, i, cols->of[0].metric) == NULL)
            continue;
        snprintf(grid[rows][at++], 24, "%s", i < 0 ? "" : servers[i].name);
        for (k = 0; k < cols->n; k++) {
            const column *c = &cols->of[k];
            const series *s = i < 0 ? NULL : find_series(sc, i, c->metric);
            double low = NAN, high = NAN, v = NAN;
            if (s != NULL) {
                range_of(s, &low, &high);
                v = median_of(s->v, s->n);
            }
            if (i < 0)
                snprintf(grid[rows][at++], 24, "%s", c->head);
            else
                cell(grid[rows][at++], 24, v, c->decimals);
            if (c->spread && opt.rounds > 1) {
                if (i < 0)
                    snprintf(grid[rows][at++], 24, "spread");
                else if (s != NULL && s->n > 1 && v > 0)
                    snprintf(grid[rows][at++], 24, "%.0f%%",
                             100 * (high - low) / v);
                else
                    snprintf(grid[rows][at++], 24, "-");
            }
            for (r = 0; r < 2; r++) {
                if (!(c->ratios >> r & 1) ||
                    find_series(sc, refs[r], c->metric) == NULL)
                    continue;
                if (i < 0)
                    snprintf(grid[rows][at++], 24, "/%s",
                             servers[refs[r]].name);
                else
                    cell(grid[rows][at++], 24,
                         ratio_of(sc, i, refs[r], c->metric), 2);
            }
        }
        wide = at;
        rows++;
    }
    progress("%s", "");
    if (rows <= 1)
        return;
    printf("\n%s: %s\n", scenes[sc].name, scenes[sc].title);
    for (r = 0; r < rows; r++) {
        for (k = 0; k < wide; k++) {
            int width = 0;
            for (i = 0; i < rows; i++)
                if ((int)strlen(grid[i][k]) > width)
                    width = (int)strlen(grid[i][k]);
            if (k == 0)
                printf("  %-*s", width, grid[r][k]);
            else
                printf("  %*s", width, grid[r][k]);
        }
        printf("\n");
    }
    if (scenes[sc].kind == CALLS)
        for (i = 0; i < SERVERS; i++)
            if (calls_detail[i][0] != '\0')
                printf("  %s: %s\n", servers[i].name, calls_detail[i]);
    if (cols->note != NULL)
        printf("%s\n", cols->note);
    fflush(stdout);
}

static void print_end(double seconds, double stolen_before)
{
    double worst = 0, stolen;
    int i, k, n = 0, many = 0, told = 0;
    for (i = 0; i < nstore; i++)
        if (strcmp(store[i].metric, "others") == 0)
            for (k = 0; k < store[i].n; k++) {
                n++;
                many += store[i].v[k] > 0.1;
                worst = greater(worst, store[i].v[k]);
            }
    printf("\n");
    for (i = 0; i < SERVERS; i++)
        if (servers[i].in_use && servers[i].reply_bytes > 0)
            printf("%s%s %d", told++ ? ", " : "bytes of a hello reply: ",
                   servers[i].name, servers[i].reply_bytes);
    printf("\n%.0f s in all.", seconds);
    if (n > 0)
        printf(" Other programs used more than a tenth of a processor in %d of "
               "%d measurements (at most %.2f).", many, n, worst);
    cpu_of_machine(&stolen);
    printf(" The hypervisor took %.1f %% of a processor.\n",
           (stolen - stolen_before) / seconds / 1e7);
    if (many * 10 > n)
        printf("NOTE: too much else was running: differences may be noise.\n");
}

static void json_string(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s != '\0'; s++) {
        if (*s == '"' || *s == '\\')
            fputc('\\', f);
        if ((unsigned char)*s >= 32)
            fputc(*s, f);
    }
    fputc('"', f);
}

static void json_number(FILE *f, double v)
{
    if (isnan(v) || isinf(v))
        fputs("null", f);
    else
        fprintf(f, "%.6g", v);
}

static FILE *json_out;                 /* for "-": the tables go to stderr */

static void write_json(const char *path)
{
    FILE *f = strcmp(path, "-") == 0 ? json_out : fopen(path, "w");
    const char *comma = "";
    int i, k;
    if (f == NULL)
        die("%s: %s", path, strerror(errno));
    fputs("{\n  \"command\": ", f);
    json_string(f, command_line);
    fputs(",\n  \"machine\": ", f);
    json_string(f, machine);
    fprintf(f,
            ",\n  \"time\": %ld,\n  \"rounds\": %d,\n  \"seconds\": %g,\n"
            "  \"processes\": %d,\n  \"workers\": %d,\n  \"threads\": %d,\n"
            "  \"rate\": %g,\n  \"pinned\": %s,\n  \"servers\": {",
            (long)time(NULL), opt.rounds, opt.seconds, opt.processes,
            opt.workers, opt.threads, opt.rate, opt.pin ? "true" : "false");
    for (i = 0; i < SERVERS; i++)
        if (servers[i].in_use) {
            fprintf(f, "%s\n    ", comma);
            json_string(f, servers[i].name);
            fputs(": { \"version\": ", f);
            json_string(f, servers[i].version);
            fprintf(f, ", \"reply_bytes\": %d }", servers[i].reply_bytes);
            comma = ",";
        }
    fputs("\n  },\n  \"results\": [", f);
    for (i = 0, comma = ""; i < nstore; i++) {
        const series *s = &store[i];
        double low, high;
        range_of(s, &low, &high);
        fprintf(f, "%s\n    { \"scene\": \"%s\", \"server\": \"%s\", "
                   "\"metric\": \"%s\", \"median\": ", comma,
                scenes[s->scene].name, servers[s->server].name, s->metric);
        json_number(f, median_of(s->v, s->n));
        fputs(", \"min\": ", f);
        json_number(f, low);
        fputs(", \"max\": ", f);
        json_number(f, high);
        fputs(", \"rounds\": [", f);
        for (k = 0; k < s->n; k++) {
            fputs(k > 0 ? ", " : "", f);
            json_number(f, s->v[k]);
        }
        fputs("] }", f);
        comma = ",";
    }
    fputs("\n  ]\n}\n", f);
    if (fclose(f) != 0)
        die("%s: %s", path, strerror(errno));
}

/* A panel of the plot: groups (scenes) of bars (servers), the median as bar and
 * smallest to largest round as a line. */
typedef struct panel {
    const char *title, *metric;
    double      unit;                  /* the metric is divided by this */
    int         decimals;
    const char *scenes[5];
} panel;

static const panel panels[] = {
    { "Server CPU per request, microseconds (user + system): less is better",
      "cpu", 1, 1,
      { "hello-16", "hello-64", "hello-256", "hello-1000", NULL } },
    { "Requests per second, thousands, client beside it: more is better",
      "rps", 1000, 0,
      { "hello-16", "hello-64", "hello-256", "hello-1000", NULL } },
    { "Server CPU per request, microseconds: less is better",
      "cpu", 1, 1, { "pipeline", "close", "file-4k", "file-100k", NULL } },
    { "Process memory per idle keep-alive connection, bytes: less is better",
      "pss", 1, 0, { "idle", NULL, NULL, NULL, NULL } }
};

static int scene_named(const char *name)
{
    int i;
    for (i = 0; i < SCENES; i++)
        if (strcmp(scenes[i].name, name) == 0)
            return i;
    return -1;
}

/* Draws one panel with its top at y; returns its height, 0: nothing to show. */
static int draw_panel(FILE *f, const panel *p, int y)
{
    static const char *const colors[SERVERS] = {
        "#c8401e", "#e39a7c", "#9a9a9a", "#2f7d4f", "#4a6fb3", "#b08a2e",
        "#7a5195"
    };
    const int width = 860, height = 150, left = 10;
    double top = 0, low, high;
    int groups = 0, i, k, at, show[5], bars = 0, wide;
    for (k = 0; p->scenes[k] != NULL; k++) {
        const int sc = scene_named(p->scenes[k]);
        int any = 0;
        for (i = 0; i < SERVERS; i++) {
            const series *s = find_series(sc, i, p->metric);
            if (s == NULL || isnan(median_of(s->v, s->n)))
                continue;
            range_of(s, &low, &high);
            top = greater(top, high);
            any = 1;
            bars++;
        }
        if (any)
            show[groups++] = sc;
    }
    if (groups == 0 || top <= 0)
        return 0;
    fprintf(f, "<text x=\"%d\" y=\"%d\" font-size=\"13\" "
               "font-weight=\"bold\">%s</text>\n", left, y + 14, p->title);
    fprintf(f, "<path d=\"M%d %dH%d\" stroke=\"#444\"/>\n", left,
            y + 40 + height, width - left);
    wide = (width - 2 * left - groups * 24) / (bars > groups * 2 ? bars
                                                                : groups * 2);
    wide = wide > 44 ? 44 : wide;
    for (k = 0, at = left + 12; k < groups; k++) {
        const int began = at;
        for (i = 0; i < SERVERS; i++) {
            const series *s = find_series(show[k], i, p->metric);
            const double v = result(show[k], i, p->metric);
            const double scale = height / top;
            const int base = y + 40 + height;
            char text[24];
            if (s == NULL || isnan(v))
                continue;
            range_of(s, &low, &high);
            cell(text, sizeof text, v / p->unit, p->decimals);
            fprintf(f, "<rect x=\"%d\" y=\"%.1f\" width=\"%d\" height=\"%.1f\" "
                       "fill=\"%s\"/>\n", at, base - greater(v, 0) * scale,
                    wide - 3, greater(v, 0) * scale, colors[i]);
            fprintf(f, "<path d=\"M%.1f %.1fV%.1f\" stroke=\"#000\"/>\n"
                       "<text x=\"%.1f\" y=\"%.1f\" font-size=\"10\" "
                       "text-anchor=\"middle\">%s</text>\n",
                    at + (wide - 3) / 2.0, base - greater(high, 0) * scale,
                    base - greater(low, 0) * scale, at + (wide - 3) / 2.0,
                    base - greater(high, 0) * scale - 4, text);
            at += wide;
        }
        fprintf(f, "<text x=\"%d\" y=\"%d\" font-size=\"11\" "
                   "text-anchor=\"middle\">%s</text>\n", (began + at) / 2,
                y + 56 + height, scenes[show[k]].name);
        at += 24;
    }
    /* the legend, beside the title of this panel only where it is the first */
    if (y < 60)
        for (i = 0, at = left; i < SERVERS; i++)
            if (servers[i].in_use) {
                fprintf(f, "<rect x=\"%d\" y=\"10\" width=\"11\" height=\"11\" "
                           "fill=\"%s\"/><text x=\"%d\" y=\"20\" "
                           "font-size=\"12\">%s</text>\n", at, colors[i],
                        at + 16, servers[i].name);
                at += 36 + 8 * (int)strlen(servers[i].name);
            }
    return height + 80;
}

static void write_plot(const char *path)
{
    char *body = NULL;
    size_t len = 0, i;
    FILE *f = open_memstream(&body, &len);
    int y = 40;
    if (f == NULL)
        die("out of memory");
    for (i = 0; i < COUNT(panels); i++)
        y += draw_panel(f, &panels[i], y);
    fprintf(f, "<text x=\"10\" y=\"%d\" font-size=\"10\" fill=\"#444\">%s; %d "
               "rounds of %g s, interleaved; bars: medians, lines: all rounds; "
               "%d processes each.</text>\n", y + 6, machine, opt.rounds,
            opt.seconds, opt.processes);
    fclose(f);
    f = fopen(path, "w");
    if (f == NULL)
        die("%s: %s", path, strerror(errno));
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"860\" "
               "height=\"%d\" viewBox=\"0 0 860 %d\" "
               "font-family=\"sans-serif\">\n"
               "<rect width=\"860\" height=\"%d\" fill=\"#fff\"/>\n%s</svg>\n",
            y + 20, y + 20, y + 20, body);
    free(body);
    if (fclose(f) != 0)
        die("%s: %s", path, strerror(errno));
    printf("plot: %s\n", path);
}

/* ---------------------------------------------------------------------------
 * >>url -- any server
 * ------------------------------------------------------------------------- */

/* "http://host:port/path" */
static void parse_url(const char *url, target *t, const char **path)
{
    struct addrinfo hints, *list = NULL;
    char host[300];
    const char *h = url, *port = "80";
    size_t n;
    memset(t, 0, sizeof *t);
    memset(&hints, 0, sizeof hints);
    if (strncmp(url, "https://", 8) == 0)
        die("https is not supported");
    if (strncmp(url, "http://", 7) == 0)
        h += 7;
    n = strcspn(h, "/?#");
    *path = h[n] == '/' ? h + n : "/";
    if (n == 0 || n >= sizeof host)
        die("'%s' is no URL", url);
    snprintf(t->host, sizeof t->host, "%.*s", (int)n, h);
    snprintf(host, sizeof host, "%s", t->host);
    h = host;
    if (host[0] == '[' && strchr(host, ']') != NULL) {
        char *end = strchr(host, ']');
        h = host + 1;
        *end = '\0';
        if (end[1] == ':')
            port = end + 2;
    } else if (strchr(host, ':') != NULL) {
        char *colon = strchr(host, ':');
        *colon = '\0';
        port = colon + 1;
    }
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(h, port, &hints, &list) != 0 || list == NULL)
        die("no address for '%s'", t->host);
    memcpy(&t->addr, list->ai_addr, list->ai_addrlen);
    t->len = list->ai_addrlen;
    t->loopback =
        list->ai_family == AF_INET &&
        ((struct sockaddr_in *)(void *)list->ai_addr)->sin_addr.s_addr ==
            htonl(INADDR_LOOPBACK);
    freeaddrinfo(list);
}

static void write_url_json(const char *path, const figures *f)
{
    const struct { const char *name; double v; } numbers[] = {
        { "requests_per_s", f->rate }, { "mb_per_s", f->mb_per_s },
        { "p50_ms", hist_ms(&f->latency[0], 0.5) },
        { "p90_ms", hist_ms(&f->latency[0], 0.9) },
        { "p99_ms", hist_ms(&f->latency[0], 0.99) },
        { "p999_ms", hist_ms(&f->latency[0], 0.999) },
        { "max_ms", (double)f->latency[0].max / 1e6 },
        { "server_cpu_us", opt.pid > 0 ? f->cpu_us : NAN },
        { "client_cpu_us", f->client_us }
    };
    FILE *out = strcmp(path, "-") == 0 ? json_out : fopen(path, "w");
    size_t i;
    if (out == NULL)
        die("%s: %s", path, strerror(errno));
    fputs("{ \"command\": ", out);
    json_string(out, command_line);
    for (i = 0; i < COUNT(numbers); i++) {
        fprintf(out, ",\n  \"%s\": ", numbers[i].name);
        json_number(out, numbers[i].v);
    }
    for (i = 0; i < ERRORS; i++)
        fprintf(out, ",\n  \"errors: %s\": %" PRIu64, error_names[i],
                f->errors[i]);
    fputs(" }\n", out);
    if (fclose(out) != 0)
        die("%s: %s", path, strerror(errno));
}

static int measure_url(void)
{
    static const double parts[] = { 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999 };
    static figures f;
    static char header[4096];
    target t;
    const char *path;
    load_spec spec;
    tree of;
    load *l;
    int i, open, e;
    size_t k;
    parse_url(opt.url, &t, &path);
    spec = load_defaults(&t, path, opt.connections);
    spec.pipeline = opt.pipeline;
    spec.close = opt.close;
    spec.rate = opt.rate;
    if (opt.rate > 0 && (opt.pipeline > 1 || opt.close))
        die("--rate does not go with --pipeline or --close");
    if (opt.header != NULL) {
        snprintf(header, sizeof header, "%s\r\n", opt.header);
        spec.header = header;
    }
    l = load_start(&spec);
    open = load_wait_open(l, 5 + opt.connections / 1000.0);
    if (open < opt.connections)
        printf("only %d of %d connections got a reply within %g s\n", open,
               opt.connections, 5 + opt.connections / 1000.0);
    sleep_ms(300);
    if (opt.pid > 0)
        tree_of(opt.pid, &of);
    load_measure(l, opt.seconds, opt.pid > 0 ? &of : NULL, &f);
    load_stop(l);
    printf("%s  %d threads, %d connections, %.2f s, ", opt.url, spec.threads,
           opt.connections, f.seconds);
    if (opt.rate > 0)
        printf("open loop at %g/s\n", opt.rate);
    else
        printf("closed loop%s%s\n",
               opt.close ? ", a connection per request" : "",
               opt.pipeline > 1 ? ", pipelined" : "");
    printf("  requests/s  %.2f\n  MB/s        %.2f\n", f.rate, f.mb_per_s);
    if (opt.rate > 0)
        printf("  due         %.0f, answered in that time %" PRIu64 "\n",
               opt.rate * opt.seconds, f.requests);
    for (k = 0; k < COUNT(parts) && f.latency[0].count > 0; k++)
        printf("  p%-10g %.3f ms\n", parts[k] * 100,
               hist_ms(&f.latency[0], parts[k]));
    if (f.latency[0].count > 0)
        printf("  max         %.3f ms\n  mean        %.3f ms\n",
               (double)f.latency[0].max / 1e6,
               (double)f.latency[0].sum / 1e6 / (double)f.latency[0].count);
    for (e = i = 0; e < ERRORS; e++)
        if (f.errors[e] > 0) {
            printf("  ERRORS      %" PRIu64 " %s\n", f.errors[e],
                   error_names[e]);
            i++;
        }
    if (i == 0)
        printf("  errors      0\n");
    if (opt.pid > 0 && f.requests > 0)
        printf("  server CPU  %.2f us per request (user %.2f, system %.2f)\n",
               f.cpu_us, f.user_us, f.sys_us);
    if (f.requests > 0)
        printf("  client CPU  %.2f us per request\n", f.client_us);
    printf("  others used %.2f processors%s\n", f.others,
           opt.pid > 0 ? "" : ", the server included");
    if (opt.json != NULL)
        write_url_json(opt.json, &f);
    return f.requests == 0;
}

/* ---------------------------------------------------------------------------
 * >>micro -- the parser, the queue and the wheel alone, on one thread
 *
 * Best of seven runs each: what disturbs can only add. "at random" visits the
 * records in a shuffled order, as clients would; from 100,000 records on (6.4
 * MB) that measures the cache of the machine, "in order" the algorithm.
 * ------------------------------------------------------------------------- */

#define RUNS   7
#define TAKERS 4
#define JOBS   16

static void micro_parser(void)
{
    static const char small[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    static const char browser[] =
        "GET /articles/2024/05/architecture?page=2&sort=date HTTP/1.1\r\n"
        "Host: www.example.com\r\n"
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 "
        "(KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n"
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,"
        "image/avif,image/webp,image/apng,*/*;q=0.8,"
        "application/signed-exchange;v=b3;q=0.7\r\n"
        "Accept-Language: en-US,en;q=0.9,de;q=0.8\r\n"
        "Accept-Encoding: gzip, deflate, br, zstd\r\n"
        "Referer: https://www.example.com/articles/2024/05/\r\n"
        "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; "
        "_ga=GA1.2.1234567890.1716200000\r\n"
        "Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n"
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-User: ?1\r\n"
        "Upgrade-Insecure-Requests: 1\r\nConnection: keep-alive\r\n"
        "Cache-Control: max-age=0\r\n\r\n";
    static char hostile[65536], buf[65536];
    static empm__field fields[256];
    const char *heads[4];
    size_t lens[4], n, i;
    static const char *const names[] = {
        "small", "a browser's", "hostile: 100 fields, 64 KB",
        "hostile: a browser's, byte by byte"
    };
    empm_config cfg = empm_defaults();
    empm__chars chars;
    int k, run;
    empm__chars_init(&chars);
    /* names as long as a known one, values of what a table must look up */
    n = (size_t)snprintf(hostile, sizeof hostile,
                         "GET / HTTP/1.1\r\nHost: a\r\n");
    for (k = 0; k < 99; k++) {
        n += (size_t)snprintf(hostile + n, sizeof hostile - n, "Connectio%c:",
                              'a' + k % 13);
        for (i = 0; i < 640; i++)
            hostile[n++] = "\t \xff;,=\"a"[i * i % 8];
        hostile[n++] = 'x';
        hostile[n++] = '\r';
        hostile[n++] = '\n';
    }
    hostile[n++] = '\r';
    hostile[n++] = '\n';
    heads[0] = small;
    heads[1] = heads[3] = browser;
    heads[2] = hostile;
    lens[0] = sizeof small - 1;
    lens[1] = lens[3] = sizeof browser - 1;
    lens[2] = n;
    printf("\nparser: a head is copied into the buffer and parsed there\n");
    for (k = 0; k < 4; k++) {
        double best = 1e18, copy = 1e18;
        for (run = 0; run < RUNS; run++) {
            const size_t times = 1 + 20000000 / lens[k] / (k == 3 ? 30 : 1);
            uint64_t t = now_ns();
            for (i = 0; i < times; i++) {
                empm__head h;
                size_t end = k == 3 ? 1 : lens[k];
                int r = 0;
                memcpy(buf, heads[k], lens[k]);
                empm__head_init(&h, fields, 256, 0);
                for (; r == 0 && end <= lens[k]; end++)
                    r = empm__head_parse(&h, &cfg, &chars, NULL, buf,
                                         (uint32_t)end);
                if (r != 1)
                    die("the head '%s' was refused with %d", names[k], r);
            }
            best = lesser(best, (double)(now_ns() - t) / (double)times);
            t = now_ns();
            for (i = 0; i < times; i++) {
                memcpy(buf, heads[k], lens[k]);
                __asm__ __volatile__("" : : "r"(buf) : "memory");
            }
            copy = lesser(copy, (double)(now_ns() - t) / (double)times);
        }
        printf("  %-35s %6zu bytes %9.1f ns  %6.3f bytes/ns  (copy %.1f ns)\n",
               names[k], lens[k], best, (double)lens[k] / best, copy);
    }
}

static void micro_slab(empm__slab *sl, uint32_t n, uint32_t **order)
{
    uint32_t i, x = 1;
    if (empm__slab_init(sl, n, 1) != EMPM_OK)
        die("out of memory");
    *order = (uint32_t *)need(n, sizeof **order);
    for (i = 0; i < n; i++) {
        (*order)[i] = empm__slab_borrow(sl);
        empm__slab_conn(sl, (*order)[i])->place = EMPM__NEVER;
    }
    for (i = n; i-- > 1;) {
        const uint32_t k = (x = x * 1664525u + 1013904223u) / 4096 % (i + 1);
        const uint32_t swap = (*order)[i];
        (*order)[i] = (*order)[k];
        (*order)[k] = swap;
    }
}

static void no_gate(void *arg)
{
    (void)arg;
}

typedef struct taker {                 /* a thread that takes jobs */
    empm__queue  *q;
    uint32_t      me;
    uint64_t     *taken;               /* atomic */
    pthread_t     thread;
} taker;

static void *taker_run(void *arg)
{
    taker *t = (taker *)arg;
    while (empm__queue_pop(t->q, t->me, no_gate, no_gate, NULL) != EMPM__NIL)
        __atomic_add_fetch(t->taken, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void micro_queue(void)
{
    static const uint32_t sizes[] = { 1000, 100000, 1000000 };
    static empm__score_child score;
    empm__sleeper sleepers[TAKERS];
    taker takers[TAKERS];
    empm__queue q;
    empm__slab sl;
    uint32_t *order, i;
    uint64_t taken = 0, given = 0, t;
    double best = 1e18;
    size_t k;
    int run, random;
    memset(sleepers, 0, sizeof sleepers);
    memset(takers, 0, sizeof takers);
    printf("\nqueue: one push and one pop, uncontended\n");
    for (k = 0; k < COUNT(sizes); k++) {
        double ns[2] = { 1e18, 1e18 };
        const uint32_t n = sizes[k];
        memset(&sl, 0, sizeof sl);
        micro_slab(&sl, n, &order);
        if (empm__queue_init(&q, &sl, sleepers, TAKERS, 1, &score) != EMPM_OK)
            die("out of memory");
        for (run = 0; run < RUNS * 2; run++) {
            const uint32_t again = 1000000 / n;
            uint32_t a;
            random = run % 2;
            t = now_ns();
            for (a = 0; a < again; a++) {
                for (i = 0; i < n; i++)
                    empm__queue_push(&q, random ? order[i] : i);
                for (i = 0; i < n; i++)
                    empm__queue_pop(&q, 0, no_gate, no_gate, NULL);
            }
            ns[random] = lesser(ns[random],
                              (double)(now_ns() - t) / (double)(n * again));
        }
        printf("  %7u waiting    in order %6.1f ns   at random %6.1f ns\n", n,
               ns[0], ns[1]);
        free(order);
        if (k + 1 < COUNT(sizes))
            empm__slab_free(&sl);
    }
    for (i = 0; i < TAKERS; i++) {
        takers[i].q = &q;
        takers[i].me = i;
        takers[i].taken = &taken;
        if (pthread_create(&takers[i].thread, NULL, taker_run, &takers[i]) != 0)
            die("cannot create a thread");
    }
    for (run = 0; run < RUNS; run++) {
        int round;
        t = now_ns();
        for (round = 0; round < 2000; round++) {
            for (i = 0; i < JOBS; i++)
                empm__queue_push(&q, i);
            given += JOBS;
            while (__atomic_load_n(&taken, __ATOMIC_ACQUIRE) != given)
                sched_yield();
        }
        best = lesser(best, (double)(now_ns() - t) / (2000.0 * JOBS));
    }
    empm__queue_close(&q);
    for (i = 0; i < TAKERS; i++)
        pthread_join(takers[i].thread, NULL);
    empm__slab_free(&sl);
    printf("  16 jobs to 4 waiting threads until all are taken: %.0f ns each\n",
           best);
}

static void micro_wheel(void)
{
    static const uint32_t sizes[] = { 1000, 100000, 1000000 };
    static empm__wheel wh;
    size_t k;
    printf("\nwheel: deadlines 5 to 60 s away; expire: found due, put back\n");
    for (k = 0; k < COUNT(sizes); k++) {
        const uint32_t n = sizes[k];
        double move[2] = { 1e18, 1e18 }, expire = 1e18, wait = 1e18;
        uint32_t *order, i, x = 1, now = 1000000;
        empm__slab sl;
        uint64_t t;
        int run;
        memset(&sl, 0, sizeof sl);
        micro_slab(&sl, n, &order);
        empm__wheel_init(&wh, now);
        for (run = -1; run < RUNS * 2; run++) {    /* the first one fills it */
            const uint32_t again = 1000000 / n;
            uint32_t a;
            const int random = run & 1;
            t = now_ns();
            for (a = 0; a < again; a++)
                for (i = 0; i < n; i++) {
                    const uint32_t spread =
                        random ? (x = x * 1664525u + 1013904223u) >> 8
                               : (uint32_t)(i * 55000.0 / n);
                    empm__wheel_move(&wh, &sl, random ? order[i] : i,
                                     now + 5000 + spread % 55000);
                }
            if (run >= 0)
                move[random] = lesser(move[random], (double)(now_ns() - t) /
                                                      (double)(n * again));
        }
        for (run = 0; run < RUNS; run++) {
            uint32_t found = 0;
            const uint32_t end = now + 60000;
            t = now_ns();
            for (; now < end; now += 16) {
                uint32_t due;
                empm__wheel_advance(&wh, &sl, now);
                while ((due = empm__wheel_due(&wh, &sl)) != EMPM__NIL) {
                    x = x * 1664525u + 1013904223u;
                    empm__wheel_move(&wh, &sl, due,
                                     now + 5000 + (x >> 8) % 55000);
                    found++;
                }
            }
            expire = lesser(expire, (double)(now_ns() - t) / (double)found);
            t = now_ns();
            for (i = 0; i < 100000; i++) {
                const int ms = empm__wheel_wait(&wh, now);
                __asm__ __volatile__("" : : "r"(ms) : "memory");
            }
            wait = lesser(wait, (double)(now_ns() - t) / 100000);
        }
        printf("  %7u records   re-arm in order %6.1f ns, at random %6.1f ns   "
               "expire %6.1f ns   how long to sleep %5.1f ns\n", n, move[0],
               move[1], expire, wait);
        free(order);
        empm__slab_free(&sl);
    }
}

static void micro(void)
{
    printf("\nMicro-benchmarks: one process, best of %d runs.\n", RUNS);
    micro_parser();
    micro_queue();
    micro_wheel();
    fflush(stdout);
}

/* ---------------------------------------------------------------------------
 * >>check -- does the generator tell the truth? --check
 *
 * Against servers whose behaviour is known: replies of all forms in odd pieces;
 * a handler that takes 20 ms; a server that is stopped for 400 ms; and against
 * wrk, where it is installed.
 * ------------------------------------------------------------------------- */

static int check_failed;

static void check(const char *what, double got, double want, double tolerance)
{
    const int ok = fabs(got - want) <= tolerance;
    check_failed += !ok;
    printf("  %-56s %10.3f, expected %.3f +- %.3f  %s\n", what, got, want,
           tolerance, ok ? "ok" : "FAILED");
    fflush(stdout);
}

static void check_histogram(void)
{
    static double v[200001];
    const size_t N = COUNT(v);
    static hist h;
    static const double parts[] = { 0.01, 0.5, 0.9, 0.99, 0.9999 };
    uint32_t x = 7;
    double worst = 0;
    size_t i;
    memset(&h, 0, sizeof h);
    for (i = 0; i < N; i++) {
        x = x * 1664525u + 1013904223u;
        v[i] = (double)((x >> 8) >> x % 24);       /* 0 to 1.6e7 ns */
        hist_add(&h, (uint64_t)v[i]);
    }
    qsort(v, N, sizeof *v, compare_doubles);
    for (i = 0; i < COUNT(parts); i++) {
        const double exact = v[(size_t)(parts[i] * (double)N + 0.999999) - 1];
        worst = greater(worst, fabs(hist_ms(&h, parts[i]) * 1e6 - exact) /
                                   greater(exact, 1));
    }
    check("percentiles against a sorted list: worst error, %", 100 * worst, 0,
          0.8);
}

/* Serves one connection after the other with replies of all forms, cut into
 * pieces; every 7th is an error, and some end the connection. */
static void odd_server(int listener)
{
    static const char chunked[] =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5;e=1a\r\nhello\r\nA\r\n0123456789\r\n0;e=1\r\nX: y\r\n\r\n";
    static const char interim[] =
        "HTTP/1.1 100 Continue\r\n\r\n"
        "HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n";
    static const char *const replies[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", chunked, interim,
        "HTTP/1.1 204 No Content\r\nX-Y: z\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        "HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nno\n"
    };
    uint32_t x = 99, n = 0;
    for (;;) {
        const int fd = accept(listener, NULL, NULL);
        const int on = 1;
        char in[4096];
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        while (recv(fd, in, sizeof in, 0) > 0) {
            const char *r = replies[n % COUNT(replies)];
            const size_t len = strlen(r);
            size_t at = 0;
            while (at < len) {
                size_t k;
                x = x * 1664525u + 1013904223u;
                k = 1 + (x >> 16) % (n % 2 ? len : 8);
                k = k < len - at ? k : len - at;
                if (send(fd, r + at, k, MSG_NOSIGNAL) < 0)
                    break;
                at += k;
                if (x >> 31)
                    sched_yield();
            }
            n++;
            if (n % COUNT(replies) == 5 || n % COUNT(replies) == 6)
                break;
        }
        close(fd);
    }
}

static void check_replies(void)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int port = free_port();
    static figures f;
    load_spec spec;
    target t;
    pid_t pid;
    uint64_t sum;
    target_local(&t, port);
    if (bind(fd, (const struct sockaddr *)&t.addr, t.len) < 0 ||
        listen(fd, 16) < 0)
        die("port %d: %s", port, strerror(errno));
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        odd_server(fd);
    }
    kids[MAX_KIDS - 1] = pid;
    close(fd);
    spec = load_defaults(&t, "/", 1);
    run_load(&spec, NULL, &f);
    end_process(pid, SIGKILL);
    sum = f.requests + f.errors[E_STATUS];
    check("replies of all forms in odd pieces: errors other than 503",
          (double)(f.errors[E_CLOSED] + f.errors[E_CONNECT] +
                   f.errors[E_TIMEOUT] + f.errors[E_MALFORMED]), 0, 0);
    check("... part of 503, %",
          100.0 * (double)f.errors[E_STATUS] / (double)sum, 100.0 / 7, 0.5);
}

static void check_little(server *s)
{
    static figures f;
    load_spec spec = load_defaults(&s->at, "/block?ms=20", 16);
    run_load(&spec, &s->processes, &f);
    check("a handler of 20 ms: p50 ms", hist_ms(&f.latency[0], 0.5), 20.2, 0.4);
    check("... 16 connections: rate x mean latency",
          f.rate * (double)f.latency[0].sum / 1e9 / (double)f.latency[0].count,
          16, 0.5);
}

static double stalled_ms;

/* Stops a server for some 400 of 2000 ms, S. What is due then, a fifth of all,
 * waits S to 0 ms; so a tenth of all waits longer than S - 200, a hundredth
 * longer than S - 20. A closed loop sees one slow request per connection. */
static void *stall(void *arg)
{
    const server *s = (const server *)arg;
    const struct timespec before = { 1, 0 }, during = { 0, 400000000 };
    uint64_t began;
    int i;
    nanosleep(&before, NULL);
    began = now_ns();
    for (i = 0; i < s->processes.n; i++)
        kill(s->processes.pid[i], SIGSTOP);
    nanosleep(&during, NULL);
    for (i = 0; i < s->processes.n; i++)
        kill(s->processes.pid[i], SIGCONT);
    stalled_ms = (double)(now_ns() - began) / 1e6;
    return NULL;
}

static void check_stall(server *s)
{
    static figures f;
    int open;
    for (open = 0; open < 2; open++) {
        load_spec spec = load_defaults(&s->at, "/hello", 16);
        pthread_t thread;
        load *l;
        spec.rate = open ? 2000 : 0;
        l = load_start(&spec);
        load_wait_open(l, 5);
        if (pthread_create(&thread, NULL, stall, s) != 0)
            die("cannot create a thread");
        load_measure(l, 2, &s->processes, &f);
        pthread_join(thread, NULL);
        load_stop(l);
        if (open) {
            check("a server stopped for 0.4 of 2 s, open loop: requests/s",
                  f.rate, 2000, 20);
            check("... p90 ms", hist_ms(&f.latency[0], 0.9),
                  stalled_ms - 200, 20);
            check("... p99 ms", hist_ms(&f.latency[0], 0.99),
                  stalled_ms - 20, 20);
        } else
            printf("  (in a closed loop: p90 %.3f ms, p99 %.3f ms)\n",
                   hist_ms(&f.latency[0], 0.9), hist_ms(&f.latency[0], 0.99));
    }
}

/* The same load from wrk: requests/s and CPU per request, of wrk and of the
 * server. 0: there is no wrk. */
static double wrk_rate(const server *s, const char *path, int connections,
                       double *client_us, double *server_us)
{
    char command[600], line[400];
    const cpu before = cpu_of(&s->processes);
    struct rusage a, b;
    double rate = 0, requests = 0;
    FILE *p;
    getrusage(RUSAGE_CHILDREN, &a);
    snprintf(command, sizeof command, "wrk -t%d -c%d -d%ds 'http://%s%s' 2>&1",
             opt.threads, connections, (int)(opt.seconds + 0.999), s->at.host,
             path);
    p = popen(command, "r");
    while (p != NULL && fgets(line, sizeof line, p) != NULL) {
        sscanf(line, "Requests/sec: %lf", &rate);
        sscanf(line, " %lf requests in", &requests);
    }
    if (p != NULL)
        pclose(p);
    getrusage(RUSAGE_CHILDREN, &b);
    *client_us = ((double)(b.ru_utime.tv_sec + b.ru_stime.tv_sec -
                           a.ru_utime.tv_sec - a.ru_stime.tv_sec) * 1e6 +
                  (double)(b.ru_utime.tv_usec + b.ru_stime.tv_usec -
                           a.ru_utime.tv_usec - a.ru_stime.tv_usec)) / requests;
    *server_us = (cpu_of(&s->processes).ns - before.ns) / 1e3 / requests;
    return rate;
}

/* Two medians cannot be compared more finely than wrk's own runs repeat; 5 % at
 * best. The spread is divided by the root of N; libm is not worth a flag. */
static double resolvable(const double *v, int n)
{
    double low = v[0], high = v[0], root = n;
    int i;
    for (i = 0; i < 20; i++)
        root = (root + n / root) / 2;
    for (i = 1; i < n; i++) {
        low = lesser(low, v[i]);
        high = greater(high, v[i]);
    }
    return greater(0.05, (high - low) / median_of(v, n) / root);
}

/* Rounds of three, in turns: wrk, this in wrk's manner, this as it is. wrk has
 * two epoll_ctl() calls more per request and parses every head; where the
 * processors are the limit, that is a difference in requests/s, and no error of
 * either. The CPU per request says how large it is without noise. */
static void check_wrk(const server *s, const char *path, int connections)
{
    static const char *const who[] = { "wrk", "in its manner", "plain" };
    static figures f;
    double rate[3][MAX_ROUNDS], client[3][MAX_ROUNDS], its[3][MAX_ROUNDS];
    double ratio[MAX_ROUNDS];
    char what[100];
    int i, k;
    for (i = 0; i < opt.rounds; i++) {
        for (k = 0; k < 3; k++) {
            const int turn = i % 2 ? 2 - k : k;
            load_spec spec = load_defaults(&s->at, path, connections);
            spec.like_wrk = turn == 1;
            if (turn == 0)
                rate[0][i] = wrk_rate(s, path, connections, &client[0][i],
                                      &its[0][i]);
            else {
                run_load(&spec, &s->processes, &f);
                rate[turn][i] = f.rate;
                client[turn][i] = f.client_us;
                its[turn][i] = f.cpu_us;
            }
        }
        progress("%s %s c=%d: wrk %.0f, in its manner %.0f, plain %.0f",
                 s->name, path, connections, rate[0][i], rate[1][i],
                 rate[2][i]);
        if (rate[0][i] <= 0)
            return;
        ratio[i] = rate[1][i] / rate[0][i];
    }
    progress("%s", "");
    snprintf(what, sizeof what, "%s %s c=%d: requests/s over wrk's", s->name,
             path, connections);
    check(what, median_of(ratio, opt.rounds), 1,
          resolvable(rate[0], opt.rounds));
    for (k = 0; k < 3; k++)
        printf("    %-14s %9.0f requests/s; CPU per request: client %6.2f us, "
               "server %6.2f\n", who[k], median_of(rate[k], opt.rounds),
               median_of(client[k], opt.rounds), median_of(its[k], opt.rounds));
}

static int run_checks(void)
{
    static const int sizes[] = { 16, 64, 256 };
    size_t k;
    int i;
    printf("Is what the generator says true?\n");
    check_histogram();
    check_replies();
    for (i = THIS; i < SERVERS; i++) {
        server *s = &servers[i];
        if (!s->in_use || !server_start(s, 0))
            continue;
        if (i == THIS) {
            check_little(s);
            check_wrk(s, "/block?ms=5", 32);
        }
        if (i == FLOOR)
            check_stall(s);
        for (k = 0; k < COUNT(sizes); k++)
            check_wrk(s, "/hello", sizes[k]);
        server_stop(s);
    }
    printf("%d failed\n", check_failed);
    return check_failed != 0;
}

/* ---------------------------------------------------------------------------
 * >>main -- options, rounds
 * ------------------------------------------------------------------------- */

static const char usage[] =
    "bench [options]     this server and the floor: the short set and --micro\n"
    "bench --compare     nginx, Apache, lighttpd and h2o as well, all scenes "
    "but\n                    those that --list says are only by name\n"
    "bench --url URL     any server: http://host[:port]/path\n"
    "bench --micro       the parser, the queue and the wheel alone\n"
    "bench --check       does the generator tell the truth? --servers, too\n"
    "bench --list        the scenes\n"
    "\n"
    "  --rounds N        3; with --compare: 5\n"
    "  --seconds S       per measurement: 1; with --compare: 2, with --url: 5\n"
    "  --scenes A,B      beginnings of names: hello,file-4k\n"
    "  --servers A,B     eventmpm, floor, nginx, apache, lighttpd, h2o\n"
    "  --against NAME=FILE  another build of bench, or a script that takes\n"
    "                    the same --serve options, as one more server\n"
    "  --set 'Name V'    a directive of eventmpm.h, spelt as Apache does\n"
    "  --processes N     2; 0: eventmpm and Apache out of the box\n"
    "  --workers N       threads per process of eventmpm and Apache: 32\n"
    "  --threads N       of the client: 2 (1 with --pin on two processors)\n"
    "  --pin             servers on the lower half of the processors, client\n"
    "                    on the upper\n"
    "  --like-wrk        ask epoll before each request, as wrk does\n"
    "  --rate N          open loop: N requests per second, due at fixed times\n"
    "  --timeout MS      a reply that takes longer is an error: 5000\n"
    "  --crowd N         idle connections: 15000, fewer if descriptors lack\n"
    "  --kills N         children killed in children-kill: 30\n"
    "  --json FILE       all rounds of everything (-: standard output; the "
    "tables\n                    then go to standard error)\n"
    "  --plot FILE.svg   the comparison, drawn\n"
    "\n"
    "with --url:\n"
    "  --connections N (64)   --pipeline N   --close   --header 'Name: value'\n"
    "  --pid PID         the server's first process: CPU of its tree\n"
    "\n"
    "bench --serve PORT --dir DIR, bench --serve-floor PORT: what it measures\n"
    "by itself, to be looked at by other means.\n";

/* Raises the limit of descriptors as far as it goes; fits the crowd to it. */
static void raise_limits(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < (rlim_t)opt.crowd + 1000 && geteuid() == 0) {
        struct rlimit more = limit;
        more.rlim_max = (rlim_t)opt.crowd + 1000;
        more.rlim_cur = more.rlim_max;
        setrlimit(RLIMIT_NOFILE, &more);
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < (rlim_t)opt.crowd + 500) {
        const int was = opt.crowd;
        opt.crowd = limit.rlim_cur > 800 ? (int)limit.rlim_cur - 500 : 300;
        printf("NOTE: ulimit -n is %d: the crowd is %d instead of %d.\n",
               (int)limit.rlim_cur, opt.crowd, was);
    }
}

static int is_wanted(int sc)
{
    if (opt.scenes != NULL)
        return picked(opt.scenes, scenes[sc].name);
    return scenes[sc].in_short > 0 || (opt.compare && !scenes[sc].in_short);
}

/* How many rounds; with `steps` how many measurements that makes. */
static int rounds_of(int sc, int *count)
{
    const scene *w = &scenes[sc];
    const int most = opt.compare ? w->most_rounds : w->most_rounds > 0;
    const int rounds = most > 0 && most < opt.rounds ? most : opt.rounds;
    int i;
    for (i = 0, *count = 0; i < SERVERS; i++)
        *count += servers[i].in_use && (w->who >> i & 1) ? rounds : 0;
    if (w->kind == REST)
        *count = rounds;
    return rounds;
}

/* All rounds of one scene: everybody is started, measured in turns, stopped. */
static void play(int sc)
{
    const scene *w = &scenes[sc];
    int i, r, n = 0, who[SERVERS], count;
    const int rounds = rounds_of(sc, &count), first = steps_done;
    const int processes = opt.processes, workers = opt.workers;
    for (i = 0; i < (int)COUNT(shapes); i++)
        if (strcmp(shapes[i].scene, w->name) == 0) {
            own_shape = 1;
            opt.processes = shapes[i].processes;
            if (shapes[i].workers > 0)
                opt.workers = shapes[i].workers;
        }
    for (i = 0; i < SERVERS; i++)
        if (servers[i].in_use && (w->who >> i & 1) &&
            server_start(&servers[i], w->close))
            who[n++] = i;
    for (r = 0; n > 0 && r < rounds; r++)
        for (i = 0; i < n; i++) {
            server *s = &servers[who[r % 2 ? n - 1 - i : i]];
            steps_done++;
            if (is_gone(s->pid)) {
                printf("%s has died and is started again.\n", s->name);
                server_stop(s);
            } else if (w->kind == IDLE && r > 0)
                server_stop(s);       /* the last crowd's memory is still his */
            if (is_gone(s->pid) && !server_start(s, w->close))
                continue;
            run_scene(sc, s);
            if (w->kind == REST)
                break;
        }
    steps_done = first + count;
    for (i = 0; i < n; i++)
        server_stop(&servers[who[i]]);
    own_shape = 0;
    opt.processes = processes;
    opt.workers = workers;
    print_scene(sc);
}

/* The options, by what they take: 'f' nothing, 'i' an int, 'd' a double, 's'
 * text, '+' text, again and again. */
static int         serve_port = -1, floor_port = -1, floor_close_port = -1;
static int         only_micro, only_checks, only_list, only_help;
static const char *serve_dir = ".", *against;

static const struct { const char *name; char takes; void *to; } options[] = {
    { "--compare", 'f', &opt.compare },      { "--micro", 'f', &only_micro },
    { "--check", 'f', &only_checks },        { "--list", 'f', &only_list },
    { "--help", 'f', &only_help },           { "--url", 's', &opt.url },
    { "--rounds", 'i', &opt.rounds },        { "--seconds", 'd', &opt.seconds },
    { "--scenes", 's', &opt.scenes },        { "--servers", 's', &opt.servers },
    { "--against", 's', &against },          { "--set", '+', opt.set },
    { "--processes", 'i', &opt.processes },  { "--workers", 'i', &opt.workers },
    { "--threads", 'i', &opt.threads },      { "--pin", 'f', &opt.pin },
    { "--rate", 'd', &opt.rate },            { "--crowd", 'i', &opt.crowd },
    { "--timeout", 'i', &opt.timeout_ms },   { "--kills", 'i', &opt.kills },
    { "--like-wrk", 'f', &opt.like_wrk },
    { "--json", 's', &opt.json },            { "--plot", 's', &opt.plot },
    { "--connections", 'i', &opt.connections },
    { "--pipeline", 'i', &opt.pipeline },    { "--close", 'f', &opt.close },
    { "--header", 's', &opt.header },        { "--pid", 'i', &opt.pid },
    { "--serve", 'i', &serve_port },         { "--dir", 's', &serve_dir },
    { "--serve-floor", 'i', &floor_port },
    { "--serve-floor-close", 'i', &floor_close_port }
};

static void parse_options(int argc, char **argv)
{
    size_t k, n = 0;
    int i;
    for (i = 0; i < argc && n < sizeof command_line - 3; i++)
        n += (size_t)snprintf(command_line + n, sizeof command_line - n,
                              strchr(argv[i], ' ') ? "%s'%s'" : "%s%s",
                              i > 0 ? " " : "", argv[i]);
    for (i = 1; i < argc; i++) {
        char *end = argv[i];
        for (k = 0; k < COUNT(options); k++)
            if (strcmp(options[k].name, argv[i]) == 0)
                break;
        if (k == COUNT(options))
            die("%s: no such option, see --help", argv[i]);
        if (options[k].takes == 'f') {
            *(int *)options[k].to = 1;
            continue;
        }
        if (++i == argc)
            die("%s needs a value", argv[i - 1]);
        if (options[k].takes == 'i')
        {
            const long v = strtol(argv[i], &end, 10);
            if (v < 0 || v > 100000000)
                die("%s %s: makes no sense", argv[i - 1], argv[i]);
            *(int *)options[k].to = (int)v;
        } else if (options[k].takes == 'd')
            *(double *)options[k].to = strtod(argv[i], &end);
        else if (options[k].takes == 's')
            *(const char **)options[k].to = argv[i];
        else if (opt.nset == MAX_SETTINGS)
            die("too many --set");
        else
            opt.set[opt.nset++] = argv[i];
        if (options[k].takes == 'd' && !(*(double *)options[k].to >= 0 &&
                                         *(double *)options[k].to <= 1e7))
            die("%s %s: makes no sense", argv[i - 1], argv[i]);
        if (strchr("id", options[k].takes) != NULL &&
            (*end != '\0' || end == argv[i]))
            die("%s wants a number, not '%s'", argv[i - 1], argv[i]);
    }
    if (against != NULL) {
        const char *is = strchr(against, '=');
        if (is == NULL || (size_t)(is - against) >= sizeof opt.against_name)
            die("--against NAME=FILE");
        if (strspn(against,
                   "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                            "0123456789._-") != (size_t)(is - against))
            die("--against NAME=FILE: letters, digits, . _ - only");
        memcpy(opt.against_name, against, (size_t)(is - against));
        opt.against_binary = is + 1;
    }
}

int main(int argc, char **argv)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGQUIT, SIGHUP,
                                   SIGALRM };
    const uint64_t began = now_ns();
    struct sigaction sa;
    const char *word;
    double stolen;
    size_t n;
    int i, count;
    cpu_of_machine(&stolen);
    opt.processes = 2;
    opt.workers = 32;
    opt.timeout_ms = 5000;
    opt.crowd = 15000;
    opt.kills = 30;
    opt.connections = 64;
    opt.pipeline = 1;
    parse_options(argc, argv);
    tree_of(getpid(), &inherited);
    if (opt.json != NULL && strcmp(opt.json, "-") == 0 &&
        ((i = dup(1)) < 0 || dup2(2, 1) < 0 ||
         (json_out = fdopen(i, "w")) == NULL))
        die("--json -: %s", strerror(errno));
    for (word = opt.scenes; word != NULL && *word != '\0';
         word += strcspn(word, ","), word += *word == ',') {
        for (i = 0; i < SCENES; i++)
            if (strncmp(word, scenes[i].name, strcspn(word, ",")) == 0)
                break;
        if (i == SCENES)
            die("--scenes %s: no such scene, see --list", word);
    }
    if (opt.threads <= 0)
        opt.threads = opt.pin && sysconf(_SC_NPROCESSORS_ONLN) <= 3 ? 1 : 2;
    if (opt.rounds <= 0)
        opt.rounds = opt.compare ? 5 : 3;
    if (opt.rounds > MAX_ROUNDS)
        opt.rounds = MAX_ROUNDS;
    if (opt.seconds <= 0)
        opt.seconds = opt.url != NULL ? 5 : opt.compare ? 2 : 1;
    if (opt.workers < 1 || opt.connections < 1 ||
        opt.pipeline < 1 || opt.pipeline > 1000 || opt.crowd < 300 ||
        opt.timeout_ms < 1)
        die("a number makes no sense");
    if (only_help) {
        fputs(usage, stdout);
        return 0;
    }
    for (i = 0; only_list && i < SCENES; i++)
        printf("%-14s %c %s\n", scenes[i].name,
               scenes[i].in_short > 0 ? '*' : scenes[i].in_short < 0 ? '-'
                                                                     : ' ',
               scenes[i].title);
    if (only_list) {
        printf("* in the short set, - only by name\n");
        return 0;
    }
    signal(SIGPIPE, SIG_IGN);
    raise_limits();
    if (serve_port >= 0)
        return serve_this(serve_port, serve_dir, argc, argv);
    if (floor_port >= 0 || floor_close_port >= 0)
        return serve_floor(floor_port >= 0 ? floor_port : floor_close_port,
                           floor_port < 0);
    if (only_micro) {
        micro();
        return 0;
    }

    n = (size_t)readlink("/proc/self/exe", self, sizeof self - 1);
    self[n < sizeof self ? n : 0] = '\0';
    memset(&sa, 0, sizeof sa);
    sigemptyset(&sa.sa_mask);
    sa.sa_handler = on_signal;
    for (n = 0; n < COUNT(signals); n++)
        sigaction(signals[n], &sa, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pin_to_half(1);                    /* our threads and wrk inherit it */
    atexit(clean_up);
    describe_machine();
    if (opt.url != NULL)
        return measure_url();
    make_folder();
    find_servers();
    print_head();
    if (only_checks)
        return run_checks();
    for (i = 0; i < SCENES; i++)
        if (is_wanted(i)) {
            rounds_of(i, &count);
            steps += count;
        }
    for (i = 0; i < SCENES; i++)
        if (is_wanted(i))
            play(i);
    if (opt.scenes == NULL)
        micro();
    print_end((double)(now_ns() - began) / 1e9, stolen);
    if (opt.json != NULL)
        write_json(opt.json);
    if (opt.plot != NULL)
        write_plot(opt.plot);
    return 0;
}
