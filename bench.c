/* bench.c - the cost of eventmpm.h, alone and beside others, on your machine
 *
 *     cc -O2 -pthread bench.c -o bench   (HTTPS: -DEVENTMPM_TLS_BEARSSL, and
 *                                      -lbearssl at the end)
 *     ./bench                          this server and the floor, the short set
 *     ./bench --compare                and nginx, Apache, lighttpd, h2o, in all
 *                                      scenes: half an hour
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
 *               reply: the cost of the kernel alone.
 *   the same    for all: 13 bytes of text/plain (the bytes of a reply with
 *               its head are printed), the number of processes, one listening
 *               socket that they share, no access log, no limit of requests
 *               per connection. The number of worker threads is printed.
 *   CPU         of the whole process tree, by the kernel's nanosecond clocks of
 *               its processes; user and system as /proc/PID/stat divides them.
 *               Work that the kernel does for loopback inside a system call of
 *               the server counts as the server's, for all alike.
 *   closed loop Each connection sends its next request when the last reply is
 *               complete. The usual figure, but a server that stalls is asked
 *               less meanwhile: its percentiles look better than a user's.
 *   percentiles from a histogram with 0.8 % wide steps, all threads together.
 *   errors      No connection; closed before the reply; status not 2xx or 3xx;
 *               no reply in time (--timeout; it enters the percentiles with its
 *               age); reply malformed or of the wrong length. None of these is
 *               a request in requests/s.
 *   others      The CPU that neither the server nor this program used: where it
 *               is not small, the figures are noise. The last lines tell, and
 *               the CPU that a hypervisor took.
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
#include <glob.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
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
    const char *json, *plot, *scenes, *servers;
    const char *set[MAX_SETTINGS];
    int         nset, rounds, processes, workers, threads;
    int         timeout_ms, crowd, compare;
    int         close;                 /* of --serve-floor */
    double      seconds;
} opt;

static char  tmp_dir[64];              /* "" until it exists */
static char  self[4096];               /* our own binary */
static char  command_line[1024];
static volatile sig_atomic_t interrupted;   /* the signal, 0: none */

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    if (clock_gettime(id, &t) < 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

__attribute__((format(printf, 1, 2), noreturn))
static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("\nbench: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);                           /* clean_up() ends the servers */
}

/* Memory that is zero, or the end. */
static void *need(size_t count, size_t size)
{
    void *p = calloc(count != 0 ? count : 1, size);
    if (p == NULL)
        die("out of memory");
    return p;
}

/* Text that lives until the program ends. */
__attribute__((format(printf, 1, 2)))
static const char *string(const char *fmt, ...)
{
    va_list ap;
    char *to;
    va_start(ap, fmt);
    if (vasprintf(&to, fmt, ap) < 0)
        die("out of memory");
    va_end(ap);
    return to;
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
static int failures;                   /* of servers: the exit status */

/* Progress, on stderr: one line that is written over, or plain lines. */
__attribute__((format(printf, 1, 2)))
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

/* The median of those that are numbers; NAN: none is. */
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
    uint64_t count, max;
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

/* Nanoseconds in the middle of a bucket. */
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
    if (ns > h->max)
        h->max = ns;
}

static void hist_merge(hist *to, const hist *h)
{
    unsigned i;
    for (i = 0; i < HIST_BUCKETS; i++)
        to->in[i] += h->in[i];
    to->count += h->count;
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
 * The first signal makes the main thread leave at its next sleep, the second
 * one at once. The kernel helps: orphans of our servers become our children
 * (child subreaper), and a server gets TERM should this process vanish.
 * ------------------------------------------------------------------------- */

#define MAX_TREE 128

typedef struct tree {                 /* a process and all that descend of it */
    pid_t pid[MAX_TREE];
    int   n;
} tree;

/* The process and all that descend of it, now. */
static void tree_of(pid_t root, tree *t)
{
    int i;
    t->n = 0;
    t->pid[t->n++] = root;
    for (i = 0; i < t->n; i++) {
        char path[64], text[4096], *p = text, *end;
        glob_t g;
        size_t k;
        snprintf(path, sizeof path, "/proc/%d/task/*/children",
                 (int)t->pid[i]);
        if (glob(path, GLOB_NOSORT, NULL, &g) != 0)
            continue;
        for (k = 0; k < g.gl_pathc; k++)
            if (slurp(g.gl_pathv[k], p = text, sizeof text) > 0)
                for (; t->n < MAX_TREE; p = end) {
                    const pid_t pid = (pid_t)strtol(p, &end, 10);
                    if (end == p || pid == 0)
                        break;
                    t->pid[t->n++] = pid;
                }
        globfree(&g);
    }
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

/* Memory of the tree in bytes: proportional (pss), and not shared (uss). */
static void memory_of(const tree *t, double *pss, double *uss)
{
    *pss = 1024 * tree_sum(t, "smaps_rollup", "Pss:");
    *uss = 1024 * (tree_sum(t, "smaps_rollup", "Private_Clean:") +
                   tree_sum(t, "smaps_rollup", "Private_Dirty:"));
}

typedef struct cpu {
    double ns, user, sys;              /* in all; and how /proc divides it */
} cpu;

/* CPU time that the processes of a tree have used, and their dead children. */
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

/* Nanoseconds that all processors of the machine have worked so far; and that
 * they stood still because a hypervisor had others to run. */
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

/* Starts a program (argv ends with NULL) with its output in a file. */
static pid_t spawn(const char *const *argv, const char *log)
{
    char *args[32 + 2 * MAX_SETTINGS];
    pid_t pid;
    int n = 0, fd;
    while (argv[n] != NULL && n < (int)COUNT(args) - 1)
        n++;
    memcpy(args, argv, (size_t)n * sizeof *args);
    args[n] = NULL;
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
        execvp(args[0], args);
        _exit(127);
    }
    return pid;
}

/* Has it ended? Our own child is reaped. */
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
    const uint64_t until = now_ns() + 3000000000u;
    tree t;
    int i, left;
    tree_of(pid, &t);
    kill(pid, sig);
    do {
        struct timespec nap = { 0, 5000000 };
        for (i = left = 0; i < t.n; i++)
            if (is_gone(t.pid[i]))
                t.pid[i] = 0;
            else if (++left > 0 && now_ns() > until)
                kill(t.pid[i], SIGKILL);
        if (left > 0)
            nanosleep(&nap, NULL);
    } while (left > 0 && now_ns() < until + 2000000000u);
}

static tree inherited;                 /* children that were there before us */

/* At exit: ends what is still there, and removes the folder. */
static void clean_up(void)
{
    tree t;
    int i, k;
    tree_of(getpid(), &t);
    for (i = 1; i < t.n; i++) {
        for (k = 0; k < inherited.n && inherited.pid[k] != t.pid[i]; k++)
            ;
        if (k < inherited.n)
            continue;
        kill(t.pid[i], SIGKILL);
        waitpid(t.pid[i], NULL, 0);
    }
    if (tmp_dir[0] != '\0')
        i = system(string("rm -rf '%s'", tmp_dir));
    tmp_dir[0] = '\0';
}

static void on_signal(int sig)
{
    if (interrupted && sig != SIGALRM)
        _exit(128 + sig);
    interrupted = sig;
}

/* ---------------------------------------------------------------------------
 * >>reply -- the reader of replies, and a client that waits for one
 *
 * All clients here read with reply_take(). It takes the bytes that it
 * understands, and wants the others again with more behind them: a head and a
 * line of the chunk grammar are taken whole or not at all.
 *
 *   IN_HEAD --> IN_BODY ----------------------------> COMPLETE
 *      |                                                 ^
 *      +------> IN_SIZE ------------> IN_TRAILER --------+
 *      |         ^   \                                    chunked
 *      |         |    +-> IN_CHUNK -> IN_CHUNK_END -+
 *      |         +----------------------------------+
 * ------------------------------------------------------------------------- */

enum { IN_HEAD, IN_BODY, IN_SIZE, IN_CHUNK, IN_CHUNK_END, IN_TRAILER,
       COMPLETE };

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

/* A server says the same again and again: the last head, and its meaning. */
typedef struct known_head {
    char       text[1024];
    reply_head is;                     /* len is 0: none is known */
} known_head;

typedef struct reply {                 /* all zero: nothing has come yet */
    int     state, status, closing;
    size_t  head;                      /* bytes */
    int64_t left, body;                /* bytes to come; bytes of the body */
} reply;

/* Is this line the field `name`? Then *value is where its value begins. */
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
            h->closing |= strncasecmp(v, "close", 5) == 0;
            kept |= strncasecmp(v, "keep-alive", 10) == 0;
        }
        line = eol + 2;
    }
    if (kept)
        h->closing = 0;
    if (h->status == 204 || h->status == 304 || h->status < 200)
        h->length = h->chunked = 0;
    return h->status >= 100 && h->status < 600 &&
                   (h->length >= 0 || h->chunked) ? 1 : -1;
}

/* Takes a head. 1: done; 0 and -1 as reply_take(). */
static int reply_take_head(reply *r, known_head *known, const char **p,
                           const char *end)
{
    const size_t n = (size_t)(end - *p);
    reply_head h = known->is;
    if (h.len == 0 || n < h.len || memcmp(*p, known->text, h.len) != 0) {
        const int got = parse_head(*p, n, &h);
        if (got <= 0)
            return got;
        known->is = h;
        if (h.len <= sizeof known->text)
            memcpy(known->text, *p, h.len);
        else
            known->is.len = 0;         /* too long to be remembered */
    }
    *p += h.len;
    if (h.status < 200)
        return 1;                      /* the true one is still to come */
    r->status = h.status;
    r->closing = h.closing;
    r->head = h.len;
    r->left = h.length;
    r->body = 0;
    r->state = h.chunked ? IN_SIZE : IN_BODY;
    return 1;
}

/* Takes a line of the chunk grammar. 1: done; 0 and -1 as reply_take(). */
static int reply_take_line(reply *r, const char **p, const char *end)
{
    const char *line = *p;
    const char *eol = (const char *)memchr(line, '\n', (size_t)(end - line));
    const int empty = eol == line || (eol == line + 1 && *line == '\r');
    if (eol == NULL)
        return 0;
    *p = eol + 1;
    if (r->state == IN_TRAILER) {
        r->state = empty ? COMPLETE : IN_TRAILER;
    } else if (r->state == IN_CHUNK_END) {
        r->state = IN_SIZE;
        return empty ? 1 : -1;
    } else {
        if (!isxdigit((unsigned char)*line))
            return -1;
        r->left = strtoll(line, NULL, 16);
        if (r->left >> 52 != 0)
            return -1;
        r->body += r->left;
        r->state = r->left > 0 ? IN_CHUNK : IN_TRAILER;
    }
    return 1;
}

/* Takes bytes of a reply from *p on, and moves *p behind them.
 *
 *   returns   1: it is complete; 0: more is needed; -1: this is no HTTP
 */
static int reply_take(reply *r, known_head *known, const char **p,
                      const char *end)
{
    while (r->state != COMPLETE) {
        int got = 1;
        if (r->state == IN_HEAD)
            got = reply_take_head(r, known, p, end);
        else if (r->state == IN_BODY || r->state == IN_CHUNK) {
            const int64_t n = end - *p < r->left ? end - *p : r->left;
            *p += n;
            r->left -= n;
            if (r->state == IN_BODY)
                r->body += n;
            if (r->left > 0)
                return 0;
            r->state = r->state == IN_BODY ? COMPLETE : IN_CHUNK_END;
        } else
            got = reply_take_line(r, p, end);
        if (got <= 0)
            return got;
    }
    return 1;
}

typedef struct answer {
    reply  is;
    double ms;                         /* from before connect() or send() */
    char   text[8192];                 /* all of it, with a NUL */
} answer;

/* Connects, and waits for nothing on that socket longer than `ms`; `room`: a
 * receive buffer so small, or 0. */
static int connect_to(const target *t, int ms, int room)
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
    if (room > 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (connect(fd, (const struct sockaddr *)&t->addr, t->len) == 0)
        return fd;
    close(fd);
    return -1;
}

/* 0: the whole request is sent. */
static ssize_t send_get(int fd, const target *t, const char *path)
{
    char request[512];
    const int n = snprintf(request, sizeof request,
                           "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path,
                           t->host);
    return send(fd, request, (size_t)n, MSG_NOSIGNAL) == n ? 0 : -1;
}

/* Waits on a blocking socket for a whole reply, which is short. */
static int wait_reply(int fd, answer *a)
{
    size_t have = 0;
    a->text[0] = '\0';
    while (have < sizeof a->text - 1) {
        const ssize_t r = recv(fd, a->text + have, sizeof a->text - 1 - have,
                               0);
        const char *p = a->text;
        known_head none;
        int got;
        if (r <= 0)
            return -1;
        have += (size_t)r;
        a->text[have] = '\0';
        none.is.len = 0;
        memset(&a->is, 0, sizeof a->is);
        got = reply_take(&a->is, &none, &p, a->text + have);
        if (got != 0)
            return got > 0 ? 0 : -1;
    }
    return -1;
}

/* Asks on a connection of its own. 0: there is an answer. */
static int ask(const target *t, const char *path, int ms, answer *a)
{
    const uint64_t start = now_ns();
    const int fd = connect_to(t, ms, 0);
    int r;
    memset(a, 0, sizeof *a);
    if (fd < 0)
        return -1;
    r = send_get(fd, t, path) == 0 ? wait_reply(fd, a) : -1;
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
 * >>load -- the generator, and its connections
 *
 * Each thread has its own epoll, connections, counters and histograms. It reads
 * whatever a batch of events brings and then sends the next requests of all of
 * them. Level-triggered, EPOLLIN for life, EPOLLOUT only while a request could
 * not be sent whole.
 *
 *   CLOSED -> OPENING -> SENDING -> WAITING -> (reply) -> SENDING ...
 *      ^                               |
 *      +----- closed, error, late -----+
 *
 * Connections are opened a few at a time, so that no backlog overflows; until
 * all have had a first reply nothing is measured.
 * ------------------------------------------------------------------------- */

enum { WARMING, MEASURING, MEASURED, ENDING };
enum { CLOSED, OPENING, SENDING, WAITING };

#define PART_MAX  16384u               /* a reply's head at most */
#define READ_MAX  131072u
#define BATCH     512
#define UNANSWERED_MAX 128             /* connections being opened, in all */

typedef struct load_spec {
    const target *to;
    const char   *path[2];
    double        share;               /* of requests that go to path[1] */
    int           connections, threads, pipeline, timeout_ms;
    int           close;               /* a connection per request */
    int64_t       expect;              /* bytes of every body, -1: any */
} load_spec;

typedef struct conn {
    int      fd, state;
    int      kind;                     /* which path is being asked */
    int      born;                     /* has had a reply, ever */
    int      sent_any, out_armed, registered;
    int      pending;                  /* replies to come */
    unsigned part_len;
    char    *part;                     /* a head that has not come whole */
    size_t   unsent;                   /* of the request text */
    reply    in;                       /* the reply that is being read */
    uint64_t start_ns;                 /* latency counts from here */
    uint64_t since_ns;                 /* the time-out counts from here */
} conn;

typedef struct counts {                /* atomic; one writer */
    uint64_t done[2], bytes, errors;
    uint32_t open;                     /* have had a reply */
} counts;

typedef struct load load;

typedef struct generator {
    load     *l;
    pthread_t thread;
    int       number, epoll, n, next_new, opening;
    int       nlater, nretry;
    conn     *conns, **later, **retry;
    char     *buf;                     /* PART_MAX + READ_MAX */
    uint64_t  now, scanned_ns, measuring_ns, random;
    uint32_t  phase;
    known_head known;
    hist      latency[2];
    uint32_t  seen;                    /* atomic */
    counts    count;
} generator;

struct load {
    load_spec  spec;
    char      *text[2];
    size_t     text_len[2];
    generator *gens;
    int        sources;                /* of addresses to connect from */
    /* atomic, set by the main thread */
    uint32_t   phase;
};

#define bump(p, n)                                                          \
    __atomic_store_n((p), __atomic_load_n((p), __ATOMIC_RELAXED) + (n),     \
                     __ATOMIC_RELAXED)

static void conn_open(generator *g, conn *c);

/* EPOLLIN for life, EPOLLOUT on demand. */
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

static void conn_shut(conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->state = CLOSED;
    c->part_len = 0;
    c->pending = 0;
}

/* A latency, if its request ends in the window. */
static void record(generator *g, const conn *c, uint64_t ns)
{
    if (g->phase == MEASURING)
        hist_add(&g->latency[c->kind], ns);
}

/* The connection is of no more use; its requests have failed. One that could
 * not be opened waits for the next tick. */
static void conn_fail(generator *g, conn *c)
{
    const int refused = !c->sent_any;
    bump(&g->count.errors, (uint64_t)(c->pending > 0 ? c->pending : 1));
    conn_shut(c);
    if (refused || (!c->born && !g->l->spec.close))
        g->retry[g->nretry++] = c;
    else
        conn_open(g, c);
}

/* Sends the rest of the request. */
static void conn_push(generator *g, conn *c)
{
    const load *l = g->l;
    const size_t len = l->text_len[c->kind];
    const ssize_t r = send(c->fd, l->text[c->kind] + (len - c->unsent),
                           c->unsent, MSG_NOSIGNAL);
    if (r < 0 && errno != EAGAIN) {
        conn_fail(g, c);
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

/* Sends the next request, or batch. */
static void conn_ask(generator *g, conn *c)
{
    const load_spec *s = &g->l->spec;
    c->kind = 0;
    if (s->share > 0) {
        g->random ^= g->random << 13;
        g->random ^= g->random >> 7;
        g->random ^= g->random << 17;
        c->kind = (double)(g->random >> 11) < s->share * 9007199254740992.0;
    }
    c->pending = s->pipeline;
    c->unsent = g->l->text_len[c->kind];
    c->state = c->state == OPENING ? OPENING : SENDING;
    c->start_ns = c->since_ns = now_ns();
    conn_push(g, c);
}

/* Connects; the first request follows at once. */
static void conn_open(generator *g, conn *c)
{
    const load *l = g->l;
    const target *t = l->spec.to;
    const int on = 1;
    uint64_t began;
    c->fd = socket(t->addr.ss_family,
                   SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    c->registered = c->out_armed = c->sent_any = 0;
    memset(&c->in, 0, sizeof c->in);
    c->state = OPENING;
    if (c->fd < 0) {
        conn_fail(g, c);
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
        conn_fail(g, c);
        return;
    }
    began = c->since_ns;
    conn_ask(g, c);
    if (l->spec.close && c->state != CLOSED)
        c->start_ns = began;           /* connecting is part of it */
}

/* Opens the connections of the beginning, a few at a time. */
static void open_more(generator *g)
{
    const load_spec *s = &g->l->spec;
    while (g->next_new < g->n && g->opening <= UNANSWERED_MAX / s->threads) {
        g->opening++;
        conn_open(g, &g->conns[g->next_new++]);
    }
}

/* One reply is complete. Returns 0 if the connection is not to be read on. */
static int reply_done(generator *g, conn *c)
{
    const load_spec *s = &g->l->spec;
    const reply r = c->in;
    memset(&c->in, 0, sizeof c->in);
    if (!c->born) {
        c->born = 1;
        g->opening--;
        bump(&g->count.open, 1u);
    }
    if (r.status < 200 || r.status >= 400)
        bump(&g->count.errors, 1u);
    else if (s->expect >= 0 && r.body != s->expect)
        bump(&g->count.errors, 1u);
    else {
        bump(&g->count.done[c->kind], 1u);
        record(g, c, g->now - c->start_ns);
    }
    c->pending--;
    if (c->pending > 0) {
        if (r.closing)
            conn_fail(g, c);
        return !r.closing;
    }
    if (r.closing || s->close) {
        conn_shut(c);
        conn_open(g, c);
        return 0;
    }
    g->later[g->nlater++] = c;
    return 1;
}

/* Keeps the beginning of a head until more of it comes. 0: it is too long. */
static int conn_keep(conn *c, const char *p, size_t n)
{
    if (n >= PART_MAX)
        return 0;
    if (c->part == NULL)
        c->part = (char *)need(1, PART_MAX);
    memcpy(c->part, p, n);
    c->part_len = (unsigned)n;
    return 1;
}

/* Takes the bytes of replies. */
static void conn_take(generator *g, conn *c, const char *p, const char *end)
{
    while (p < end && c->pending > 0) {
        const int r = reply_take(&c->in, &g->known, &p, end);
        if (r == 0 && (p == end || conn_keep(c, p, (size_t)(end - p))))
            return;
        if (r <= 0)
            break;
        if (!reply_done(g, c))
            return;
    }
    if (p < end) {                     /* no HTTP, or more than was asked for */
        c->pending += c->pending == 0;
        conn_fail(g, c);
    }
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
    } else
        conn_fail(g, c);
}

/* ---------------------------------------------------------------------------
 * >>threads -- the threads of the generator: when they ask and when they count
 *
 * The main thread sets `phase`, a thread shows in `seen` that it has noticed.
 * What ends in the phase MEASURING counts.
 * ------------------------------------------------------------------------- */

/* The main thread wants another phase. A request that hangs all the time would
 * never be seen; so it counts, with its age, at the end of the window. */
static void generator_enter(generator *g, uint32_t phase)
{
    const load_spec *s = &g->l->spec;
    const uint64_t patience = (uint64_t)s->timeout_ms * 1000000u;
    int i;
    if (phase == MEASURING) {
        g->measuring_ns = g->now;
        memset(g->latency, 0, sizeof g->latency);
    }
    for (i = 0; phase == MEASURED && i < g->n; i++) {
        const conn *c = &g->conns[i];
        const int late = g->now - c->since_ns >= patience;
        if (c->pending > 0 && (late || c->since_ns <= g->measuring_ns)) {
            record(g, c, g->now - c->start_ns);
            bump(&g->count.errors, (uint32_t)late);
        }
    }
    g->phase = phase;
    at_store(&g->seen, phase);
}

/* Every 20 ms at least: late replies, failed connections, another phase. */
static void generator_tick(generator *g)
{
    load *l = g->l;
    const uint64_t patience = (uint64_t)l->spec.timeout_ms * 1000000u;
    const uint32_t phase = at_load(&l->phase);
    int i, n = g->nretry;
    g->now = now_ns();
    if (phase != g->phase)
        generator_enter(g, phase);
    if (phase >= MEASURED)
        return;
    g->nretry = 0;
    for (i = 0; i < n; i++)            /* a new failure is put before i */
        conn_open(g, g->retry[i]);
    open_more(g);
    if (g->now - g->scanned_ns > 100000000u) {
        g->scanned_ns = g->now;
        for (i = 0; i < g->n; i++) {
            conn *c = &g->conns[i];
            if (c->pending > 0 && c->since_ns + patience < g->scanned_ns) {
                record(g, c, g->scanned_ns - c->start_ns);
                conn_fail(g, c);
            }
        }
    }
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
        n = epoll_wait(g->epoll, ev, BATCH, 20);
        for (i = 0; i < n; i++) {
            conn *c = (conn *)ev[i].data.ptr;
            if (ev[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
                conn_read(g, c);
            else if (c->unsent > 0 && c->state != CLOSED)
                conn_push(g, c);
        }
        for (i = 0; i < g->nlater; i++)
            if (g->later[i]->pending == 0 && g->later[i]->state == WAITING)
                conn_ask(g, g->later[i]);
        g->nlater = 0;
        if (g->opening > 0 || g->next_new < g->n)
            open_more(g);
    }
    while (g->n-- > 0) {
        conn_shut(&g->conns[g->n]);
        free(g->conns[g->n].part);
    }
    return NULL;
}

/* The request, as often as it is pipelined. */
static char *request_text(const load_spec *s, const char *path, size_t *len)
{
    const size_t cap = strlen(path) + strlen(s->to->host) + 100;
    char *text = (char *)need(cap, (size_t)s->pipeline), *at = text;
    int i;
    for (i = 0; i < s->pipeline; i++)
        at += snprintf(at, cap, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path,
                       s->to->host, s->close ? "Connection: close\r\n" : "");
    *len = (size_t)(at - text);
    return text;
}

static void generator_init(generator *g, load *l, int number)
{
    const load_spec *s = &l->spec;
    int k;
    g->l = l;
    g->number = number;
    g->n = s->connections / s->threads +
           (number < s->connections % s->threads);
    g->conns = (conn *)need((size_t)g->n, sizeof *g->conns);
    g->later = (conn **)need((size_t)g->n, sizeof *g->later);
    g->retry = (conn **)need((size_t)g->n, sizeof *g->retry);
    g->buf = (char *)need(1, PART_MAX + READ_MAX);
    g->random = 88172645463325252u + (uint64_t)number * 7919u;
    for (k = 0; k < g->n; k++)
        g->conns[k].fd = -1;
    g->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (g->epoll < 0)
        die("epoll: %s", strerror(errno));
}

static load *load_start(const load_spec *spec)
{
    load *l = (load *)need(1, sizeof *l);
    const load_spec *s = &l->spec;
    int i;
    l->spec = *spec;
    if (l->spec.threads > s->connections)
        l->spec.threads = s->connections;
    l->sources = 1;
    if (s->to->loopback && s->close)
        l->sources = 4;
    for (i = 0; i < 2; i++)
        l->text[i] = request_text(s, s->path[s->path[i] != NULL ? i : 0],
                                  &l->text_len[i]);
    l->gens = (generator *)need((size_t)s->threads, sizeof *l->gens);
    for (i = 0; i < s->threads; i++)
        generator_init(&l->gens[i], l, i);
    for (i = 0; i < s->threads; i++)
        if (pthread_create(&l->gens[i].thread, NULL, generator_run,
                           &l->gens[i]) != 0)
            die("cannot create a thread");
    return l;
}

static void load_stop(load *l)
{
    int i;
    at_store(&l->phase, (uint32_t)ENDING);
    for (i = 0; i < l->spec.threads; i++) {
        generator *g = &l->gens[i];
        pthread_join(g->thread, NULL);
        close(g->epoll);
        free(g->conns);
        free(g->later);
        free(g->retry);
        free(g->buf);
    }
    free(l->gens);
    free(l->text[0]);
    free(l->text[1]);
    free(l);
}

/* ---------------------------------------------------------------------------
 * >>measure -- a window of time, and its figures
 * ------------------------------------------------------------------------- */

static counts load_counts(const load *l)
{
    counts sum;
    int i;
    memset(&sum, 0, sizeof sum);
    for (i = 0; i < l->spec.threads; i++) {
        const counts *c = &l->gens[i].count;
        sum.done[0] += at_load(&c->done[0]);
        sum.done[1] += at_load(&c->done[1]);
        sum.bytes += at_load(&c->bytes);
        sum.errors += at_load(&c->errors);
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

/* How many windows there were; in how many others than the server and this
 * program used more than a tenth of a processor, and how much at most. */
static int    windows, disturbed;
static double most_disturbed;

typedef struct figures {
    double   seconds, rate, light_rate, mb_per_s;
    double   cpu_us, user_us, sys_us, client_us;   /* for each request */
    double   errors;
    uint64_t requests;
    hist     latency[2];
} figures;

/* Replies so far. */
static uint64_t load_done(const load *l)
{
    const counts c = load_counts(l);
    return c.done[0] + c.done[1];
}

/* All that has been done until a moment: replies, and the time that the server,
 * this program and the machine have worked. */
typedef struct moment {
    uint64_t at;
    counts   load;
    cpu      server;
    double   own, machine;
} moment;

static void moment_take(moment *m, const load *l, const tree *of)
{
    double stolen;
    m->at = now_ns();
    m->load = load_counts(l);
    m->server = cpu_of(of);
    m->own = (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    m->machine = cpu_of_machine(&stolen);
}

/* The figures of the time from a to b. */
static void load_fill(const load *l, figures *f, const moment *a,
                      const moment *b)
{
    const double ns = (double)(b->at - a->at);
    const double server = b->server.ns - a->server.ns;
    const double user = b->server.user - a->server.user;
    const double sys = b->server.sys - a->server.sys;
    const uint64_t light = b->load.done[0] - a->load.done[0];
    double others;
    int i, k;
    memset(f, 0, sizeof *f);
    f->seconds = ns / 1e9;
    f->requests = light + b->load.done[1] - a->load.done[1];
    f->rate = (double)f->requests / f->seconds;
    f->light_rate = (double)light / f->seconds;
    f->mb_per_s = (double)(b->load.bytes - a->load.bytes) / f->seconds / 1e6;
    f->cpu_us = server > 0 ? server / 1e3 / (double)f->requests : NAN;
    f->user_us = f->cpu_us * user / (user + sys);
    f->sys_us = f->cpu_us - f->user_us;
    f->client_us = (b->own - a->own) / 1e3 / (double)f->requests;
    others = (b->machine - a->machine - server - (b->own - a->own)) / ns;
    windows++;
    disturbed += others > 0.1;
    most_disturbed = greater(most_disturbed, others);
    f->errors = (double)(b->load.errors - a->load.errors);
    for (i = 0; i < l->spec.threads; i++)
        for (k = 0; k < 2; k++)
            hist_merge(&f->latency[k], &l->gens[i].latency[k]);
}

/* Ends the window: all threads know it. */
static void load_measured(load *l)
{
    int i;
    at_store(&l->phase, (uint32_t)MEASURED);
    for (i = 0; i < l->spec.threads; i++)
        while (at_load(&l->gens[i].seen) != MEASURED)
            sleep_ms(1);
}

/* Measures for so long; `of` is the server's processes. */
static void load_measure(load *l, double seconds, const tree *of, figures *f)
{
    moment a, b;
    at_store(&l->phase, (uint32_t)MEASURING);
    moment_take(&a, l, of);
    sleep_until(a.at + (uint64_t)(seconds * 1e9));
    moment_take(&b, l, of);
    load_measured(l);
    b.load.errors = load_counts(l).errors;
    load_fill(l, f, &a, &b);
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
    s.expect = -1;
    return s;
}

/* ---------------------------------------------------------------------------
 * >>crowd -- clients with little to do, in a thread of their own
 *
 *   slow heads    a request without end: one more header line every 5 seconds
 *   slow readers  ask for 10 MB, with a small receive buffer, and take 1 KB of
 *                 it every second
 * ------------------------------------------------------------------------- */

enum { SLOW_HEADS, SLOW_READERS };

typedef struct crowd {
    const target *to;
    const char   *path;
    pthread_t     thread;
    int           kind, n;
    int          *fds;
    uint32_t      ready, stop, open;           /* atomic */
} crowd;

/* Connects and asks; -1: no. */
static int crowd_enter(const crowd *w)
{
    const int fd = connect_to(w->to, 1000, w->kind == SLOW_READERS ? 4096 : 0);
    char text[512];
    const int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: %s\r\n"
                           "%s", w->path, w->to->host,
                           w->kind == SLOW_HEADS ? "" : "\r\n");
    if (fd >= 0 && send(fd, text, (size_t)n, MSG_NOSIGNAL) == n &&
        fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Connection i has its turn; 0: it has ended. */
static int crowd_act(const crowd *w, int i, uint32_t turn)
{
    char buf[1024];
    ssize_t r;
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
    const uint64_t period = w->kind == SLOW_HEADS ? 5000000000u : 1000000000u;
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
            w->fds[i] = -1;
            at_store(&w->open, (uint32_t)--alive);
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
 * >>floor -- the cost of the kernel alone: --serve-floor PORT [--close]
 *
 * Parses nothing: counts blank lines and sends as many canned replies, in one
 * write for one read. One socket for all processes, EPOLLEXCLUSIVE, which wakes
 * the last one that waited; so each goes to the end of that line after every 16
 * connections, as nginx does.
 * ------------------------------------------------------------------------- */

#define FLOOR_EVENTS 512

/* Counts the heads that end in what is read, and answers as many. */
static void floor_answer(int fd, unsigned char *seen, int closing)
{
    static const char canned[] = "HTTP/1.1 200 OK\r\n"
                                "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                                "Server: floor\r\nContent-Type: text/plain\r\n"
                                "Content-Length: 13\r\n\r\n" HELLO;
    static char in[65536], out[(sizeof in / 4 + 1) * (sizeof canned - 1)];
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
            memcpy(out + len, canned, sizeof canned - 1);
            len += sizeof canned - 1;
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

/* One process of the floor, for ever. */
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

static int serve_floor(int port)
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
            floor_run(fd, opt.close);
        }
    for (;;)
        pause();
}

/* ---------------------------------------------------------------------------
 * >>this -- eventmpm.h as it is measured: --serve PORT DIR
 * ------------------------------------------------------------------------- */

static int on_hello(empm_request *req, void *user)
{
    (void)user;
    return empm_write(req, HELLO, sizeof HELLO - 1);
}

/* Blocks, as a handler does that asks a database. */
static int on_block(empm_request *req, void *user)
{
    const char *v = empm_query(req, "ms");
    const long ms = v != NULL ? strtol(v, NULL, 10) : 10;
    struct timespec t;
    (void)user;
    t.tv_sec = ms / 1000;
    t.tv_nsec = ms % 1000 * 1000000;
    nanosleep(&t, NULL);
    return empm_write(req, HELLO, sizeof HELLO - 1);
}

static int on_socket(empm_request *req, empm_ws *ws, void *user)
{
    (void)req, (void)user;
    empm_ws_send(empm_ws_server(ws), empm_ws_ticket(ws), 1, HELLO, 13);
    return empm_ws_join(ws, "all");
}

/* A short message goes back, a long one to all. */
static void on_message(empm_ws *ws, int type, const char *data, size_t n,
                       void *user)
{
    empm_server *s = empm_ws_server(ws);
    (void)user;
    if (n < 100)
        empm_ws_send(s, empm_ws_ticket(ws), type, data, n);
    else
        empm_ws_publish(s, "all", type, data, n, EMPM_WS_CLOSE);
}

/* Starts and stops are no news beside a table. */
static void only_trouble(enum empm_log_level level, const char *line,
                         void *user)
{
    (void)user;
    if (level <= EMPM_LOG_WARN)
        fprintf(stderr, "%s\n", line);
}

/* With --processes 0 as it comes out of the box. */
static int serve_this(int port, const char *dir)
{
    static const empm_websocket sockets = { on_socket, on_message, NULL, NULL,
                                            NULL, 0 };
    static const empm_route routes[] = {
        EMPM_WEBSOCKET("GET /ws", &sockets, NULL),
        EMPM_ROUTE("GET /hello", on_hello, NULL),
        EMPM_ROUTE("GET /block", on_block, NULL),
        EMPM_FILES("GET /", NULL),
        EMPM_ROUTES_END
    };
    empm_config cfg = empm_defaults();
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
    r = empm_run(&cfg);
    empm_config_free(&cfg);
    return r == EMPM_OK ? 0 : 1;
}

/* ---------------------------------------------------------------------------
 * >>servers -- those that can be started, and their configurations
 *
 * Each is Debian's package as its manual would set it up for this work: no
 * access log, sendfile, keep-alive without limit of requests and for 60 s, one
 * listening socket. Apache answers hello from mod_rewrite and ErrorDocument,
 * which is faster than a file; nginx with `return`; lighttpd and h2o from a
 * file, which both keep in their caches. h2o has threads instead of processes.
 * (It stays root if we are: a change of user would make it survive our sudden
 * end, see >>proc.)
 * ------------------------------------------------------------------------- */

enum { THIS, FLOOR, NGINX, APACHE, LIGHTTPD, H2O, SERVERS };

typedef struct server {
    int         kind, in_use;
    const char *name;
    char        path[256], version[120];
    int         port, reply_bytes;
    pid_t       pid;                   /* 0: not running */
    target      at, secure;            /* http, and https in scenes of it, */
    int         secure_port;
    tree        processes;
} server;

static server servers[SERVERS];

__attribute__((format(printf, 2, 3)))
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
    static char noise[10485760];
    uint32_t x = 1;
    size_t i;
    const char *base = getenv("TMPDIR");
    umask(022);
    snprintf(tmp_dir, sizeof tmp_dir, "%s/bench-XXXXXX",
             base != NULL && strlen(base) < 40 ? base : "/tmp");
    if (mkdtemp(tmp_dir) == NULL) {
        tmp_dir[0] = '\0';
        die("cannot make a temporary folder: %s", strerror(errno));
    }
    chmod(tmp_dir, 0755);              /* servers run as nobody */
    mkdir(string("%s/docs", tmp_dir), 0755);
    write_file(string("%s/docs/hello", tmp_dir), "%s", HELLO);
    write_file(string("%s/docs/hello.php", tmp_dir), "<?php echo '%s';", HELLO);
    for (i = 0; i < sizeof noise; i++)
        noise[i] = (char)((x = x * 1664525u + 1013904223u) >> 24);
    for (i = 0; i < COUNT(files); i++) {
        const char *path = string("%s/docs/%s", tmp_dir, files[i].name);
        FILE *f = fopen(path, "w");
        if (f == NULL || fwrite(noise, 1, files[i].bytes, f) < files[i].bytes ||
            fclose(f) != 0)
            die("%s: %s", path, strerror(errno));
    }
}

static int with_tls, with_h2;          /* the scene is of https, of HTTP/2 */

/* The port of https, the certificate and its key, where the scene wants them.
 * TLS 1.2, one suite, one group, sessions in shared memory: as ours. */
static const char *tls_lines(const server *s, const char *fmt)
{
    return with_tls ? string(fmt, s->secure_port, tmp_dir, tmp_dir) : "";
}

static pid_t php;                      /* PHP-FPM, in scenes of it; or 0 */

/* The lines for its socket, where the scene wants them. */
static const char *php_lines(const char *fmt)
{
    return php != 0 ? string(fmt, tmp_dir) : "";
}

/* Starts PHP-FPM with 8 processes; all servers of a scene ask the same one. 0:
 * it is not installed, or does not start. */
static int php_start(void)
{
    const char *argv[5] = { NULL, "-F", "-y", NULL, NULL };
    const char *conf = string("%s/fpm.conf", tmp_dir);
    const char *at = string("%s/fpm.sock", tmp_dir);
    glob_t g;
    int i;
    if (glob("/usr/sbin/php-fpm*", 0, NULL, &g) != 0)
        return 0;
    argv[0] = string("%s", g.gl_pathv[0]);
    argv[3] = conf;
    globfree(&g);
    write_file(conf, "[global]\ndaemonize = no\nerror_log = %s/fpm.log\n"
               "[www]\nlisten = %s\nlisten.mode = 0666\npm = static\n"
               "pm.max_children = 8\n%s", tmp_dir, at,
               geteuid() == 0 ? "user = nobody\ngroup = nogroup\n" : "");
    php = spawn(argv, string("%s/fpm.out", tmp_dir));
    for (i = 0; i < 500 && access(at, W_OK) != 0 && !is_gone(php); i++)
        sleep_ms(10);
    sleep_ms(100);
    return !is_gone(php);
}

static void php_stop(void)
{
    if (php != 0)
        end_process(php, SIGTERM);
    php = 0;
}

/* How many descriptors a server may use, without those for other things. */
static long descriptors(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur > 1000000 ? 1000000 : (long)limit.rlim_cur - 100;
}

static void configure_nginx(const server *s, const char *conf, int n)
{
    const char *d = tmp_dir;
    write_file(conf,
        "%sdaemon off; worker_processes %d; pid %s/nginx.pid;\n"
        "error_log %s/nginx.log; events { worker_connections %ld; }\n"
        "http {\n"
        "    access_log off; sendfile on; tcp_nopush on;\n"
        "    open_file_cache max=64 inactive=60s;\n"     /* as all others */
        "    default_type text/plain;\n"
        "    keepalive_requests 1000000000; keepalive_timeout 60;\n"
        "    client_body_temp_path %s/n1; proxy_temp_path %s/n2;\n"
        "    fastcgi_temp_path %s/n3; uwsgi_temp_path %s/n4;\n"
        "    scgi_temp_path %s/n5;\n"
        "    server {\n"
        "        listen 127.0.0.1:%d; root %s/docs;\n%s%s%s"
        "        location = /hello { return 200 \"" HELLO "\"; }\n"
        "    }\n"
        "}\n", geteuid() == 0 ? "user nobody nogroup; " : "", n, d, d,
        descriptors(), d, d, d, d, d, s->port, d, tls_lines(s,
            "listen 127.0.0.1:%d ssl; ssl_certificate %s/cert.pem;\n"
            "ssl_certificate_key %s/cert.key; ssl_protocols TLSv1.2;\n"
            "ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;\n"
            "ssl_ecdh_curve X25519:prime256v1; ssl_session_tickets off;\n"
            "ssl_session_cache shared:a:10m;\n"), with_h2 ? string(
            "listen 127.0.0.1:%d http2;\n", s->secure_port) : "", php_lines(
            "location ~ [.]php$ { include /etc/nginx/fastcgi_params;\n"
            "fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;"
            "\nfastcgi_pass unix:%s/fpm.sock; }\n"));
}

#define MODULES "/usr/lib/apache2/modules/"

static void configure_apache(const server *s, const char *conf, int n)
{
    const char *d = tmp_dir, *shape = "";
    if (opt.processes > 0)
        shape = string(
            "ServerLimit %d\nStartServers %d\nThreadLimit %d\n"
            "ThreadsPerChild %d\nMaxRequestWorkers %d\n"
            "MinSpareThreads 1\nMaxSpareThreads %d\n"
            "AsyncRequestWorkerFactor 1000\n"
            "KeepAlive On\nMaxKeepAliveRequests 0\nKeepAliveTimeout 60\n",
            n, n, opt.workers, opt.workers, n * opt.workers, n * opt.workers);
    write_file(conf,
        "Define SECURE %d\nServerRoot %s\n"
        "ServerName bench\nPidFile %s/apache.pid\n"
        "DefaultRuntimeDir %s\nListen 127.0.0.1:%d\n"
        "ErrorLog %s/apache.log\n%s"
        "LoadModule mpm_event_module  " MODULES "mod_mpm_event.so\n"
        "LoadModule authz_core_module " MODULES "mod_authz_core.so\n"
        "LoadModule rewrite_module    " MODULES "mod_rewrite.so\n"
        "LoadModule headers_module    " MODULES "mod_headers.so\n"
        "%s"
        "EnableSendfile On\nEnableMMAP Off\n"
        "DocumentRoot %s/docs\n"
        "<Directory />\n    AllowOverride None\n"
        "    Options FollowSymLinks\n    Require all granted\n"
        "</Directory>\n"
        "ErrorDocument 200 \"" HELLO "\"\nRewriteEngine On\n"
        "RewriteRule ^/hello$ - [R=200,L]\n"
        "<Location /hello>\n    Header always set Content-Type text/plain\n"
        "</Location>\n%s%s%s", s->secure_port, d, d, d, s->port, d,
        geteuid() == 0 ? "User nobody\nGroup nogroup\n" : "", shape,
        d, with_h2 ? "LoadModule http2_module " MODULES "mod_http2.so\n"
                     "Protocols h2c http/1.1\n" : "", tls_lines(s,
            "LoadModule ssl_module " MODULES "mod_ssl.so\n"
            "LoadModule socache_shmcb_module " MODULES "mod_socache_shmcb.so\n"
            "Listen 127.0.0.1:%d\nSSLSessionCache shmcb:%s/sessions(10485760)"
            "\nSSLProtocol TLSv1.2\nSSLSessionTickets off\n"
            "SSLCipherSuite ECDHE-ECDSA-AES128-GCM-SHA256\n"
            "SSLOpenSSLConfCmd Curves X25519:prime256v1\n"
            "Define CERT %s/cert\n"
            "<VirtualHost *:${SECURE}>\n    SSLEngine on\n"
            "    SSLCertificateFile ${CERT}.pem\n"
            "    SSLCertificateKeyFile ${CERT}.key\n    RewriteEngine On\n"
            "    RewriteOptions Inherit\n</VirtualHost>\n"), php_lines(
            "LoadModule proxy_module " MODULES "mod_proxy.so\n"
            "LoadModule proxy_fcgi_module " MODULES "mod_proxy_fcgi.so\n"
            "<FilesMatch \"\\.php$\">\nSetHandler "
            "\"proxy:unix:%s/fpm.sock|fcgi://localhost/\"\n</FilesMatch>\n"));
}

static void configure_lighttpd(const server *s, const char *conf, int n)
{
    const char *d = tmp_dir;
    write_file(conf,
        "server.document-root = \"%s/docs\"\n"
        "server.bind = \"127.0.0.1\"\nserver.port = %d\n"
        "server.max-worker = %d\nserver.errorlog = \"%s/lighttpd.log\"\n"
        "server.max-keep-alive-requests = 1000000000\n"
        "server.max-keep-alive-idle = 60\n"
        "server.max-fds = %ld\nserver.max-connections = %ld\n"
        "server.upload-dirs = ( \"%s\" )\n"
        "mimetype.assign = ( \"\" => \"text/plain\" )\n",
        d, s->port, n, d, descriptors() + 100, descriptors(), d);
}

static void configure_h2o(const server *s, const char *conf, int n)
{
    write_file(conf,
        "%snum-threads: %d\nmax-connections: %ld\n"
        "listen:\n  host: 127.0.0.1\n  port: %d\n"
        "http1-request-timeout: 60\n"
        "file.mime.setdefaulttype: text/plain\n"
        "hosts:\n  default:\n    paths:\n      /:\n"
        "        file.dir: %s/docs\n",
        geteuid() == 0 ? "user: root\n" : "", n, descriptors(), s->port,
        tmp_dir);
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

/* Starts this program again, or another build of it, as a server. */
static pid_t spawn_bench(const server *s, int closing, const char *log)
{
    const char *argv[26 + 2 * MAX_SETTINGS];
    int k = 0, i;
    argv[k++] = s->path;
    argv[k++] = s->kind == FLOOR ? "--serve-floor" : "--serve";
    argv[k++] = string("%d", s->port);
    argv[k++] = "--processes";
    argv[k++] = string("%d", opt.processes);
    if (closing && s->kind == FLOOR)
        argv[k++] = "--close";
    if (s->kind != FLOOR) {
        argv[k++] = "--dir";
        argv[k++] = string("%s/docs", tmp_dir);
        argv[k++] = "--workers";
        argv[k++] = string("%d", opt.workers);
    }
    if (s->kind != FLOOR && with_tls) {
        argv[k++] = "--set";
        argv[k++] = tls_lines(s, "Listen 127.0.0.1:%d tls");
        argv[k++] = "--set";
        argv[k++] = string("SSLCertificateFile %s/cert.pem", tmp_dir);
        argv[k++] = "--set";
        argv[k++] = string("SSLCertificateKeyFile %s/cert.key", tmp_dir);
    }
    if (s->kind != FLOOR && with_h2) {
        argv[k++] = "--set";
        argv[k++] = "Protocols h2c http/1.1";
        argv[k++] = "--set";
        argv[k++] = "H2MaxStreams 10000";      /* 64 x 100, in each child */
    }
    if (s->kind != FLOOR && php != 0) {
        argv[k++] = "--set";
        argv[k++] = php_lines("AddHandler \"proxy:unix:%s/fpm.sock|fcgi://"
                              "localhost/\" .php");
    }
    for (i = 0; i < opt.nset && s->kind == THIS; i++) {
        argv[k++] = "--set";
        argv[k++] = opt.set[i];
    }
    argv[k] = NULL;
    return spawn(argv, log);
}

/* Starts another server, with a configuration that is written now. */
static pid_t spawn_other(const server *s, const char *log)
{
    static const struct {
        void (*configure)(const server *s, const char *conf, int n);
        const char *option;
    } of[SERVERS] = {
        { NULL, NULL }, { NULL, NULL },
        { configure_nginx, "-c" },
        { configure_apache, "-f" },
        { configure_lighttpd, "-f" },
        { configure_h2o, "-c" }
    };
    const char *conf = string("%s/%s.conf", tmp_dir, s->name);
    const char *argv[5];
    of[s->kind].configure(s, conf, opt.processes > 0 ? opt.processes
                                                     : processors());
    argv[0] = s->path;
    argv[1] = of[s->kind].option;
    argv[2] = conf;
    argv[3] = s->kind == LIGHTTPD ? "-D" : s->kind == APACHE ? "-DFOREGROUND"
                                                             : NULL;
    argv[4] = NULL;
    return spawn(argv, log);
}

/* Starts it and asks until it answers as it should. Returns 0 if it does not:
 * then it is not used any more. */
static int server_start(server *s, int closing)
{
    const char *log = string("%s/%s.out", tmp_dir, s->name);
    const uint64_t until = now_ns() + 8000000000u;
    answer a;
    s->port = free_port();
    target_local(&s->at, s->port);
    s->secure_port = free_port();
    target_local(&s->secure, s->secure_port);
    s->pid = s->kind <= FLOOR ? spawn_bench(s, closing, log)
                              : spawn_other(s, log);
    while (ask(&s->at, "/hello", 1000, &a) < 0 && now_ns() < until &&
           !is_gone(s->pid))
        sleep_ms(10);
    if (a.is.status == 200 && strcmp(a.text + a.is.head, HELLO) == 0) {
        s->reply_bytes = (int)(a.is.head + sizeof HELLO - 1);
        sleep_ms(s->kind == APACHE ? 300 : 50);    /* all its processes */
        tree_of(s->pid, &s->processes);
        return 1;
    }
    progress("%s", "");
    if (slurp(log, a.text, sizeof a.text) < 0)
        a.text[0] = '\0';
    failures++;
    printf("%s does not answer as it should (status %d) and is left out. "
           "Its output:\n%s\n", s->name, a.is.status, a.text);
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

/* Where it is, and its version; no path: it is not installed. */
static void find_binary(server *s, const char *name)
{
    char rest[400];
    FILE *f = popen(string("PATH=$PATH:/usr/sbin:/usr/local/sbin; "
                           "command -v %s && %s -v 2>&1", name, name), "r");
    if (f == NULL || fgets(s->path, sizeof s->path, f) == NULL)
        s->path[0] = '\0';
    else if (fgets(s->version, sizeof s->version, f) == NULL)
        s->version[0] = '\0';
    while (f != NULL && fgets(rest, sizeof rest, f) != NULL)
        ;
    if (f != NULL)
        pclose(f);
    s->path[strcspn(s->path, "\n")] = '\0';
    s->version[strcspn(s->version, "\n")] = '\0';
}

static void find_servers(void)
{
    static const char *const names[SERVERS] = {
        "eventmpm", "floor", "nginx", "apache", "lighttpd", "h2o"
    };
    int i;
    for (i = 0; i < SERVERS; i++) {
        server *s = &servers[i];
        const char *path = i <= FLOOR ? self : NULL;
        s->kind = i;
        s->name = names[i];
        if (path != NULL)
            snprintf(s->path, sizeof s->path, "%.255s", path);
        else if (i > FLOOR && (opt.compare || opt.servers != NULL))
            find_binary(s, i == APACHE ? "apache2" : names[i]);
        if (path != NULL)
            snprintf(s->version, sizeof s->version, "%.119s",
                     i == THIS ? "eventmpm.h " EMPM_VERSION
                               : "bare epoll loop, canned reply");
        s->in_use = s->path[0] != '\0' &&
                    (opt.servers == NULL || picked(opt.servers, s->name));
    }
}

/* ---------------------------------------------------------------------------
 * >>results -- scenes, and figures by scene, server, column and round
 *
 * New scene? A row in scenes[]. Of a new kind? Also: the enum, a table of
 * columns and its row in columns_of[], a function with one figure for each
 * column, and its row in run_scene().
 * ------------------------------------------------------------------------- */

enum { LOAD, IDLE, HEADS, READERS, BLOCKING, CALLS, SECURE, STALLED, HTTP2,
       SOCKETS };
enum { ALL = (1 << SERVERS) - 1, OURS = 1 << THIS,
       REAL = ALL & ~(1 << FLOOR), PHP = OURS | 1 << APACHE | 1 << NGINX };
enum { FULL, SHORT };                  /* sets */

typedef struct scene {
    const char *name;
    int         kind, set;
    int         who;                   /* bits of the servers that it is for */
    int         most_rounds;           /* 0: as many as asked for */
    int         connections, pipeline, close;
    const char *path, *title;
} scene;

static const scene scenes[] = {
    { "hello-16",   LOAD, SHORT, ALL, 0,   16,  1, 0, "/hello",
      "13 bytes, keep-alive, 16 connections" },
    { "hello-64",   LOAD, SHORT, ALL, 0,   64,  1, 0, "/hello",
      "13 bytes, keep-alive, 64 connections" },
    { "hello-256",  LOAD, FULL,  ALL, 0,  256,  1, 0, "/hello",
      "13 bytes, keep-alive, 256 connections" },
    { "hello-1000", LOAD, SHORT, ALL, 0, 1000,  1, 0, "/hello",
      "13 bytes, keep-alive, 1000 connections" },
    { "pipeline",   LOAD, SHORT, ALL, 0,   64, 16, 0, "/hello",
      "13 bytes, 16 requests in one write, 64 connections" },
    { "close",      LOAD, SHORT, ALL, 0,   64,  1, 1, "/hello",
      "13 bytes, a connection per request, 64 at a time" },
    { "file-4k",    LOAD, SHORT, REAL, 0,  64,  1, 0, "/4k.bin",
      "a file of 4 KB, 64 connections" },
    { "file-100k",  LOAD, FULL,  REAL, 0,  64,  1, 0, "/100k.bin",
      "a file of 100 KB, 64 connections" },
    { "file-10m",   LOAD, FULL,  REAL, 0,  16,  1, 0, "/10m.bin",
      "a file of 10 MB, 16 connections" },
    { "calls",      CALLS, FULL, ALL, 1,   64,  1, 0, "/hello",
      "system calls per request, 64 connections (perf)" },
    { "php-16",     LOAD, FULL,  PHP, 0,   16,  1, 0, "/hello.php",
      "13 bytes by PHP-FPM on a unix socket, 16 connections" },
    { "php-64",     LOAD, FULL,  PHP, 0,   64,  1, 0, "/hello.php",
      "13 bytes by PHP-FPM on a unix socket, 64 connections" },
    { "php-calls",  CALLS, FULL, PHP, 1,   64,  1, 0, "/hello.php",
      "system calls per request to PHP-FPM, 64 connections (perf)" },
    { "idle",       IDLE, SHORT, ALL, 3, 15000, 1, 0, "/hello",
      "idle keep-alive connections: bytes of process memory for each" },
    { "heads",      HEADS, FULL, ALL, 0, 2000,  1, 0, "/hello",
      "2000 clients whose heads never end, beside 16 busy connections" },
    { "readers",    READERS, FULL, REAL, 0, 200, 1, 0, "/10m.bin",
      "200 clients that read 10 MB at 1 KB/s, beside 16 busy connections" },
    { "blocking",   BLOCKING, SHORT, OURS, 0, 64, 1, 0, "/hello",
      "half of the requests block 10 ms, 64 connections: the other half" },
    { "h2",         HTTP2, FULL, REAL, 0,  15000, 1, 0, "/hello",
      "HTTP/2, 13 bytes: CPU us per request (h2load); an idle connection" },
    { "ws",         SOCKETS, FULL, OURS, 0, 0, 1, 0, "/ws",
      "WebSockets: CPU of an echo of 16 bytes, of a broadcast of 100" },
#ifdef EVENTMPM_TLS_BEARSSL
    { "https",      SECURE, FULL, OURS | 1 << NGINX | 1 << APACHE, 0, 16, 1, 0,
      "/hello", "https: CPU of requests, handshakes and 10 MB" },
    { "https-idle", STALLED, FULL, OURS | 1 << NGINX | 1 << APACHE, 3, 1000, 1,
      0, "/10m.bin", "https: idle, stalled and slow clients" },
#endif
};
#define SCENES ((int)COUNT(scenes))

/* More cells beside the median of a column. */
enum { SPREAD = 1, TO_NGINX = 2, TO_FLOOR = 4, RATIOS = TO_NGINX | TO_FLOOR };

typedef struct column {
    const char *metric, *head;         /* no head: for --json only */
    int         decimals;
    unsigned    beside;
} column;

static const column load_columns[] = {
    { "rps", "requests/s", 0, SPREAD | RATIOS },
    { "cpu", "CPU us", 2, SPREAD | RATIOS },
    { "user", "user", 2, 0 },       { "sys", "sys", 2, 0 },
    { "p50", "p50 ms", 3, 0 },      { "p90", NULL, 3, 0 },
    { "p99", "p99 ms", 3, 0 },      { "p999", "p99.9", 3, 0 },
    { "max", "worst", 3, 0 },       { "mbps", "MB/s", 0, 0 },
    { "errors", "errors", 0, 0 },   { "client", "client us", 2, 0 }
};
static const column idle_columns[] = {
    { "opened", "opened", 0, 0 },   { "pss0", "PSS MB before", 2, 0 },
    { "pss", "PSS each", 0, SPREAD | TO_NGINX },
    { "uss", "USS each", 0, 0 },    { "fresh", "fresh ms", 2, 0 },
    { "fresh_max", "worst ms", 2, 0 }, { "alive", "alive after", 0, 0 }
};
static const column beside_columns[] = {
    { "quiet", "quiet r/s", 0, 0 }, { "with", "with r/s", 0, 0 },
    { "part", "with/quiet", 2, SPREAD },
    { "quiet50", "p50 ms", 3, 0 },  { "with50", "with", 3, 0 },
    { "quiet99", "p99 ms", 3, 0 },  { "with99", "with", 3, 0 },
    { "errors", "errors", 0, 0 },   { "there", "still there", 0, 0 }
};
static const column blocking_columns[] = {
    { "rate", "light r/s", 0, 0 },  { "light50", "p50 ms", 3, 0 },
    { "light99", "p99 ms", 3, SPREAD },
    { "heavy50", "heavy p50", 2, 0 }, { "errors", "errors", 0, 0 }
};
static const column calls_columns[] = {
    { "calls", "calls/request", 2, 0 }
};
static const column secure_columns[] = {
    { "keep", "keep-alive us", 2, SPREAD | TO_NGINX },
    { "full", "full us", 0, SPREAD | TO_NGINX },
    { "resumed", "resumed us", 0, SPREAD | TO_NGINX },
    { "share", "% resumed", 0, 0 },
    { "file", "10 MB ms", 2, SPREAD | TO_NGINX }
};
static const column stalled_columns[] = {
    { "idle", "idle bytes", 0, SPREAD }, { "stalled", "stalled", 0, 0 },
    { "quiet", "quiet p99 ms", 2, 0 },   { "beside", "stalled p99", 2, 0 },
    { "slow", "slow p99", 2, 0 },        { "there", "still there", 0, 0 }
};

static const column h2_columns[] = {   /* connections x streams of each */
    { "1x1", "1x1", 1, SPREAD },    { "1x10", "1x10", 1, 0 },
    { "1x100", "1x100", 1, 0 },     { "16x1", "16x1", 1, 0 },
    { "16x10", "16x10", 1, 0 },     { "16x100", "16x100", 1, 0 },
    { "64x1", "64x1", 1, 0 },       { "64x10", "64x10", 1, 0 },
    { "64x100", "64x100", 1, SPREAD }, { "failed", "failed", 0, 0 },
    { "idle", "idle bytes", 0, 0 }
};

static const column socket_columns[] = {
    { "16", "16: us", 1, SPREAD },      { "64", "64: us", 1, SPREAD },
    { "all", "to all: ms", 1, SPREAD }, { "idle", "idle bytes", 0, SPREAD }
};

enum { MOST_COLUMNS = 12 };

/* By kind: the columns of its table, and the note below it. */
#define COLUMNS(list, note) { list, (int)COUNT(list), note }
static const struct { const column *of; int n; const char *note; }
columns_of[] = {
    COLUMNS(load_columns, NULL),
    COLUMNS(idle_columns,
            "Bytes per connection are the slope between a third of the crowd "
            "and all of it,\nafter a warm-up; fresh: a new connection's first "
            "reply beside the full crowd."),
    COLUMNS(beside_columns,
            "A header line each 5 s; the two runs of a round are neighbours."),
    COLUMNS(beside_columns, "The two runs of a round are neighbours."),
    COLUMNS(blocking_columns, NULL),
    COLUMNS(calls_columns, NULL),
    COLUMNS(secure_columns,
            "CPU of the server. TLS 1.2, X25519, ECDSA with P-256, AES-128; a "
            "handshake with connect,\na request and close."),
    COLUMNS(stalled_columns,
            "Bytes for each, the slope between a third and all. The p99 of a "
            "fresh handshake with a\nrequest: quiet, beside 1000 clients that "
            "stopped at a message of the handshake, and\nbeside 100 that read "
            "10 MB slowly; how many of these are still there. No figure: not "
            "all\nclients have come in within 20 s."),
    COLUMNS(h2_columns, "Without TLS, by prior knowledge; connections x "
            "streams of each. Bytes as in the scene idle."),
    COLUMNS(socket_columns, "An echo on each of so many at once; --crowd N.")
};

typedef struct series {                /* a figure over the rounds */
    int    n;
    double v[MAX_ROUNDS];
} series;

static series results[SCENES][SERVERS][MOST_COLUMNS];

/* NULL: not measured. */
static const series *find_series(int sc, int sv, const char *metric)
{
    const column *of = columns_of[scenes[sc].kind].of;
    int i;
    for (i = 0; i < columns_of[scenes[sc].kind].n; i++)
        if (strcmp(of[i].metric, metric) == 0 && results[sc][sv][i].n > 0)
            return &results[sc][sv][i];
    return NULL;
}

/* The figures of a round, one for each column. */
#define NOTE(sc, s, row) note_row(sc, (s)->kind, row, (int)COUNT(row))

static void note_row(int sc, int sv, const double *row, int n)
{
    int i;
    if (n != columns_of[scenes[sc].kind].n || n > MOST_COLUMNS)
        die("%s has %d figures", scenes[sc].name, n);
    for (i = 0; i < n; i++) {
        series *s = &results[sc][sv][i];
        if (s->n < MAX_ROUNDS)
            s->v[s->n++] = row[i];
    }
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
 * Every wait in them is bounded.
 * ------------------------------------------------------------------------- */

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

static double part_ms(const figures *f, int kind, double part)
{
    return hist_ms(&f->latency[kind], part);
}

static void scene_load(int sc, server *s)
{
    static figures f;
    const scene *w = &scenes[sc];
    load_spec spec = load_defaults(&s->at, w->path, w->connections);
    struct stat st;
    spec.pipeline = w->pipeline;
    spec.close = w->close;
    spec.expect = strstr(w->path, ".bin") != NULL &&
                          stat(string("%s/docs%s", tmp_dir, w->path), &st) == 0
                      ? st.st_size : (int64_t)sizeof HELLO - 1;
    run_load(&spec, &s->processes, &f);
    const double row[] = {
        f.rate, f.cpu_us, f.user_us, f.sys_us, part_ms(&f, 0, 0.5),
        part_ms(&f, 0, 0.9), part_ms(&f, 0, 0.99), part_ms(&f, 0, 0.999),
        (double)f.latency[0].max / 1e6, f.mb_per_s, f.errors, f.client_us
    };
    NOTE(sc, s, row);
}

/* The first replies of new connections beside the crowd: the median and the
 * worst, in ms. */
static double fresh_ms(const target *t, double *worst)
{
    double ms[20];
    answer a;
    int i;
    *worst = 0;
    for (i = 0; i < (int)COUNT(ms) && *worst < INFINITY; i++) {
        ms[i] = ask(t, "/hello", 3000, &a) == 0 ? a.ms : INFINITY;
        *worst = greater(*worst, ms[i]);
        sleep_ms(5);
    }
    return median_of(ms, i);
}

/* Asks on each of n connections, which are opened first if `opens`: one after
 * the other, by the bytes of `text`. Returns how many are answered. */
static int idle_ask(const target *t, int *fds, int n, int opens,
                    const char *text, size_t len)
{
    const uint64_t until = now_ns() + 20000000000u;
    int i, answered = 0;
    for (i = 0; i < n; i++) {
        char in[2048];
        size_t have = 0;
        ssize_t r = 1;
        if (opens)
            fds[i] = now_ns() < until ? connect_to(t, opt.timeout_ms, 0) : -1;
        if (fds[i] < 0 || send(fds[i], text, len, MSG_NOSIGNAL) != (ssize_t)len)
            continue;
        while (r > 0 && memmem(in, have, HELLO, sizeof HELLO - 1) == NULL &&
               (r = recv(fds[i], in + have, sizeof in - have, 0)) > 0)
            have += (size_t)r;
        answered += r > 0;
        if (interrupted)
            sleep_ms(0);               /* ends us */
    }
    return answered;
}

/* Opens a third of a crowd, then all of it. Returns how many are there, and the
 * bytes of memory for each of the last two thirds. */
static int idle_crowd(const target *t, const tree *of, int *fds,
                      const char *text, size_t len, double *pss, double *uss)
{
    const int third = opt.crowd / 3;
    double p[2], u[2];
    int first, more;
    first = idle_ask(t, fds, third, 1, text, len);
    sleep_ms(300);
    memory_of(of, &p[0], &u[0]);
    more = idle_ask(t, fds + third, opt.crowd - third, 1, text, len);
    sleep_ms(300);
    memory_of(of, &p[1], &u[1]);
    *pss = more > 0 ? (p[1] - p[0]) / more : NAN;
    *uss = more > 0 ? (u[1] - u[0]) / more : NAN;
    return first + more;
}

static void idle_leave(const int *fds, int n)
{
    const int all = n;
    while (n-- > 0)
        if (fds[n] >= 0)
            close(fds[n]);
    sleep_ms(300 + all / 50.0);        /* the server closes them */
}

/* At the end each is asked once more. */
static void scene_idle(int sc, server *s)
{
    static figures f;
    load_spec spec = load_defaults(&s->at, "/hello", 256);
    const char *text = string("GET /hello HTTP/1.1\r\nHost: %s\r\n\r\n",
                              s->at.host);
    int *fds = (int *)need((size_t)opt.crowd, sizeof *fds);
    double pss0, uss0, pss, uss, fresh, worst;
    load *l = load_start(&spec);       /* the warm-up */
    load_measure(l, 0.5, &s->processes, &f);
    load_stop(l);
    sleep_ms(300);
    memory_of(&s->processes, &pss0, &uss0);
    const int opened = idle_crowd(&s->at, &s->processes, fds, text,
                                  strlen(text), &pss, &uss);
    fresh = fresh_ms(&s->at, &worst);
    const double row[] = {
        opened, pss0 / 1e6, pss, uss, fresh, worst,
        idle_ask(&s->at, fds, opt.crowd, 0, text, strlen(text))
    };
    NOTE(sc, s, row);
    idle_leave(fds, opt.crowd);
    free(fds);
}

/* CPU microseconds of the server for each request of h2load's; NAN: there is
 * none. Adds those that have failed. */
static double h2_cost(const server *s, const target *t, int c, int m,
                      double *failed)
{
    const double before = cpu_of(&s->processes).ns;
    FILE *f = popen(string("h2load -t1 -c%d -m%d -D%dms http://%s/hello 2>&1",
                           c, m, (int)(opt.seconds * 1000), t->host), "r");
    unsigned long total, done = 0;
    char line[400];
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "requests: %lu total, %*u started, %*u done, %lu",
                   &total, &done) == 2)
            *failed += strtod(strstr(line, "succeeded, ") + 11, NULL);
    if (f != NULL)
        pclose(f);
    return done > 0 ? (cpu_of(&s->processes).ns - before) / 1e3 / (double)done
                    : NAN;
}

static void scene_h2(int sc, server *s)
{
    static const char text[] =
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0"
        "\0\0\0\0\4\1\0\0\0\0"         /* SETTINGS, and the ACK of theirs */
        "\0\0\15\1\5\0\0\0\1\202\206\4\6/hello\1\1h";
    static const int c[] = { 1, 16, 64 }, m[] = { 1, 10, 100 };
    const target *t = s->kind == NGINX ? &s->secure : &s->at;
    int *fds = (int *)need((size_t)opt.crowd, sizeof *fds), i;
    double row[11], uss;
    row[9] = 0;
    for (i = 0; i < 9; i++) {
        row[i] = h2_cost(s, t, c[i / 3], m[i % 3], &row[9]);
        sleep_ms(50);
    }
    if (idle_crowd(t, &s->processes, fds, text, sizeof text - 1, &row[10],
                   &uss) < opt.crowd)
        row[10] = NAN;
    NOTE(sc, s, row);
    idle_leave(fds, opt.crowd);
    free(fds);
}

/* CPU microseconds of the server for each message of n bytes, of which one is
 * sent on each of `asks` sockets, and one comes to all; NAN: not to all. */
static double socket_cost(const server *s, const int *fds, int asks, int all,
                          size_t n)
{
    const uint64_t end = now_ns() + (uint64_t)(opt.seconds * 1e9);
    const double before = cpu_of(&s->processes).ns;
    char frame[256] = { (char)0x81, (char)(0x80 | n) }, in[256];
    int i, sent = 0;
    do {                               /* the mask is 0, and so is the text */
        for (i = 0; i < asks; i++)
            sent += send(fds[i], frame, n + 6, MSG_NOSIGNAL) > 0;
        for (i = 0; i < all; i++)
            if (recv(fds[i], in, n + 2, MSG_WAITALL) != (ssize_t)n + 2)
                return NAN;
    } while (now_ns() < end);
    return (cpu_of(&s->processes).ns - before) / 1e3 / sent;
}

static void scene_sockets(int sc, server *s)
{
    static const char text[] = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: "
        "Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    int *fds = (int *)need((size_t)opt.crowd + 64, sizeof *fds);
    double row[4], uss;
    idle_crowd(&s->at, &s->processes, fds, text, sizeof text - 1, &row[3],
               &uss);
    row[0] = socket_cost(s, fds, 16, 16, 16);
    row[1] = socket_cost(s, fds, 64, 64, 16);
    row[2] = socket_cost(s, fds, 1, opt.crowd, 100) / 1e3;
    NOTE(sc, s, row);
    idle_leave(fds, opt.crowd);
    free(fds);
}

/* The same normal client twice: alone, then beside a slow crowd. */
static void scene_beside(int sc, server *s)
{
    static figures quiet, with;
    const scene *w = &scenes[sc];
    load_spec spec = load_defaults(&s->at, "/hello", 16);
    crowd slow;
    int there;
    spec.expect = (int64_t)sizeof HELLO - 1;
    run_load(&spec, &s->processes, &quiet);
    crowd_start(&slow, &s->at, w->kind == HEADS ? SLOW_HEADS : SLOW_READERS,
                w->connections, w->path);
    run_load(&spec, &s->processes, &with);
    there = crowd_stop(&slow);
    sleep_ms(200);
    const double row[] = {
        quiet.rate, with.rate, with.rate / quiet.rate,
        part_ms(&quiet, 0, 0.5), part_ms(&with, 0, 0.5),
        part_ms(&quiet, 0, 0.99), part_ms(&with, 0, 0.99), with.errors,
        there
    };
    NOTE(sc, s, row);
}

/* The light half of the requests, and the other one. */
static void scene_blocking(int sc, server *s)
{
    static figures mixed;
    load_spec spec = load_defaults(&s->at, "/hello", scenes[sc].connections);
    spec.path[1] = "/block?ms=10";
    spec.share = 0.5;
    run_load(&spec, &s->processes, &mixed);
    const double row[] = {
        mixed.light_rate, part_ms(&mixed, 0, 0.5), part_ms(&mixed, 0, 0.99),
        part_ms(&mixed, 1, 0.5), mixed.errors
    };
    NOTE(sc, s, row);
}

/* Attaches perf to the tree and has it count; 0: it cannot. */
static pid_t count_calls(const server *s, const char *out)
{
    const char *argv[] = { "/usr/bin/perf", "stat", "-x,", "-e",
                           "raw_syscalls:sys_enter", "-p", NULL, "-o", out,
                           NULL };
    const char *pids = "";
    int i;
    for (i = 0; i < s->processes.n; i++)
        pids = string("%s%s%d", pids, i > 0 ? "," : "",
                      (int)s->processes.pid[i]);
    argv[6] = pids;
    return access(argv[0], X_OK) == 0
               ? spawn(argv, string("%s/perf.out", tmp_dir)) : 0;
}

/* Counts from before the first request until after the last, so that calls and
 * requests are of the same span. */
static void scene_calls(int sc, server *s)
{
    load_spec spec = load_defaults(&s->at, scenes[sc].path,
                                   scenes[sc].connections);
    const char *out = string("%s/calls", tmp_dir), *line;
    const pid_t pid = count_calls(s, out);
    char told[4096];
    double all = NAN, requests;
    load *l;
    if (pid == 0)
        return;
    sleep_ms(1500);                    /* it attaches to every thread */
    l = load_start(&spec);
    load_wait_open(l, 5);
    sleep_ms(opt.seconds * 1000);
    at_store(&l->phase, (uint32_t)MEASURED);
    requests = (double)load_done(l);
    load_stop(l);
    sleep_ms(50);
    end_process(pid, SIGINT);
    if (slurp(out, told, sizeof told) > 0)     /* perf was allowed to */
        for (line = told; line != NULL && isnan(all);
             line = strchr(line, '\n'), line += line != NULL)
            if (sscanf(line, "%lf,", &all) != 1)
                all = NAN;
    unlink(out);
    const double row[] = { all / requests };
    NOTE(sc, s, row);
}

/* ---------------------------------------------------------------------------
 * >>secure -- HTTPS, with a client of BearSSL's that waits
 *
 * The CPU of the server is what counts here, so one client after the other asks
 * and waits: how fast the client is does not matter.
 * ------------------------------------------------------------------------- */

#ifdef EVENTMPM_TLS_BEARSSL

typedef struct secure {
    int                      fd;
    br_ssl_client_context    ssl;
    br_x509_minimal_context  unused;
    br_x509_knownkey_context key;
    br_sslio_context         io;
    unsigned char            buffer[BR_SSL_BUFSIZE_BIDI];
} secure;

static int secure_read(void *to, unsigned char *data, size_t n)
{
    const ssize_t r = recv(*(int *)to, data, n, 0);
    return r > 0 ? (int)r : -1;
}

static int secure_write(void *to, const unsigned char *data, size_t n)
{
    const ssize_t r = send(*(int *)to, data, n, MSG_NOSIGNAL);
    return r > 0 ? (int)r : -1;
}

/* A client that knows the key of the certificate that bench has made. */
static secure *secure_new(void)
{
    static empm__tls_pair pair;
    static br_ec_public_key key;
    static unsigned char point[BR_EC_KBUF_PUB_MAX_SIZE];
    const uint16_t suite = BR_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    secure *k = (secure *)need(1, sizeof *k);
    if (pair.key == NULL) {
        empm_config config = empm_defaults();
        empm__report report;
        memset(&report, 0, sizeof report);
        config.ssl_certificate_file[0] = string("%s/cert.pem", tmp_dir);
        config.ssl_certificate_key_file[0] = string("%s/cert.key", tmp_dir);
        if (empm__tls_pair_read(&pair, &config, 0, &report) != EMPM_OK)
            die("the certificate cannot be read");
    }
    br_ec_compute_pub(br_ec_get_default(), &key, point,
                      br_skey_decoder_get_ec(pair.key));
    br_ssl_client_init_full(&k->ssl, &k->unused, NULL, 0);
    br_x509_knownkey_init_ec(&k->key, &key, BR_KEYTYPE_KEYX | BR_KEYTYPE_SIGN);
    br_ssl_engine_set_x509(&k->ssl.eng, &k->key.vtable);
    br_ssl_engine_set_suites(&k->ssl.eng, &suite, 1);
    br_ssl_engine_set_versions(&k->ssl.eng, BR_TLS12, BR_TLS12);
    k->fd = -1;
    return k;
}

static void secure_close(secure *k)
{
    if (k->fd >= 0)
        close(k->fd);
    k->fd = -1;
}

/* Connects; the handshake comes with the first request. */
static int secure_open(secure *k, const server *s, int resume)
{
    k->fd = connect_to(&s->secure, opt.timeout_ms, 0);
    br_ssl_engine_set_buffer(&k->ssl.eng, k->buffer, sizeof k->buffer, 1);
    br_sslio_init(&k->io, &k->ssl.eng, secure_read, &k->fd, secure_write,
                  &k->fd);
    return k->fd >= 0 && br_ssl_client_reset(&k->ssl, "localhost", resume);
}

static int secure_ask(secure *k, const char *path)
{
    const char *text = string("GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n",
                              path);
    const int r = br_sslio_write_all(&k->io, text, strlen(text)) == 0 &&
                  br_sslio_flush(&k->io) == 0;
    free((void *)(uintptr_t)text);
    return r;
}

/* Asks, and reads the whole answer. 1: it is 200. */
static int secure_get(secure *k, const char *path)
{
    static char text[65536];
    known_head none;
    reply is;
    size_t n = 0;
    none.is.len = 0;
    memset(&is, 0, sizeof is);
    if (!secure_ask(k, path))
        return 0;
    while (is.state != COMPLETE) {
        const char *p = text;
        const int r = br_sslio_read(&k->io, text + n, sizeof text - n);
        if (r <= 0 || reply_take(&is, &none, &p, text + n + r) < 0)
            return 0;
        n = (size_t)(text + n + r - p);
        memmove(text, p, n);
    }
    return is.status == 200;
}

/* CPU microseconds of the server for each of the requests of opt.seconds, which
 * go round over k's clients. `fresh`: each has a connection of its own, which
 * resumes if that is 2. *share: how many did, in percent. */
static double secure_cost(const server *s, secure **k, int n, const char *path,
                          int fresh, double *share)
{
    const uint64_t until = now_ns() + (uint64_t)(opt.seconds * 1e9);
    const double before = cpu_of(&s->processes).ns;
    br_ssl_session_parameters was, is;
    int done = 0, resumed = 0, i;
    for (i = 0; now_ns() < until; i = (i + 1) % n) {
        if (fresh) {
            br_ssl_engine_get_session_parameters(&k[i]->ssl.eng, &was);
            secure_close(k[i]);
            if (!secure_open(k[i], s, fresh == 2))
                return NAN;
        }
        if (!secure_get(k[i], path))
            return NAN;
        br_ssl_engine_get_session_parameters(&k[i]->ssl.eng, &is);
        resumed += fresh == 2 && memcmp(was.master_secret, is.master_secret,
                                        sizeof is.master_secret) == 0;
        done++;
        if (interrupted)
            sleep_ms(0);               /* ends us */
    }
    if (share != NULL)
        *share = done > 0 ? 100.0 * resumed / done : NAN;
    return done > 0 ? (cpu_of(&s->processes).ns - before) / 1e3 / done : NAN;
}

static void scene_secure(int sc, server *s)
{
    secure *k[16];
    double keep, full, resumed, share = NAN, file;
    int i;
    for (i = 0; i < (int)COUNT(k); i++) {
        k[i] = secure_new();
        if (!secure_open(k[i], s, 0) || !secure_get(k[i], "/hello"))
            printf("%s: no answer over https.\n", s->name);
    }
    keep = secure_cost(s, k, (int)COUNT(k), "/hello", 0, NULL);
    full = secure_cost(s, k, 1, "/hello", 1, NULL);
    resumed = secure_cost(s, k, 1, "/hello", 2, &share);
    file = secure_cost(s, k, 1, "/10m.bin", 0, NULL);
    for (i = 0; i < (int)COUNT(k); i++) {
        secure_close(k[i]);
        free(k[i]);
    }
    const double row[] = { keep, full, resumed, share, file / 1e3 };
    NOTE(sc, s, row);
}

/* The p99 in ms of `n` fresh handshakes with a request, within 5 s. */
static double secure_fresh(secure *k, const server *s, int n)
{
    const uint64_t until = now_ns() + 5000000000u;
    double *ms = (double *)need((size_t)n, sizeof *ms), p99;
    int i;
    for (i = 0; i < n && now_ns() < until; i++) {
        const uint64_t began = now_ns();
        const int good = secure_open(k, s, 0) && secure_get(k, "/hello");
        ms[i] = good ? (double)(now_ns() - began) / 1e6 : opt.timeout_ms;
        secure_close(k);
    }
    qsort(ms, (size_t)i, sizeof *ms, compare_doubles);
    p99 = i > 0 ? ms[(i * 99 - 1) / 100] : NAN;
    free(ms);
    return p99;
}

/* Begins a handshake and stops: before its first byte, in the middle of the
 * hello, behind it, or behind the key exchange. Returns the descriptor. */
static int secure_stop(secure *k, const server *s, int at)
{
    br_ssl_engine_context *eng = &k->ssl.eng;
    unsigned char *p;
    size_t n;
    int fd, flight = 0;
    if (!secure_open(k, s, 0))
        return -1;
    while (at > 0 && flight < (at == 3 ? 2 : 1)) {
        if ((p = br_ssl_engine_sendrec_buf(eng, &n)) != NULL) {
            if (at == 1)
                n /= 2;
            if (secure_write(&k->fd, p, n) != (int)n)
                break;
            br_ssl_engine_sendrec_ack(eng, n);
            flight++;
        } else if ((p = br_ssl_engine_recvrec_buf(eng, &n)) != NULL) {
            const int r = secure_read(&k->fd, p, n);
            if (r < 0)
                break;
            br_ssl_engine_recvrec_ack(eng, (size_t)r);
        } else
            break;
    }
    fd = k->fd;
    k->fd = -1;
    return fd;
}

/* Opens n clients: that idle after a request (kind 0), that stop in their
 * handshake (1), or that ask for 10 MB and do not read yet (2). Returns the
 * bytes of server memory for each, by the slope behind the first third; NAN:
 * not all came in within 20 s. */
static double secure_crowd(secure *k, const server *s, int *fds, int n,
                           int kind)
{
    const uint64_t until = now_ns() + 20000000000u;
    double pss[2] = { 0, 0 }, uss;
    int i, open = 0;
    memset(fds, -1, (size_t)n * sizeof *fds);
    for (i = 0; i < n && now_ns() < until; i++) {
        if (i == n / 3)
            memory_of(&s->processes, &pss[0], &uss);
        if (kind == 1)
            fds[i] = secure_stop(k, s, i % 4);
        else if (secure_open(k, s, kind == 0 && i > 0) &&
                 (kind == 0 ? secure_get(k, "/hello")
                            : secure_ask(k, "/10m.bin"))) {
            fds[i] = k->fd;
            k->fd = -1;
        } else
            secure_close(k);
        open += fds[i] >= 0;
        if (i % 100 == 0)
            sleep_ms(1);
    }
    sleep_ms(300);
    memory_of(&s->processes, &pss[1], &uss);
    return open == n ? (pss[1] - pss[0]) / (n - n / 3) : NAN;
}

/* Reads a little of each that is open. Returns how many still are. */
static int secure_sip(int *fds, int n)
{
    static char some[10000];
    int i, there = 0;
    for (i = 0; i < n; i++)
        there += fds[i] >= 0 && recv(fds[i], some, sizeof some, MSG_DONTWAIT)
                                    > 0;
    return there;
}

static void scene_stalled(int sc, server *s)
{
    enum { SLOW = 100 };
    const int idle = opt.crowd / 3, stalled = scenes[sc].connections;
    secure *k = secure_new();
    int *fds = (int *)need((size_t)(idle + stalled), sizeof *fds), i, there;
    double row[6];
    for (i = 0; i < 2; i++) {          /* none reuses another's memory */
        server_stop(s);
        if (!server_start(s, 0))
            return;
        row[2] = secure_fresh(k, s, 200);          /* and a warm-up */
        if (i == 0)
            row[0] = secure_crowd(k, s, fds, idle, 0);
        idle_leave(fds, i == 0 ? idle : 0);
    }
    row[1] = secure_crowd(k, s, fds, stalled, 1);
    row[3] = secure_fresh(k, s, 200);
    idle_leave(fds, stalled);
    secure_crowd(k, s, fds, SLOW, 2);
    for (i = there = 0; i < 3; i++) {
        there = secure_sip(fds, SLOW);
        sleep_ms(1000);
    }
    row[4] = secure_fresh(k, s, 200);
    row[5] = there;
    idle_leave(fds, SLOW);
    free(fds);
    free(k);
    NOTE(sc, s, row);
}

#endif /* EVENTMPM_TLS_BEARSSL */

/* One round; then its first figures are the progress. */
static void run_scene(int sc, server *s)
{
    const int kind = scenes[sc].kind;
    const column *c = columns_of[kind].of;
    const series *now;
    progress("%-14s %s ...", scenes[sc].name, s->name);
    alarm((unsigned)(120 + 18 * opt.seconds + opt.crowd / 500.0));
    switch (kind) {
    case LOAD:     scene_load(sc, s);     break;
    case IDLE:     scene_idle(sc, s);     break;
    case HEADS:
    case READERS:  scene_beside(sc, s);   break;
    case BLOCKING: scene_blocking(sc, s); break;
    case CALLS:    scene_calls(sc, s);    break;
    case HTTP2:    scene_h2(sc, s);       break;
    case SOCKETS:  scene_sockets(sc, s);  break;
#ifdef EVENTMPM_TLS_BEARSSL
    case SECURE:   scene_secure(sc, s);   break;
    case STALLED:  scene_stalled(sc, s);  break;
#endif
    default:                              break;
    }
    alarm(0);
    if ((now = find_series(sc, s->kind, c->metric)) != NULL)
        progress("%-14s %-10s %.*f %s", scenes[sc].name, s->name, c->decimals,
                 now->v[now->n - 1], c->head);
}

/* ---------------------------------------------------------------------------
 * >>report -- tables, JSON, a plot
 * ------------------------------------------------------------------------- */

static char machine[400];

static void describe_machine(void)
{
    static char text[65536];
    struct utsname u;
    const char *model;
    uname(&u);
    if (slurp("/proc/cpuinfo", text, sizeof text) < 0 ||
        (model = strstr(text, "model name")) == NULL ||
        (model = strchr(model, ':')) == NULL)
        model = ": unknown";
    snprintf(machine, sizeof machine, "%.*s x %d, %s %s, %ld descriptors",
             (int)strcspn(model + 2, "\n"), model + 2, processors(), u.sysname,
             u.release, sysconf(_SC_OPEN_MAX));
}

/* Before the first figure: servers, client, machine. */
static void print_head(void)
{
    double load_average = 0;
    char date[64];
    time_t now = time(NULL);
    int i;
    strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", gmtime(&now));
    printf("%s\n%s, %s\n", command_line, machine, date);
    for (i = 0; i < SERVERS; i++)
        if (servers[i].in_use)
            printf("  %-10s %s\n", servers[i].name, servers[i].version);
    printf("%d rounds of %g s, order reversed every second time; medians; "
           "spread is (max-min)/median.\n", opt.rounds, opt.seconds);
    if (opt.processes > 0)
        printf("Servers: %d processes (h2o: threads), of %d worker threads "
               "(eventmpm, apache).\n", opt.processes, opt.workers);
    printf("Client: %d threads, on the same processors.\n", opt.threads);
    if (getloadavg(&load_average, 1) == 1 && load_average > 0.5)
        printf("NOTE: the load average is %.1f: this machine is not quiet.\n",
               load_average);
    fflush(stdout);
}

enum { CELL = 24 };

/* "12.3", or "-" where there is no number. */
static void cell(char *to, double v, int decimals)
{
    if (isnan(v))
        snprintf(to, CELL, "-");
    else if (isinf(v))
        snprintf(to, CELL, "never");
    else
        snprintf(to, CELL, "%.*f", decimals, v);
}

/* Fills the cells of a server, or of the head of the table (sv is -1). Returns
 * how many there are. */
static int fill_row(int sc, int sv, char grid[][CELL])
{
    static const int refs[2] = { NGINX, FLOOR };
    int at = 0, i, r;
    snprintf(grid[at++], CELL, "%s", sv < 0 ? "" : servers[sv].name);
    for (i = 0; i < columns_of[scenes[sc].kind].n; i++) {
        const column *c = &columns_of[scenes[sc].kind].of[i];
        const series *s = sv < 0 ? NULL : &results[sc][sv][i];
        const double v = s != NULL ? median_of(s->v, s->n) : NAN;
        double low, high;
        if (c->head == NULL)
            continue;
        if (sv < 0)
            snprintf(grid[at++], CELL, "%s", c->head);
        else
            cell(grid[at++], v, c->decimals);
        if ((c->beside & SPREAD) && opt.rounds > 1) {
            if (s != NULL)
                range_of(s, &low, &high);
            if (s == NULL || s->n < 2 || !(v > 0))
                snprintf(grid[at++], CELL, "%s", s != NULL ? "-" : "spread");
            else
                snprintf(grid[at++], CELL, "%.0f%%", 100 * (high - low) / v);
        }
        for (r = 0; r < 2; r++)
            if ((c->beside & (unsigned)(TO_NGINX << r)) &&
                find_series(sc, refs[r], c->metric) != NULL) {
                if (sv < 0)
                    snprintf(grid[at++], CELL, "/%s", servers[refs[r]].name);
                else
                    cell(grid[at++], ratio_of(sc, sv, refs[r], c->metric), 2);
            }
    }
    return at;
}

static void print_scene(int sc)
{
    enum { WIDE = 3 * MOST_COLUMNS };
    static char grid[SERVERS + 1][WIDE][CELL];
    const char *note = columns_of[scenes[sc].kind].note;
    int rows = 0, wide = 0, i, k, r;
    for (i = -1; i < SERVERS; i++)
        if (i < 0 || results[sc][i][0].n > 0)
            wide = fill_row(sc, i, grid[rows++]);
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
            printf("  %*s", k == 0 ? -width : width, grid[r][k]);
        }
        printf("\n");
    }
    if (note != NULL)
        printf("%s\n", note);
    fflush(stdout);
}

static void print_end(double seconds, double stolen_before)
{
    double stolen;
    int i, told = 0;
    printf("\n");
    for (i = 0; i < SERVERS; i++)
        if (servers[i].in_use && servers[i].reply_bytes > 0)
            printf("%s%s %d", told++ ? ", " : "bytes of a hello reply: ",
                   servers[i].name, servers[i].reply_bytes);
    cpu_of_machine(&stolen);
    printf("\n%.0f s in all. Other programs used more than a tenth of a "
           "processor in %d of %d measurements\n(at most %.2f). The hypervisor "
           "took %.1f %% of a processor.\n", seconds, disturbed, windows,
           most_disturbed, (stolen - stolen_before) / seconds / 1e7);
    if (disturbed * 10 > windows)
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

static void json_series(FILE *f, int sc, int sv, const column *c,
                        const series *s)
{
    int k;
    fprintf(f, "\n    { \"scene\": \"%s\", \"server\": \"%s\", "
               "\"metric\": \"%s\", \"median\": ",
            scenes[sc].name, servers[sv].name, c->metric);
    json_number(f, median_of(s->v, s->n));
    fputs(", \"rounds\": [", f);
    for (k = 0; k < s->n; k++) {
        fputs(k > 0 ? ", " : "", f);
        json_number(f, s->v[k]);
    }
    fputs("] }", f);
}

static void write_json(const char *path)
{
    FILE *f = fopen(path, "w");
    const char *comma = "";
    int sc, i, k;
    if (f == NULL)
        die("%s: %s", path, strerror(errno));
    fputs("{\n  \"command\": ", f);
    json_string(f, command_line);
    fputs(",\n  \"machine\": ", f);
    json_string(f, machine);
    fprintf(f,
            ",\n  \"time\": %ld,\n  \"rounds\": %d,\n  \"seconds\": %g,\n"
            "  \"processes\": %d,\n  \"workers\": %d,\n  \"threads\": %d,\n"
            "  \"servers\": {",
            (long)time(NULL), opt.rounds, opt.seconds, opt.processes,
            opt.workers, opt.threads);
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
    comma = "";
    for (sc = 0; sc < SCENES; sc++)
        for (i = 0; i < SERVERS; i++)
            for (k = 0; k < columns_of[scenes[sc].kind].n; k++)
                if (results[sc][i][k].n > 0) {
                    fputs(comma, f);
                    json_series(f, sc, i, &columns_of[scenes[sc].kind].of[k],
                                &results[sc][i][k]);
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

static const char *const colors[SERVERS] = {
    "#c8401e", "#9a9a9a", "#2f7d4f", "#4a6fb3", "#b08a2e",
    "#7a5195"
};

/* A bar of v/top of the height, its line from low to high, and its figure. */
static void draw_bar(FILE *f, const panel *p, const series *s, int sv, int x,
                     int wide, int base, double scale)
{
    const double v = greater(median_of(s->v, s->n), 0);
    const double middle = x + (wide - 3) / 2.0;
    double low, high;
    char told[CELL];
    range_of(s, &low, &high);
    high = base - greater(high, 0) * scale;
    low = base - greater(low, 0) * scale;
    cell(told, v / p->unit, p->decimals);
    fprintf(f, "<rect x=\"%d\" y=\"%.1f\" width=\"%d\" height=\"%.1f\" "
               "fill=\"%s\"/>\n", x, base - v * scale, wide - 3, v * scale,
            colors[sv]);
    fprintf(f, "<path d=\"M%.1f %.1fV%.1f\" stroke=\"#000\"/>\n"
               "<text x=\"%.1f\" y=\"%.1f\" font-size=\"10\" "
               "text-anchor=\"middle\">%s</text>\n", middle, high, low, middle,
            high - 4, told);
}

/* Draws one panel with its top at y; returns its height, 0: nothing to show. */
static int draw_panel(FILE *f, const panel *p, int y)
{
    enum { WIDTH = 860, HEIGHT = 150, LEFT = 10, MOST = 5 };
    const series *of[MOST][SERVERS];
    const int base = y + 40 + HEIGHT;
    double top = 0, low, high;
    int groups = 0, bars = 0, x = LEFT + 12, i, k, wide;
    memset(of, 0, sizeof of);
    for (k = 0; p->scenes[k] != NULL; k++)
        for (i = 0, groups++; i < SERVERS; i++) {
            const series *s = find_series(scene_named(p->scenes[k]), i,
                                          p->metric);
            if (s == NULL || isnan(median_of(s->v, s->n)))
                continue;
            of[k][i] = s;
            bars++;
            range_of(s, &low, &high);
            top = greater(top, high);
        }
    if (bars == 0 || top <= 0)
        return 0;
    fprintf(f, "<text x=\"%d\" y=\"%d\" font-size=\"13\" "
               "font-weight=\"bold\">%s</text>\n"
               "<path d=\"M%d %dH%d\" stroke=\"#444\"/>\n", LEFT, y + 14,
            p->title, LEFT, base, WIDTH - LEFT);
    wide = (WIDTH - 2 * LEFT - groups * 24) / (bars > groups * 2 ? bars
                                                                 : groups * 2);
    wide = wide > 44 ? 44 : wide;
    for (k = 0; k < groups; k++) {
        const int began = x;
        for (i = 0; i < SERVERS; i++)
            if (of[k][i] != NULL) {
                draw_bar(f, p, of[k][i], i, x, wide, base, HEIGHT / top);
                x += wide;
            }
        if (x == began)
            continue;
        fprintf(f, "<text x=\"%d\" y=\"%d\" font-size=\"11\" "
                   "text-anchor=\"middle\">%s</text>\n", (began + x) / 2,
                base + 16, p->scenes[k]);
        x += 24;
    }
    return HEIGHT + 80;
}

/* The colors, above the first panel. */
static void draw_legend(FILE *f)
{
    int i, x = 10;
    for (i = 0; i < SERVERS; i++)
        if (servers[i].in_use) {
            fprintf(f, "<rect x=\"%d\" y=\"10\" width=\"11\" height=\"11\" "
                       "fill=\"%s\"/><text x=\"%d\" y=\"20\" "
                       "font-size=\"12\">%s</text>\n", x, colors[i], x + 16,
                    servers[i].name);
            x += 36 + 8 * (int)strlen(servers[i].name);
        }
}

static void write_plot(const char *path)
{
    char *body = NULL;
    size_t len = 0, i;
    FILE *f = open_memstream(&body, &len);
    int y = 40;
    if (f == NULL)
        die("out of memory");
    draw_legend(f);
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
 * >>main -- options, rounds
 * ------------------------------------------------------------------------- */

static const char usage[] =
    "bench [options]     this server and the floor, the short set of scenes\n"
    "bench --compare     nginx, Apache, lighttpd and h2o as well, all scenes\n"
    "\n"
    "  --rounds N        3; with --compare: 5\n"
    "  --seconds S       per measurement: 1; with --compare: 2\n"
    "  --scenes A,B      beginnings of names: hello,file-4k\n"
    "  --servers A,B     eventmpm, floor, nginx, apache, lighttpd, h2o\n"
    "  --set 'Name V'    a directive of eventmpm.h, spelt as Apache does\n"
    "  --processes N     2; 0: eventmpm and Apache out of the box\n"
    "  --workers N       threads per process of eventmpm and Apache: 32\n"
    "  --threads N       of the client: 2\n"
    "  --timeout MS      a reply that takes longer is an error: 5000\n"
    "  --crowd N         idle connections: 15000, fewer if descriptors lack\n"
    "  --json FILE       all rounds of everything\n"
    "  --plot FILE.svg   the comparison, drawn\n"
    "\n"
    "bench --serve PORT --dir DIR, bench --serve-floor PORT: its own servers,\n"
    "for other tools.\n";

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
    return scenes[sc].set == SHORT || (opt.compare && scenes[sc].set == FULL);
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
    return rounds;
}

/* All rounds of one scene: everybody is started, measured in turns, stopped. */
static void play(int sc)
{
    const scene *w = &scenes[sc];
    int i, r, n = 0, who[SERVERS], count;
    const int rounds = rounds_of(sc, &count), first = steps_done;
    with_tls = w->kind == SECURE || w->kind == STALLED;
    with_h2 = w->kind == HTTP2;
    if (with_tls && access(string("%s/cert.pem", tmp_dir), R_OK) != 0 &&
        system(string(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
            "-nodes -keyout %s/cert.key -out %s/cert.pem -days 30 -subj "
            "/CN=localhost 2>/dev/null && chmod 644 %s/cert.key",
            tmp_dir, tmp_dir, tmp_dir)) != 0) {
        printf("%s is left out: openssl makes no certificate.\n", w->name);
        return;
    }
    if (w->who == PHP && !php_start()) {
        printf("%s is left out: no PHP-FPM that starts.\n", w->name);
        php_stop();
        return;
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
            } else if ((w->kind == IDLE || with_h2) && r > 0)
                server_stop(s);       /* the last crowd's memory is still his */
            if (is_gone(s->pid) && !server_start(s, w->close))
                continue;
            run_scene(sc, s);
        }
    steps_done = first + count;
    for (i = 0; i < n; i++)
        server_stop(&servers[who[i]]);
    php_stop();
    print_scene(sc);
}

/* The options, with the kind of value that each takes: 'f' none, 'i' an int,
 * 'd' a double, 's' text, '+' text, again and again. */
static int         serve_port = -1, floor_port = -1, only_help;
static const char *serve_dir = ".";

static const struct { const char *name; char takes; void *to; } options[] = {
    { "--compare", 'f', &opt.compare },
    { "--help", 'f', &only_help },           { "--close", 'f', &opt.close },
    { "--rounds", 'i', &opt.rounds },        { "--seconds", 'd', &opt.seconds },
    { "--scenes", 's', &opt.scenes },        { "--servers", 's', &opt.servers },
    { "--set", '+', opt.set },
    { "--processes", 'i', &opt.processes },  { "--workers", 'i', &opt.workers },
    { "--threads", 'i', &opt.threads },      { "--plot", 's', &opt.plot },
    { "--crowd", 'i', &opt.crowd },
    { "--timeout", 'i', &opt.timeout_ms },   { "--json", 's', &opt.json },
    { "--dir", 's', &serve_dir },            { "--serve", 'i', &serve_port },
    { "--serve-floor", 'i', &floor_port }
};

/* Takes the value of one option. */
static void take_option(const char *name, char takes, void *to,
                        const char *value)
{
    char *end;
    double v;
    if (takes == '+') {
        if (opt.nset == MAX_SETTINGS)
            die("too many --set");
        opt.set[opt.nset++] = value;
        return;
    }
    if (takes == 's') {
        *(const char **)to = value;
        return;
    }
    v = strtod(value, &end);
    if (*end != '\0' || end == value || !(v >= 0 && v <= 1e8))
        die("%s wants a number, not '%s'", name, value);
    if (takes == 'i')
        *(int *)to = (int)v;
    else
        *(double *)to = v;
}

static void parse_options(int argc, char **argv)
{
    size_t k, n = 0;
    int i;
    for (i = 0; i < argc && n < sizeof command_line - 3; i++)
        n += (size_t)snprintf(command_line + n, sizeof command_line - n,
                              strchr(argv[i], ' ') ? "%s'%s'" : "%s%s",
                              i > 0 ? " " : "", argv[i]);
    for (i = 1; i < argc; i++) {
        for (k = 0; k < COUNT(options); k++)
            if (strcmp(options[k].name, argv[i]) == 0)
                break;
        if (k == COUNT(options))
            die("%s: no such option, see --help", argv[i]);
        if (options[k].takes == 'f')
            *(int *)options[k].to = 1;
        else if (++i == argc)
            die("%s needs a value", argv[i - 1]);
        else
            take_option(argv[i - 1], options[k].takes, options[k].to, argv[i]);
    }
}

/* Defaults that depend on others; options that make no sense together. */
static void check_options(void)
{
    const char *word;
    size_t n;
    int i;
    for (word = opt.scenes; word != NULL && *word != '\0';
         word += n, word += *word == ',') {
        n = strcspn(word, ",");
        for (i = 0; i < SCENES && strncmp(word, scenes[i].name, n) != 0; i++)
            ;
        if (i == SCENES)
            die("--scenes %s: no such scene, see --help", word);
    }
    if (opt.threads <= 0)
        opt.threads = 2;
    if (opt.rounds <= 0)
        opt.rounds = opt.compare ? 5 : 3;
    if (opt.rounds > MAX_ROUNDS)
        opt.rounds = MAX_ROUNDS;
    if (opt.seconds <= 0)
        opt.seconds = opt.compare ? 2 : 1;
    if (opt.workers < 1 || opt.crowd < 300 || opt.timeout_ms < 1)
        die("a number makes no sense");
}

static int help(void)
{
    int i;
    printf("%s\nscenes, * in the short set:\n", usage);
    for (i = 0; i < SCENES; i++)
        printf("  %-12s %c %s\n", scenes[i].name, " *"[scenes[i].set],
               scenes[i].title);
    return 0;
}

/* Signals, the end, whose children are ours: before the first server. */
static void prepare(void)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGALRM };
    struct sigaction sa;
    size_t i;
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    memset(&sa, 0, sizeof sa);
    sigemptyset(&sa.sa_mask);
    sa.sa_handler = on_signal;
    for (i = 0; i < COUNT(signals); i++)
        sigaction(signals[i], &sa, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    atexit(clean_up);
    describe_machine();
    make_folder();
    find_servers();
}

int main(int argc, char **argv)
{
    const uint64_t began = now_ns();
    double stolen;
    int i, count;
    cpu_of_machine(&stolen);
    opt.processes = 2;
    opt.workers = 32;
    opt.timeout_ms = 5000;
    opt.crowd = 15000;
    parse_options(argc, argv);
    check_options();
    tree_of(getpid(), &inherited);
    if (only_help)
        return help();
    signal(SIGPIPE, SIG_IGN);
    raise_limits();
    if (serve_port >= 0)
        return serve_this(serve_port, serve_dir);
    if (floor_port >= 0)
        return serve_floor(floor_port);
    prepare();
    print_head();
    for (i = 0; i < SCENES; i++)
        if (is_wanted(i)) {
            rounds_of(i, &count);
            steps += count;
        }
    for (i = 0; i < SCENES; i++)
        if (is_wanted(i))
            play(i);
    print_end((double)(now_ns() - began) / 1e9, stolen);
    if (opt.json != NULL)
        write_json(opt.json);
    if (opt.plot != NULL)
        write_plot(opt.plot);
    return failures > 0;
}
