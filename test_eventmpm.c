/* test_eventmpm.c - the tests of eventmpm.h: from inside and over real sockets
 *
 *     cc -g test_eventmpm.c -o test && ./test          everything but the long
 *     ./test conn files.range                          what these words pick
 *     ./test -l                                        the names
 *     ./test long                                      the long ones
 *     ./test all -v                                    all, each with its time
 *     ./test -d conn.keep_alive                        with the server's log
 *
 * One binary has one poller: build a second one with -DEVENTMPM_POLL. A test
 * that says SERVED or LIVE runs twice, against the engine as threads of this
 * process and (its name ends in "+fork") against a forked server.
 *
 * `grep -n '^ \* >>' test_eventmpm.c` prints the contents.
 *
 * How to write a test: this one is whole.
 *
 *     // A client is greeted by its name, and its connection stays open.
 *     SERVED(conn, greets_by_name, "KeepAliveTimeout 2; ThreadsPerChild 1")
 *     {
 *         CHECK_INT(cl_get(c, "/hello/you"), 200);
 *         CHECK_STR(c->body.p, "Hello, you!\n");
 *         CHECK_OPEN(c);
 *     }
 *
 * Its comment says the rule, its first word the section: that of eventmpm.h.
 * SERVED() brings a server f and a client c (>>fixture), TEST() nothing; the
 * server serves >>handlers. A CHECK that fails goes on. Rows of a table are
 * looped over by EACH(). See a new test fail on a broken header first.
 */
#include <stddef.h>

/* The allocator of the header under test: counts, and fails when told to. */
static void *test_malloc(size_t n);
static void *test_realloc(void *p, size_t n);
static void  test_free(void *p);
#define EMPM_MALLOC(n)     test_malloc(n)
#define EMPM_REALLOC(p, n) test_realloc(p, n)
#define EMPM_FREE(p)       test_free(p)

/* A connection that enters a state has what the state is about. */
#define EMPM__CHECKS

/* Sanitizers make frames larger. */
#define EMPM__STACK_LEAST 65536

/* Files are kept at once, and for half a second. */
#define EMPM__FILE_REST_S  -5
#define EMPM__FILE_KEEP_MS 500

/* Few generations: a test fills them all. */
#define EMPM_GENERATIONS 2

/* Lines of an access log gather for so long. */
#define EMPM__LINES_MS 150

#ifndef _FILE_OFFSET_BITS
#  define _FILE_OFFSET_BITS 64      /* as the header has it: it comes later */
#endif
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#  include <sys/mount.h>
#  include <sys/prctl.h>
#  include <sys/ptrace.h>
#endif

/* ---------------------------------------------------------------------------
 * >>faulty -- the C library of the header under test: it fails when told to
 *
 * The header's calls pass through the macros below, those of the tests and of
 * the handlers do not. The plan lies in shared memory, so the n-th call of all
 * processes together can be picked. The tests are in >>faults.
 * ------------------------------------------------------------------------- */

#include <glob.h>
#include <grp.h>
#include <netdb.h>
#include <pwd.h>
#include <sys/ioctl.h>
#ifdef __linux__
#  include <sys/epoll.h>
#  include <sys/eventfd.h>
#  include <sys/sendfile.h>
#  include <sys/syscall.h>
#endif

/* What can fail, and how: a call, and the errors that it is made to fail with.
 * The first one is what happens in life; 0 ends. */
static const struct fault_call {
    const char *call;
    int         error[8];
} fault_calls[] = {
    { "accept",         { EMFILE, ENOBUFS } },
    { "accept4",        { EMFILE, ENOMEM, ECONNABORTED, EINTR, EPERM, EINVAL,
                          EPROTO } },
    { "bind",           { EADDRINUSE, EACCES, EADDRNOTAVAIL } },
    { "chdir",          { EACCES } },
    { "chmod",          { EPERM } },
    { "chroot",         { EPERM } },
    { "connect",        { ECONNREFUSED, EAGAIN } },
    { "epoll_create1",  { EMFILE, ENOMEM } },
    { "epoll_ctl",      { ENOSPC, ENOMEM, EINVAL } },
    { "epoll_wait",     { EINTR, EINVAL, EBADF } },
    { "eventfd",        { EMFILE, ENOMEM } },
    { "faccessat",      { EACCES } },
    { "fchmod",         { EPERM } },
    { "fcntl",          { EBADF } },
    { "flock",          { ENOLCK } },
    { "fork",           { EAGAIN, ENOMEM } },
    { "fstat",          { EIO, EOVERFLOW } },
    { "ftruncate",      { EIO } },
    { "getpeername",    { ENOBUFS } },
    { "getpwnam",       { EMFILE } },
    { "getrlimit",      { EINVAL } },
    { "getsockname",    { ENOBUFS } },
    { "getsockopt",     { ENOBUFS } },
    { "initgroups",     { EPERM, ENOMEM } },
    { "ioctl",          { ENOTTY } },
    { "kill",           { EPERM } },
    { "listen",         { EADDRINUSE } },
    { "lstat",          { EACCES } },
    { "malloc",         { ENOMEM } },
    { "mmap",           { ENOMEM } },
    { "mprotect",       { ENOMEM } },
    { "open",           { EMFILE, EACCES, EIO } },
    { "openat",         { EMFILE, ENOSPC, EOPNOTSUPP } },
    { "openat2",        { EMFILE, ENOSYS, EAGAIN } },
    { "pipe",           { EMFILE } },
    { "poll",           { ENOMEM, EINTR } },
    { "poll-few",       { EINTR } },    /* they need no memory */
    { "prctl",          { EINVAL } },
    { "pread",          { EIO, EINTR } },
    { "pthread_attr_init",         { ENOMEM } },
    { "pthread_attr_setstacksize", { EINVAL } },
    { "pthread_cond_init",         { ENOMEM } },
    { "pthread_create",            { EAGAIN } },
    { "pthread_mutex_init",        { ENOMEM } },
    { "pwrite",         { ENOSPC, EIO, EINTR } },
    { "read",           { EIO, EINTR } },
    { "read-pipe",      { EINTR, EAGAIN } },
    { "recv",           { ECONNRESET, EINTR, ENOMEM } },
    { "recvmsg",        { ENOBUFS, EINTR } },
    { "rename",         { EACCES } },
    { "send",           { ECONNRESET, EPIPE, EINTR, ENOBUFS } },
    { "sendfile",       { EIO, EINVAL, EINTR, ENOMEM } },
    { "sendmsg",        { ENOBUFS, ECONNRESET, EPIPE, EINTR } },
    { "sendto",         { ECONNREFUSED } },
    { "setgid",         { EPERM } },
    { "setsockopt",     { ENOMEM, EINVAL } },
    { "setuid",         { EAGAIN, EPERM } },
    { "socket",         { EMFILE, EACCES } },
    { "socketpair",     { EMFILE } },
    { "stat",           { EIO, EACCES } },
    { "unlink",         { EACCES } },
    { "waitpid",        { ECHILD, EINTR } },
    { "write",          { ENOSPC, EIO, EINTR } }
};
enum { FAULT_CALLS = sizeof fault_calls / sizeof fault_calls[0] };

enum { FAULTS_OFF, FAULTS_COUNT, FAULTS_FAIL };

typedef struct fault_plan {
    int   state;                    /* atomic, as all numbers are */
    pid_t tests;                    /* nothing fails in this process */
    int   call;                     /* what fails: of fault_calls */
    int   nth;                      /* ... from 1 on; 0: each time */
    int   error;
    int   hits;
    int   calls[FAULT_CALLS];       /* how often, so far */
} fault_plan;

/* NULL: nothing fails, nothing is counted */
static fault_plan *g_faults;

/* 1: this call shall fail; errno says why. */
static int fault_at(const char *call)
{
    int state, i, n;

    if (g_faults == NULL || call == NULL)
        return 0;
    state = __atomic_load_n(&g_faults->state, __ATOMIC_ACQUIRE);
    if (state == FAULTS_OFF || getpid() == g_faults->tests)
        return 0;
    for (i = 0; i < FAULT_CALLS && strcmp(fault_calls[i].call, call) != 0; i++)
        continue;
    if (i == FAULT_CALLS)
        abort();                    /* a call without a row above */
    n = __atomic_add_fetch(&g_faults->calls[i], 1, __ATOMIC_RELAXED);
    if (state == FAULTS_COUNT || i != g_faults->call ||
        (g_faults->nth != 0 && g_faults->nth != n))
        return 0;
    __atomic_add_fetch(&g_faults->hits, 1, __ATOMIC_RELAXED);
    errno = g_faults->error;
    return 1;
}

static int fault_fails(void) { return -1; }
static int fault_error(void) { return g_faults->error; }
static struct passwd *fault_nobody(void) { return NULL; }
static void *fault_no_map(void) { return MAP_FAILED; }

/* What happens to files does not happen to pipes and the like. */
static int fault_is_file(int fd)
{
    struct stat st;

    return g_faults != NULL && g_faults->state != FAULTS_OFF &&
           fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

#ifdef __linux__
static const char *fault_syscall(long number)
{
    switch (number) {
    case 437:
        return "openat2";
    case SYS_accept4:
        return "accept4";
    default:
        return NULL;
    }
}
#endif

/* The header calls a function of its own by this name, too, with one
 * argument. */
static int fault_listen(int fd, int backlog)
{
    return fault_at("listen") ? fault_fails() : listen(fd, backlog);
}

/* Two names that it gives to members, too: these rename both. */
static ssize_t fault_recv(int fd, void *to, size_t n, int flags)
{
    return fault_at("recv") ? fault_fails() : recv(fd, to, n, flags);
}

static ssize_t fault_send(int fd, const void *from, size_t n, int flags)
{
    return fault_at("send") ? fault_fails() : send(fd, from, n, flags);
}

#define FAULT(call, result)         (fault_at(call) ? fault_fails() : (result))
#define FAULT_CODE(call, result)    (fault_at(call) ? fault_error() : (result))

#define accept(...)         FAULT("accept", accept(__VA_ARGS__))
#define bind(...)           FAULT("bind", bind(__VA_ARGS__))
#define chdir(...)          FAULT("chdir", chdir(__VA_ARGS__))
#define chmod(...)          FAULT("chmod", chmod(__VA_ARGS__))
#define chroot(...)         FAULT("chroot", chroot(__VA_ARGS__))
#define connect(...)        FAULT("connect", connect(__VA_ARGS__))
#define epoll_create1(...)  FAULT("epoll_create1", epoll_create1(__VA_ARGS__))
#define epoll_ctl(...)      FAULT("epoll_ctl", epoll_ctl(__VA_ARGS__))
#define epoll_wait(...)     FAULT("epoll_wait", epoll_wait(__VA_ARGS__))
#define eventfd(...)        FAULT("eventfd", eventfd(__VA_ARGS__))
#define faccessat(...)      FAULT("faccessat", faccessat(__VA_ARGS__))
#define fchmod(...)         FAULT("fchmod", fchmod(__VA_ARGS__))
#define flock(...)          FAULT("flock", flock(__VA_ARGS__))
#define fork(...)           FAULT("fork", fork(__VA_ARGS__))
#define fstat(...)          FAULT("fstat", fstat(__VA_ARGS__))
#define ftruncate(...)      FAULT("ftruncate", ftruncate(__VA_ARGS__))
#define getpeername(...)    FAULT("getpeername", getpeername(__VA_ARGS__))
#define getrlimit(...)      FAULT("getrlimit", getrlimit(__VA_ARGS__))
#define getsockname(...)    FAULT("getsockname", getsockname(__VA_ARGS__))
#define getsockopt(...)     FAULT("getsockopt", getsockopt(__VA_ARGS__))
#define initgroups(...)     FAULT("initgroups", initgroups(__VA_ARGS__))
#define ioctl(...)          FAULT("ioctl", ioctl(__VA_ARGS__))
#define kill(...)           FAULT("kill", kill(__VA_ARGS__))
#define lstat(...)          FAULT("lstat", lstat(__VA_ARGS__))
#define mprotect(...)       FAULT("mprotect", mprotect(__VA_ARGS__))
#define open(...)           FAULT("open", open(__VA_ARGS__))
#define openat(...)         FAULT("openat", openat(__VA_ARGS__))
#define pipe(...)           FAULT("pipe", pipe(__VA_ARGS__))
#define poll(of, n, ms) \
    FAULT((n) > 4 ? "poll" : "poll-few", poll(of, n, ms))
#define pread(...)          FAULT("pread", pread(__VA_ARGS__))
#define prctl(...)          FAULT("prctl", prctl(__VA_ARGS__))
#define pwrite(...)         FAULT("pwrite", pwrite(__VA_ARGS__))
#define read(fd, ...) \
    FAULT(fault_is_file(fd) ? "read" : "read-pipe", read(fd, __VA_ARGS__))
#define recvmsg(...)        FAULT("recvmsg", recvmsg(__VA_ARGS__))
#define rename(...)         FAULT("rename", rename(__VA_ARGS__))
#define sendfile(...)       FAULT("sendfile", sendfile(__VA_ARGS__))
#define sendmsg(...)        FAULT("sendmsg", sendmsg(__VA_ARGS__))
#define sendto(...)         FAULT("sendto", sendto(__VA_ARGS__))
#define setgid(...)         FAULT("setgid", setgid(__VA_ARGS__))
#define setsockopt(...)     FAULT("setsockopt", setsockopt(__VA_ARGS__))
#define setuid(...)         FAULT("setuid", setuid(__VA_ARGS__))
#define socket(...)         FAULT("socket", socket(__VA_ARGS__))
#define socketpair(...)     FAULT("socketpair", socketpair(__VA_ARGS__))
#define stat(...)           FAULT("stat", stat(__VA_ARGS__))
#define unlink(...)         FAULT("unlink", unlink(__VA_ARGS__))
#define waitpid(...)        FAULT("waitpid", waitpid(__VA_ARGS__))
#define write(fd, ...) \
    FAULT(fault_is_file(fd) ? "write" : NULL, write(fd, __VA_ARGS__))
#define fcntl(...)          FAULT("fcntl", fcntl(__VA_ARGS__))
#define pthread_attr_init(...) \
    FAULT_CODE("pthread_attr_init", pthread_attr_init(__VA_ARGS__))
#define pthread_attr_setstacksize(...) \
    FAULT_CODE("pthread_attr_setstacksize", \
               pthread_attr_setstacksize(__VA_ARGS__))
#define pthread_cond_init(...) \
    FAULT_CODE("pthread_cond_init", pthread_cond_init(__VA_ARGS__))
#define pthread_create(...) \
    FAULT_CODE("pthread_create", pthread_create(__VA_ARGS__))
#define pthread_mutex_init(...) \
    FAULT_CODE("pthread_mutex_init", pthread_mutex_init(__VA_ARGS__))
#define getpwnam(...) \
    (fault_at("getpwnam") ? fault_nobody() : getpwnam(__VA_ARGS__))
#define mmap(...) (fault_at("mmap") ? fault_no_map() : mmap(__VA_ARGS__))
#define syscall(n, ...) FAULT(fault_syscall(n), syscall(n, __VA_ARGS__))
#define FAULT_PICK(a, b, name, ...) name
#define listen(...) \
    FAULT_PICK(__VA_ARGS__, fault_listen, listen, )(__VA_ARGS__)
#define recv fault_recv
#define send fault_send

/* A name with several addresses: see listen.a_name_has_all_its_addresses. */
static int  test_getaddrinfo(const char *host, const char *port,
                             const struct addrinfo *hints,
                             struct addrinfo **list);
static void test_freeaddrinfo(struct addrinfo *list);
#define getaddrinfo(host, port, hints, list) \
    test_getaddrinfo(host, port, hints, list)
#define freeaddrinfo(list) test_freeaddrinfo(list)

#define EVENTMPM_IMPLEMENTATION
#include "eventmpm.h"

#undef accept
#undef bind
#undef chdir
#undef chmod
#undef chroot
#undef connect
#undef epoll_create1
#undef epoll_ctl
#undef epoll_wait
#undef eventfd
#undef faccessat
#undef fchmod
#undef flock
#undef fork
#undef fstat
#undef freeaddrinfo
#undef ftruncate
#undef getaddrinfo
#undef getpeername
#undef getrlimit
#undef getsockname
#undef getsockopt
#undef initgroups
#undef ioctl
#undef kill
#undef listen
#undef lstat
#undef mprotect
#undef open
#undef openat
#undef pipe
#undef poll
#undef pread
#undef prctl
#undef pwrite
#undef read
#undef recvmsg
#undef rename
#undef sendfile
#undef sendmsg
#undef sendto
#undef setgid
#undef setsockopt
#undef setuid
#undef socket
#undef socketpair
#undef stat
#undef unlink
#undef waitpid
#undef write
#undef fcntl
#undef pthread_attr_init
#undef pthread_attr_setstacksize
#undef pthread_cond_init
#undef pthread_create
#undef pthread_mutex_init
#undef getpwnam
#undef mmap
#undef syscall
#undef recv
#undef send

/* ---------------------------------------------------------------------------
 * >>harness -- tests that register themselves, checks that go on
 *
 * Everything runs in one process, so that sanitizers see it. The watchdog is a
 * process of its own: it works when this one spins, and it adds no thread
 * (TSan allows no fork with threads around). After each test the harness holds
 * what every test promises: no descriptor, thread, child process or allocation
 * of the header is left over.
 * ------------------------------------------------------------------------- */

enum { T_PLAIN = 0, T_LIVE = 1, T_LONG = 2 };

typedef struct test {
    const char  *section, *name;
    void       (*fn)(void);
    int          flags;
    struct test *next;
} test;

static test  *tests_first, **tests_last = &tests_first;
static int    g_forked;             /* the fixture's mode in this run */
static int    g_failures;           /* of the running test; atomic */
static int    g_printed;            /* failures shown of this test; atomic */
static int    g_verbose;
static int    g_show_log;           /* print what the servers log */
static int    g_slow = 1;           /* times are this much longer here */
static char   g_context[256];       /* the row of the table in hand */
static const char *g_skip;          /* why the running test was skipped */
static char   g_tmp[256];           /* our directory, removed at the end */

static int is_tsan_here(void)
{
#if defined(__SANITIZE_THREAD__)
    return 1;
#elif defined(__has_feature)
#  if __has_feature(thread_sanitizer)
    return 1;
#  else
    return 0;
#  endif
#else
    return 0;
#endif
}

static void test_add(test *t, const char *section, const char *name, int flags,
                     void (*fn)(void))
{
    t->section = section;
    t->name = name;
    t->flags = flags;
    t->fn = fn;
    *tests_last = t;
    tests_last = &t->next;
}

#define TEST_WITH(section, name, flags)                                       \
    static void t_##section##_##name(void);                                   \
    static test e_##section##_##name;                                         \
    __attribute__((constructor)) static void r_##section##_##name(void)       \
    {                                                                         \
        test_add(&e_##section##_##name, #section, #name, flags,               \
                 t_##section##_##name);                                       \
    }                                                                         \
    static void t_##section##_##name(void)

/* What a test says it tests: from inside; a server, in either mode; for
 * minutes. SERVED() in >>fixture adds a server and a client. */
#define TEST(section, name)      TEST_WITH(section, name, T_PLAIN)
#define LIVE(section, name)      TEST_WITH(section, name, T_LIVE)
#define LONG(section, name)      TEST_WITH(section, name, T_LONG)

#define SKIP(why) do { g_skip = why; return; } while (0)

static void fail(const char *file, int line, const char *fmt, ...)
    EMPM__PRINTF(3, 4);
static void fail(const char *file, int line, const char *fmt, ...)
{
    va_list ap;

    __atomic_add_fetch(&g_failures, 1, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&g_printed, 1, __ATOMIC_RELAXED) > 20)
        return;
    flockfile(stdout);
    printf("%s:%d: ", file, line);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    if (g_context[0] != 0)
        printf("  [%s]", g_context);
    printf("\n");
    funlockfile(stdout);
}

static void context(const char *fmt, ...) EMPM__PRINTF(1, 2);
static void context(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(g_context, sizeof g_context, fmt, ap);
    va_end(ap);
}

static void no_context(void)
{
    g_context[0] = 0;
}

/* Goes over the rows of a table. A check that fails names its row, by number
 * or by what the body gives to context(). */
#define EACH(rows, i)                                                         \
    for (size_t i = 0; each_row(#rows, i, sizeof rows / sizeof rows[0]); i++)

static int each_row(const char *rows, size_t i, size_t n)
{
    if (i < n)
        context("%s[%d]", rows, (int)i);
    else
        no_context();
    return i < n;
}

static int check_int(const char *file, int line, const char *what,
                     long long got, long long want)
{
    if (got == want)
        return 1;
    fail(file, line, "%s is %lld, not %lld", what, got, want);
    return 0;
}

static int check_str(const char *file, int line, const char *what,
                     const char *got, const char *want)
{
    if (got != NULL && want != NULL && strcmp(got, want) == 0)
        return 1;
    fail(file, line, "%s is \"%.200s\", not \"%.200s\"", what,
         got ? got : "(null)", want ? want : "(null)");
    return 0;
}

static int check_true(const char *file, int line, const char *what, int ok)
{
    if (!ok)
        fail(file, line, "not so: %s", what);
    return ok;
}

/* Between lo and hi, for times: prints all three. */
static int check_in(const char *file, int line, const char *what, long long got,
                    long long lo, long long hi)
{
    if (got >= lo && got <= hi)
        return 1;
    fail(file, line, "%s is %lld, not from %lld to %lld", what, got, lo, hi);
    return 0;
}

#define CHECK(cond)          check_true(__FILE__, __LINE__, #cond, \
                                        (cond) ? 1 : 0)
#define CHECK_INT(got, want) check_int(__FILE__, __LINE__, #got, \
                                       (long long)(got), (long long)(want))
#define CHECK_STR(got, want) check_str(__FILE__, __LINE__, #got, got, want)
#define CHECK_IN(got, lo, hi) check_in(__FILE__, __LINE__, #got, \
                                       (long long)(got), (long long)(lo), \
                                       (long long)(hi))

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/* A step of bounded polling, and the handlers' way to be slow. */
static void nap(int ms)
{
    poll(NULL, 0, ms);
}

/* What should happen soon: looked at until it has or `ms` (scaled) is over. */
#define CHECK_SOON(cond, ms)                                                  \
    do {                                                                      \
        uint64_t soon_end = now_ms() + (uint64_t)(ms) * (uint64_t)g_slow;     \
        int soon_ok;                                                          \
        while (!(soon_ok = (cond) ? 1 : 0) && now_ms() < soon_end)            \
            nap(1);                                                           \
        check_true(__FILE__, __LINE__, #cond " (in time)", soon_ok);          \
    } while (0)

/* Upper bounds. At once: no timeout of the server can have been involved. */
#define SCALED(ms)  ((ms) * g_slow)
#define AT_ONCE     SCALED(400)
#define PATIENCE    SCALED(8000)

static int get_int(int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static void set_int(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static int add_int(int *p, int v)
{
    return __atomic_add_fetch(p, v, __ATOMIC_ACQ_REL);
}

/* --- the allocator ------------------------------------------------------- */

static int a_calls;                 /* mallocs and reallocs so far */
static int a_live;                  /* blocks not yet freed */
/* > 0: the so many-th call from now fails */
static int a_fail_at;
static int a_failed;                /* calls that were made to fail */

static int alloc_fails(void)
{
    add_int(&a_calls, 1);
    if (get_int(&a_fail_at) > 0 && add_int(&a_fail_at, -1) == 0) {
        add_int(&a_failed, 1);
        return 1;
    }
    return fault_at("malloc");
}

static void *test_malloc(size_t n)
{
    void *p;

    if (alloc_fails())
        return NULL;
    p = malloc(n);
    if (p != NULL)
        add_int(&a_live, 1);
    return p;
}

static void *test_realloc(void *p, size_t n)
{
    void *q;

    if (alloc_fails())
        return NULL;
    q = realloc(p, n);
    if (q != NULL && p == NULL)
        add_int(&a_live, 1);
    return q;
}

static void test_free(void *p)
{
    if (p != NULL)
        add_int(&a_live, -1);
    free(p);
}

/* --- text that grows ----------------------------------------------------- */

typedef struct str {
    char  *p;
    size_t n, cap;
    size_t dropped;              /* bytes before p that are no longer of it */
} str;

#define STR_EMPTY { NULL, 0, 0, 0 }

static void str_add(str *s, const void *data, size_t n)
{
    if (s->n + n + 1 > s->cap) {
        size_t cap = (s->n + n + 1) * 2;
        char *p = (char *)malloc(cap);
        if (p == NULL)
            abort();
        if (s->n != 0)
            memcpy(p, s->p, s->n);
        if (s->p != NULL)
            free(s->p - s->dropped);
        s->p = p;
        s->cap = cap;
        s->dropped = 0;
    }
    if (n != 0)
        memcpy(s->p + s->n, data, n);
    s->n += n;
    s->p[s->n] = 0;
}

static void str_addf(str *s, const char *fmt, ...) EMPM__PRINTF(2, 3);
static void str_addf(str *s, const char *fmt, ...)
{
    char line[4096];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (n > 0)
        str_add(s, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

static void str_fill(str *s, char ch, size_t n)
{
    while (n-- != 0)
        str_add(s, &ch, 1);
}

/* Takes n bytes off the front. */
static void str_drop(str *s, size_t n)
{
    s->p += n;
    s->n -= n;
    s->cap -= n;
    s->dropped += n;
}

static void str_free(str *s)
{
    if (s->p != NULL)
        free(s->p - s->dropped);
    memset(s, 0, sizeof *s);
}

/* --- what the system says about a process -------------------------------- */

static int count_dir(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;
    int n = 0;

    if (d == NULL)
        return -1;
    while ((e = readdir(d)) != NULL)
        if (e->d_name[0] != '.')
            n++;
    closedir(d);
    return n;
}

static int open_fds(void) { return count_dir("/proc/self/fd"); }
static int have_proc(void) { return access("/proc/self/stat", R_OK) == 0; }
static int threads_now(void) { return count_dir("/proc/self/task"); }

/* Fields of /proc/PID/stat after the name: 0 state, 1 ppid, 11 utime, 12
 * stime */
static int proc_stat(long pid, long long *field, int n)
{
    char path[64], text[1024], *p;
    FILE *f;
    size_t got;
    int i;

    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    f = fopen(path, "r");
    if (f == NULL)
        return -1;
    got = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[got] = 0;
    p = strrchr(text, ')');
    if (p == NULL || p[1] == 0)
        return -1;
    p += 2;
    field[0] = (unsigned char)*p;
    p++;
    for (i = 1; i < n; i++)
        field[i] = strtoll(p, &p, 10);
    return 0;
}

static void status_line(long pid, const char *name, char *out, size_t n)
{
    char path[64], line[256];
    FILE *f;

    out[0] = 0;
    snprintf(path, sizeof path, "/proc/%ld/status", pid);
    f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            snprintf(out, n, "%s", line);
    if (f != NULL)
        fclose(f);
}

/* The mask of signals in a line of /proc/PID/status. */
static unsigned long long signals_in(const char *text, const char *name)
{
    const char *at = strstr(text, name);

    return at != NULL ? strtoull(at + strlen(name), NULL, 16) : ~0ull;
}

/* The live children of `pid`, at most max; -1: this system cannot tell. */
static int children_of(long pid, long *out, int max)
{
    DIR *d = opendir("/proc");
    struct dirent *e;
    int n = 0;

    if (d == NULL)
        return -1;
    while ((e = readdir(d)) != NULL) {
        char *end;
        long p = strtol(e->d_name, &end, 10);
        long long st[2];
        if (p <= 0 || *end != 0 || proc_stat(p, st, 2) != 0)
            continue;
        if (st[1] == pid && st[0] != 'Z' && n < max)
            out[n++] = p;
    }
    closedir(d);
    return n;
}

static long long cpu_ms_of(long pid)
{
    long long st[13];

    if (proc_stat(pid, st, 13) != 0)
        return 0;
    return (st[11] + st[12]) * 1000 / sysconf(_SC_CLK_TCK);
}

static long long own_cpu_ms(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (long long)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000 +
           (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1000;
}

/* Context switches that the threads of `pid` asked for: its wake-ups. */
static long long wakeups_of(long pid)
{
    char path[512], line[256];
    long long sum = 0;
    struct dirent *e;
    DIR *d;

    snprintf(path, sizeof path, "/proc/%ld/task", pid);
    d = opendir(path);
    if (d == NULL)
        return -1;
    while ((e = readdir(d)) != NULL) {
        FILE *f;
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%ld/task/%.20s/status", pid,
                 e->d_name);
        f = fopen(path, "r");
        while (f != NULL && fgets(line, sizeof line, f) != NULL)
            if (strncmp(line, "voluntary_ctxt_switches:", 24) == 0)
                sum += strtoll(line + 24, NULL, 10);
        if (f != NULL)
            fclose(f);
    }
    closedir(d);
    return sum;
}

/* Every signal of a test goes through here. What is no process is a failed
 * check: kill(0) would be our own group, kill(-1) everything; a PID file that
 * is not there yet reads as 0. */
static int signal_checked(pid_t pid, int sig, int group)
{
    if (pid <= group) {
        fail(__FILE__, __LINE__, "signal %d for process %ld", sig, (long)pid);
        errno = ESRCH;
        return -1;
    }
    return kill(group ? -pid : pid, sig);
}

static int signal_process(pid_t pid, int sig)
{
    return signal_checked(pid, sig, 0);
}

static int signal_group(pid_t pid, int sig)
{
    return signal_checked(pid, sig, 1);
}

static void remove_tree(const char *path)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        return;
    if (S_ISDIR(st.st_mode)) {
        DIR *d = opendir(path);
        struct dirent *e;
        while (d != NULL && (e = readdir(d)) != NULL) {
            char below[1024];
            if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                continue;
            snprintf(below, sizeof below, "%s/%s", path, e->d_name);
            remove_tree(below);
        }
        if (d != NULL)
            closedir(d);
        rmdir(path);
    } else {
        unlink(path);
    }
}

static const char *tmp_path(char *out, size_t n, const char *name)
{
    snprintf(out, n, "%s/%s", g_tmp, name);
    return out;
}

static int write_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    size_t put;

    if (f == NULL)
        return -1;
    put = fwrite(data, 1, n, f);
    return fclose(f) == 0 && put == n ? 0 : -1;
}

/* --- the watchdog -------------------------------------------------------- */

enum { WATCH_SAYS_MS = 10000 };     /* a test that takes so long is named */

typedef struct watch {
    int  ms;                        /* 0: nothing is running */
    char name[124];
} watch;

static int g_watch_fd = -1;

static void watchdog_main(int fd, pid_t ward)
{
    watch w;
    int waited = 0;

    memset(&w, 0, sizeof w);
    for (;;) {
        struct pollfd p;
        char line[256];
        int n, len;
        p.fd = fd;
        p.events = POLLIN;
        p.revents = 0;
        n = poll(&p, 1, w.ms > 0 ? WATCH_SAYS_MS : -1);
        waited = n == 0 ? waited + WATCH_SAYS_MS : 0;
        if (n == 0 && waited < w.ms) {
            len = snprintf(line, sizeof line, "...     %s runs for %d s\n",
                           w.name, waited / 1000);
            if (len > 0 && write(1, line, (size_t)len) < 0)
                len = 0;
            continue;
        }
        if (n == 0) {
            len = snprintf(line, sizeof line,
                           "\nWATCHDOG: %s runs for %d ms: aborted\n",
                           w.name, waited);
            if (len > 0 && write(1, line, (size_t)len) < 0)
                len = 0;
            kill(ward, SIGABRT);
            nap(3000);
            kill(ward, SIGKILL);
            _exit(1);
        }
        if (n > 0 && read(fd, &w, sizeof w) != (ssize_t)sizeof w)
            _exit(0);
    }
}

static void watchdog_start(void)
{
    int p[2];
    pid_t ward = getpid(), pid;

    if (getenv("EMPM_TEST_NO_WATCHDOG") != NULL || pipe(p) != 0)
        return;
    pid = fork();
    if (pid == 0) {
        close(p[1]);
        signal(SIGINT, SIG_IGN);    /* ours ends with the pipe */
        watchdog_main(p[0], ward);
    }
    close(p[0]);
    g_watch_fd = p[1];
    fcntl(g_watch_fd, F_SETFD, FD_CLOEXEC);
}

static void watchdog_set(const char *name, int ms)
{
    watch w;

    memset(&w, 0, sizeof w);
    w.ms = ms;
    snprintf(w.name, sizeof w.name, "%s", name);
    if (g_watch_fd >= 0 && write(g_watch_fd, &w, sizeof w) != (ssize_t)sizeof w)
        g_watch_fd = -1;
}

/* ---------------------------------------------------------------------------
 * >>client -- a small HTTP client that trusts nobody
 *
 * It takes what the server sends apart as strictly as the server should take
 * the client's requests; whatever is wrong with any reply of any test is a
 * failed check. Every wait has a deadline.
 * ------------------------------------------------------------------------- */

enum { CL_FIN = 1, CL_RESET = 2, CL_TIMEOUT = 3, CL_DATA = 4 };

typedef struct client {
    int     fd;                     /* -1: not connected */
    int     port;                   /* where the next byte sent connects to */
    int     end;                    /* 0, CL_FIN, CL_RESET */
    int     patience;               /* ms that reading a reply may take */
    int     send_failed;
    str     in;                     /* received, not used yet */
    /* the last reply */
    int     status, minor;
    int     complete;               /* the body is all there */
    int     chunked;
    int     closes;                 /* says Connection: close */
    int64_t declared;               /* Content-Length, or -1 */
    str     head, body, trailer;
    char    value[1024];            /* what cl_header() found */
} client;

static void cl_init(client *c)
{
    memset(c, 0, sizeof *c);
    c->fd = -1;
    c->patience = PATIENCE;
}

static void cl_close(client *c)
{
    int port = c->port;

    if (c->fd >= 0)
        close(c->fd);
    str_free(&c->in);
    str_free(&c->head);
    str_free(&c->body);
    str_free(&c->trailer);
    cl_init(c);
    c->port = port;
}

static void cl_close_all(client *c, int n)
{
    while (n-- > 0)
        cl_close(&c[n]);
}

/* Closes with a reset, as a client that crashes or has lost patience. */
static void cl_reset(client *c)
{
    struct linger l;

    l.l_onoff = 1;
    l.l_linger = 0;
    if (c->fd >= 0)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    cl_close(c);
}

static int cl_connect_port(client *c, int port, int rcvbuf)
{
    struct sockaddr_in a;
    int one = 1, mss = 1400;

    (void)mss;
    cl_init(c);
    c->port = port;
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_port = htons((uint16_t)port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0)
        return -1;
    fcntl(c->fd, F_SETFD, FD_CLOEXEC);
    if (rcvbuf > 0) {
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf);
#ifdef TCP_MAXSEG
        /* as on a real network: one loopback segment could exceed the buffer,
         * be dropped, and wait for its retransmission */
        setsockopt(c->fd, IPPROTO_TCP, TCP_MAXSEG, &mss, sizeof mss);
#endif
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(c->fd);
        c->fd = -1;
        return -1;
    }
    return 0;
}

/* The first byte that a client sends connects it, and so does the first byte
 * after cl_close(). */
static void cl_connected(client *c)
{
    if (c->fd < 0 && cl_connect_port(c, c->port, 0) != 0)
        fail(__FILE__, __LINE__, "connect: %s", strerror(errno));
}

/* Sends all of it; gives up when the peer refuses or takes nothing. */
static int cl_send(client *c, const void *data, size_t n)
{
    const char *p = (const char *)data;
    uint64_t end = now_ms() + (uint64_t)c->patience;

    cl_connected(c);
    while (n != 0) {
        ssize_t k = send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k > 0) {
            p += k;
            n -= (size_t)k;
            continue;
        }
        if (k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) &&
            now_ms() < end) {
            struct pollfd w;
            w.fd = c->fd;
            w.events = POLLOUT;
            w.revents = 0;
            poll(&w, 1, 50);
            continue;
        }
        if (k < 0 && errno == EINTR)
            continue;
        c->send_failed = 1;
        return -1;
    }
    return 0;
}

static int cl_puts(client *c, const char *text)
{
    return cl_send(c, text, strlen(text));
}

static int cl_printf(client *c, const char *fmt, ...) EMPM__PRINTF(2, 3);
static int cl_printf(client *c, const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return n < 0 || (size_t)n >= sizeof text ? -1 : cl_send(c, text, (size_t)n);
}

static void cl_shut(client *c)
{
    shutdown(c->fd, SHUT_WR);
}

/* The bytes and the FIN in one segment, where the system lets us. */
static void cl_send_fin(client *c, const void *data, size_t n)
{
#ifdef TCP_CORK
    int on = 1;
    cl_connected(c);
    setsockopt(c->fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
#endif
    cl_send(c, data, n);
    cl_shut(c);
}

/* Waits for more input. Returns > 0, 0 at the end (see c->end), -1: too
 * late. */
static int cl_fill(client *c, uint64_t end)
{
    char buf[65536];

    for (;;) {
        struct pollfd w;
        ssize_t k;
        uint64_t now;
        if (c->end != 0)
            return 0;
        k = recv(c->fd, buf, sizeof buf, MSG_DONTWAIT);
        if (k > 0) {
            str_add(&c->in, buf, (size_t)k);
            return 1;
        }
        if (k == 0) {
            c->end = CL_FIN;
            return 0;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            c->end = CL_RESET;
            return 0;
        }
        now = now_ms();
        if (now >= end)
            return -1;
        w.fd = c->fd;
        w.events = POLLIN;
        w.revents = 0;
        poll(&w, 1, (int)(end - now));
    }
}

static size_t find_bytes(const str *s, const char *what, size_t n)
{
    size_t i;

    for (i = 0; i + n <= s->n; i++)
        if (s->p[i] == what[0] && memcmp(s->p + i, what, n) == 0)
            return i;
    return (size_t)-1;
}

/* One line of the chunked coding, without its CRLF. */
static int cl_line(client *c, char *out, size_t cap, uint64_t end)
{
    for (;;) {
        size_t at = find_bytes(&c->in, "\r\n", 2);
        if (at != (size_t)-1) {
            if (at >= cap)
                return -1;
            memcpy(out, c->in.p, at);
            out[at] = 0;
            str_drop(&c->in, at + 2);
            return 0;
        }
        if (cl_fill(c, end) <= 0)
            return -1;
    }
}

/* Moves n bytes of input to the body. */
static int cl_body(client *c, size_t n, uint64_t end)
{
    while (n != 0) {
        size_t k = c->in.n < n ? c->in.n : n;
        if (k == 0) {
            if (cl_fill(c, end) <= 0)
                return -1;
            continue;
        }
        str_add(&c->body, c->in.p, k);
        str_drop(&c->in, k);
        n -= k;
    }
    return 0;
}

static int is_token(const char *p, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        unsigned char ch = (unsigned char)p[i];
        if (ch <= 32 || ch >= 127 || strchr("()<>@,;:\\\"/[]?={}", ch) != NULL)
            return 0;
    }
    return n != 0;
}

/* The i-th field called `name` in the reply's head, or NULL. */
static const char *cl_header_nth(client *c, const char *name, int i)
{
    const char *p = c->head.p;
    size_t n = strlen(name);

    if (p == NULL)
        return NULL;
    while ((p = strstr(p, "\r\n")) != NULL) {
        const char *e;
        p += 2;
        if (strncasecmp(p, name, n) != 0 || p[n] != ':')
            continue;
        if (i-- > 0)
            continue;
        p += n + 1;
        while (*p == ' ' || *p == '\t')
            p++;
        e = strstr(p, "\r\n");
        if (e == NULL || (size_t)(e - p) >= sizeof c->value)
            return NULL;
        memcpy(c->value, p, (size_t)(e - p));
        c->value[e - p] = 0;
        return c->value;
    }
    return NULL;
}

static const char *cl_header(client *c, const char *name)
{
    return cl_header_nth(c, name, 0);
}

static int has_word(const char *list, const char *word)
{
    size_t n = strlen(word);
    const char *p = list;

    while (p != NULL && *p != 0) {
        while (*p == ' ' || *p == ',')
            p++;
        if (strncasecmp(p, word, n) == 0 &&
            (p[n] == 0 || p[n] == ',' || p[n] == ' '))
            return 1;
        p = strchr(p, ',');
    }
    return 0;
}

/* What must be right in every head that the server sends; NULL: it is. */
static const char *cl_head_fault(client *c)
{
    const char *p = c->head.p, *e;
    const char *v;

    if (strlen(c->head.p) != c->head.n)
        return "NUL in the head";
    if (strncmp(p, "HTTP/1.1 ", 9) != 0)
        return "not an HTTP/1.1 status line";
    if (strspn(p + 9, "0123456789") != 3 || p[12] != ' ')
        return "no status of three digits";
    p = strstr(p, "\r\n") + 2;
    while (strncmp(p, "\r\n", 2) != 0) {
        const char *colon;
        e = strstr(p, "\r\n");
        colon = (const char *)memchr(p, ':', (size_t)(e - p));
        if (colon == NULL || !is_token(p, (size_t)(colon - p)))
            return "a field without a proper name";
        for (v = colon + 1; v < e; v++)
            if (((unsigned char)*v < 32 && *v != '\t') || *v == 127)
                return "a control character in a field";
        p = e + 2;
    }
    if (cl_header_nth(c, "Content-Length", 1) != NULL)
        return "two Content-Length";
    if (cl_header_nth(c, "Transfer-Encoding", 1) != NULL)
        return "two Transfer-Encoding";
    if (cl_header_nth(c, "Date", 1) != NULL)
        return "two Date";
    if (cl_header(c, "Transfer-Encoding") != NULL) {
        if (strcmp(c->value, "chunked") != 0)
            return "a transfer coding other than chunked";
        if (cl_header(c, "Content-Length") != NULL)
            return "chunked and Content-Length";
        if (c->status < 200 || c->status == 204)
            return "a transfer coding with 1xx or 204";
    }
    if (c->status < 200 || c->status == 204) {
        if (cl_header(c, "Content-Length") != NULL)
            return "Content-Length with 1xx or 204";
    }
    if (c->status >= 200 && (cl_header(c, "Date") == NULL ||
                             strlen(c->value) != 29 ||
                             strcmp(c->value + 26, "GMT") != 0))
        return "no proper Date";
    return NULL;
}

/* Reads one reply (an interim one counts). Returns its status; 0: the peer has
 * closed instead; -1: nothing whole in time, or nonsense. c->complete tells
 * whether the body was all there. */
static int cl_reply_with(client *c, int no_body)
{
    uint64_t end = now_ms() + (uint64_t)c->patience;
    const char *fault;
    size_t at;

    c->status = c->complete = c->chunked = c->closes = 0;
    c->declared = -1;
    c->head.n = c->body.n = c->trailer.n = 0;
    str_add(&c->body, "", 0);
    str_add(&c->head, "", 0);
    str_add(&c->trailer, "", 0);
    while ((at = find_bytes(&c->in, "\r\n\r\n", 4)) == (size_t)-1) {
        int k = cl_fill(c, end);
        if (k < 0)
            return -1;
        if (k == 0) {
            if (c->in.n != 0 && c->end == CL_FIN)
                fail(__FILE__, __LINE__, "half a head, then the end: %.200s",
                     c->in.p);
            return c->in.n == 0 ? 0 : -1;
        }
    }
    str_add(&c->head, c->in.p, at + 4);
    str_drop(&c->in, at + 4);
    if (c->head.n > 12)
        c->status = (int)strtol(c->head.p + 9, NULL, 10);
    c->minor = c->head.p[7] - '0';
    fault = cl_head_fault(c);
    if (fault != NULL) {
        fail(__FILE__, __LINE__, "%s in the reply\n%.400s", fault, c->head.p);
        return -1;
    }
    if (cl_header(c, "Connection") != NULL)
        c->closes = has_word(c->value, "close");
    if (cl_header(c, "Content-Length") != NULL)
        c->declared = strtoll(c->value, NULL, 10);
    c->chunked = cl_header(c, "Transfer-Encoding") != NULL;

    if (no_body || c->status < 200 || c->status == 204 || c->status == 304) {
        c->complete = 1;
    } else if (c->chunked) {
        char line[8192], *stop;
        for (;;) {
            unsigned long k;
            if (cl_line(c, line, sizeof line, end) != 0)
                return c->status;
            k = strtoul(line, &stop, 16);
            if (stop == line || *stop != 0) {
                fail(__FILE__, __LINE__, "chunk size \"%.40s\"", line);
                return -1;
            }
            if (k == 0)
                break;
            if (cl_body(c, k, end) != 0 ||
                cl_line(c, line, sizeof line, end) != 0)
                return c->status;
            if (line[0] != 0) {
                fail(__FILE__, __LINE__, "no CRLF after a chunk");
                return -1;
            }
        }
        for (;;) {
            if (cl_line(c, line, sizeof line, end) != 0)
                return c->status;
            if (line[0] == 0)
                break;
            str_addf(&c->trailer, "%s\r\n", line);
        }
        c->complete = 1;
    } else if (c->declared >= 0) {
        c->complete = cl_body(c, (size_t)c->declared, end) == 0;
    } else {
        if (!c->closes)
            fail(__FILE__, __LINE__, "a body without length or close: %.200s",
                 c->head.p);
        while (cl_fill(c, end) > 0) {
            str_add(&c->body, c->in.p, c->in.n);
            c->in.n = 0;
        }
        str_add(&c->body, c->in.p, c->in.n);
        c->in.n = 0;
        c->complete = c->end == CL_FIN;
    }
    return c->status;
}

static int cl_reply(client *c)
{
    return cl_reply_with(c, 0);
}

/* How the connection ends: CL_FIN, CL_RESET; CL_TIMEOUT: it does not within ms;
 * CL_DATA: more bytes come first. */
static int cl_end(client *c, int ms)
{
    if (c->in.n != 0)
        return CL_DATA;
    if (c->end != 0)
        return c->end;
    switch (cl_fill(c, now_ms() + (uint64_t)ms)) {
    case 0:  return c->end;
    case 1:  return CL_DATA;
    default: return CL_TIMEOUT;
    }
}

/* The same, but drops what still comes. */
static int cl_drain(client *c, int ms)
{
    uint64_t end = now_ms() + (uint64_t)ms;

    c->in.n = 0;
    while (c->end == 0) {
        if (cl_fill(c, end) < 0)
            return CL_TIMEOUT;
        c->in.n = 0;
    }
    return c->end;
}

#define CHECK_FIN(c)  CHECK_INT(cl_end(c, AT_ONCE), CL_FIN)
#define CHECK_OPEN(c) CHECK_INT(cl_end(c, 20), CL_TIMEOUT)

/* Wait for input without taking it; 1: there is some (or the end). */
static int cl_readable(client *c, int ms)
{
    struct pollfd w;

    w.fd = c->fd;
    w.events = POLLIN;
    w.revents = 0;
    return c->in.n != 0 || poll(&w, 1, ms) > 0;
}

/* Bytes that anyone can make and check: none looks like its neighbours. */
static char pattern(int64_t i)
{
    return (char)('!' + (i * 7 + i / 83 + i / 4099) % 90);
}

static void pattern_fill(char *p, size_t n, int64_t from)
{
    size_t i;

    for (i = 0; i < n; i++)
        p[i] = pattern(from + (int64_t)i);
}

/* -1 if the n bytes are the pattern from `from`, else the first that is not */
static int64_t pattern_fault(const char *p, size_t n, int64_t from)
{
    size_t i;

    for (i = 0; i < n; i++)
        if (p[i] != pattern(from + (int64_t)i))
            return (int64_t)i;
    return -1;
}

static uint32_t sum_more(uint32_t h, const void *data, size_t n)
{
    const unsigned char *p = (const unsigned char *)data;

    while (n-- != 0)
        h = (h ^ *p++) * 16777619u;
    return h;
}

/* ---------------------------------------------------------------------------
 * >>handlers -- what the servers under test serve
 *
 * What handlers leave behind for the tests lies in shared memory, so that it is
 * the same in both modes.
 * ------------------------------------------------------------------------- */

#define SLOTS 2048

typedef struct slot {
    empm_ticket ticket;             /* under shm->lock */
    int         why;                /* of the last wake */
    int         wakes;
    int         pieces, seen;       /* of a streamed body: calls, bytes */
    /* the same and its sum, for handlers only */
    size_t      bytes;
    uint32_t    sum;
} slot;

typedef struct shared {
    int  lock;
    int  hits;                      /* POST /hit */
    int  heads;                     /* calls of on_head */
    int  cleanups;                  /* of empm_defer() */
    int  order;                     /* what they ran in: digits */
    int  meeting;                   /* GET /meet */
    int  gate;                      /* GET /gate ends when it is not 0 */
    int  at_gate;                   /* how many wait there */
    int  child_starts, child_stops, thread_starts, thread_stops;
    int  rc[8];                     /* what the misused calls returned */
    slot slots[SLOTS];
} shared;

static shared *shm;
static empm_server *g_server;       /* for the signal handler's empm_stop() */

static void shm_lock(void)
{
    int zero = 0;

    while (!__atomic_compare_exchange_n(&shm->lock, &zero, 1, 0,
                                        __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        zero = 0;
        sched_yield();
    }
}

static void shm_unlock(void)
{
    set_int(&shm->lock, 0);
}

static empm_ticket get_ticket(int i)
{
    empm_ticket t;

    shm_lock();
    t = shm->slots[i].ticket;
    shm_unlock();
    return t;
}

static long query_long(empm_request *req, const char *name, long otherwise)
{
    const char *v = empm_query(req, name);

    return v != NULL ? strtol(v, NULL, 10) : otherwise;
}

static slot *query_slot(empm_request *req)
{
    const char *v = empm_query(req, "slot");

    return &shm->slots[v != NULL ? strtol(v, NULL, 10) % SLOTS : 0];
}

static int h_hello(empm_request *req, void *user)
{
    const char *name = empm_path_value(req, "name");

    (void)user;
    empm_printf(req, "Hello, %s!\n", name != NULL ? name : "world");
    return EMPM_OK;
}

/* A handler's own lines, and what it prints on stderr. */
static int h_log(empm_request *req, void *user)
{
    empm_log(req, EMPM_LOG_ERROR, "no price of %s:\nasked %d times", "tea", 3);
    empm_log(req, EMPM_LOG_NOTICE, "a notice of a handler");
    empm_log(req, EMPM_LOG_DEBUG, "%s", "a detail");
    if (user != NULL)
        fprintf(stderr, "grumble of %ld\n", (long)getpid());
    empm_printf(req, "logged\n");
    return EMPM_OK;
}

static int h_cwd(empm_request *req, void *user)
{
    char path[1024];

    (void)user;
    empm_printf(req, "%s", getcwd(path, sizeof path) != NULL ? path : "?");
    return EMPM_OK;
}

/* Says which pattern has won. */
static int h_route(empm_request *req, void *user)
{
    const char *x = empm_path_value(req, "x"), *y = empm_path_value(req, "y");

    empm_printf(req, "%s x=%s y=%s", (const char *)user, x ? x : "-",
                y ? y : "-");
    return EMPM_OK;
}

static int h_hit(empm_request *req, void *user)
{
    (void)user;
    empm_printf(req, "hit %d\n", add_int(&shm->hits, 1));
    return EMPM_OK;
}

static int h_pid(empm_request *req, void *user)
{
    (void)user;
    empm_printf(req, "%ld", (long)getpid());
    return EMPM_OK;
}

static int h_who(empm_request *req, void *user)
{
    (void)user;
    empm_printf(req, "%s %s", empm_peer(req), empm_client(req));
    return EMPM_OK;
}

static int h_echo(empm_request *req, void *user)
{
    size_t n;
    const char *body = empm_body(req, &n);
    const char *type = empm_header(req, "Content-Type");

    (void)user;
    empm_set_header(req, "Content-Type",
                    type != NULL ? type : "application/octet-stream");
    empm_write(req, body, n);
    return EMPM_OK;
}

/* Length and sum of a whole body; writes all over it, as the header allows. */
static int h_tls(empm_request *req, void *user)
{
    static const char *const names[] = { "HTTPS", "SSL_PROTOCOL", "SSL_CIPHER",
                                         "SSL_TLS_SNI", "SSL_SESSION_RESUMED" };
    size_t i;
    (void)user;
    empm_printf(req, "%s", empm_scheme(req));
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = empm_ssl(req, names[i]);
        empm_printf(req, " %s", value != NULL ? value : "-");
    }
    return EMPM_OK;
}

static int h_sum(empm_request *req, void *user)
{
    size_t n = 99;
    char *body = empm_body(req, &n);
    uint32_t sum = sum_more(2166136261u, body, n);
    int ended = body[n] == 0;
    const char *t = empm_trailer(req, "X-Trailer");

    (void)user;
    memset(body, 'x', n);
    empm_printf(req, "bytes=%lu sum=%lx nul=%d trailer=%s", (unsigned long)n,
                (unsigned long)sum, ended, t != NULL ? t : "-");
    return EMPM_OK;
}

static int p_count(empm_request *req, const void *data, size_t len, void *user)
{
    slot *s = query_slot(req);

    (void)user;
    shm_lock();                     /* slots may be shared between requests */
    if (add_int(&s->pieces, 1) == 1)
        s->sum = 2166136261u;
    s->bytes += len;
    s->sum = sum_more(s->sum, data, len);
    add_int(&s->seen, (int)len);
    shm_unlock();
    if (query_long(req, "refuse", -1) >= 0 &&
        get_int(&s->seen) >= query_long(req, "refuse", 0))
        return 403;
    return EMPM_OK;
}

static int p_nap(empm_request *req, const void *data, size_t len, void *user)
{
    (void)data;
    nap((int)query_long(req, "ms", 5));
    return p_count(req, "", len > 0, user);
}

static int p_nothing(empm_request *req, const void *data, size_t len,
                     void *user)
{
    (void)req;
    (void)data;
    (void)len;
    (void)user;
    return EMPM_OK;
}

static int h_count(empm_request *req, void *user)
{
    slot *s = query_slot(req);
    size_t bytes;
    uint32_t sum;

    (void)user;
    shm_lock();
    bytes = s->bytes;
    sum = s->sum;
    shm_unlock();
    empm_printf(req, "bytes=%lu sum=%lx", (unsigned long)bytes,
                (unsigned long)sum);
    return EMPM_OK;
}

/* Answers while the question still comes. */
static int p_echo(empm_request *req, const void *data, size_t len, void *user)
{
    (void)user;
    return empm_write(req, data, len) == EMPM_OK ? EMPM_OK : 500;
}

static int h_end(empm_request *req, void *user)
{
    (void)user;
    return empm_write(req, "", 0);
}

static int on_head_auth(empm_request *req, void *user)
{
    (void)user;
    add_int(&shm->heads, 1);
    if (empm_header(req, "Authorization") != NULL)
        return EMPM_OK;
    empm_set_header(req, "WWW-Authenticate", "Basic realm=\"test\"");
    return 401;
}

static int h_dump(empm_request *req, void *user)
{
    const char *name, *value;
    int i;

    (void)user;
    empm_printf(req, "method=%s\ntarget=%s\npath=%s\nquery=%s\nminor=%d\n",
                empm_method(req), empm_target(req), empm_path(req),
                empm_query_string(req), empm_minor_version(req));
    empm_printf(req, "scheme=%s\npeer=%s\n", empm_scheme(req), empm_peer(req));
    for (i = 0; empm_header_at(req, i, &name, &value) == EMPM_OK; i++)
        empm_printf(req, "h %s=%s\n", name, value);
    value = empm_query(req, "q");
    empm_printf(req, "q=%s\n", value != NULL ? value : "(none)");
    value = empm_form(req, "f");
    empm_printf(req, "f=%s\n", value != NULL ? value : "(none)");
    value = empm_cookie(req, "c");
    empm_printf(req, "c=%s\n", value != NULL ? value : "(none)");
    value = empm_header(req, "x-twice");
    empm_printf(req, "twice=%s\n", value != NULL ? value : "(none)");
    return EMPM_OK;
}

static int h_sleep(empm_request *req, void *user)
{
    (void)user;
    nap((int)query_long(req, "ms", 100));
    empm_printf(req, "slept\n");
    return EMPM_OK;
}

/* 200 once `n` of these run at the same time: proves that so many workers are
 * free, whoever else is connected. */
static int h_meet(empm_request *req, void *user)
{
    int n = (int)query_long(req, "n", 2);
    uint64_t end = now_ms() + (uint64_t)SCALED(query_long(req, "ms", 4000));

    (void)user;
    add_int(&shm->meeting, 1);
    while (get_int(&shm->meeting) < n && now_ms() < end)
        nap(1);
    if (get_int(&shm->meeting) < n)
        return 503;
    empm_printf(req, "met\n");
    return EMPM_OK;
}

static int h_gate(empm_request *req, void *user)
{
    uint64_t end = now_ms() + 30000;

    (void)user;
    add_int(&shm->at_gate, 1);
    while (!get_int(&shm->gate) && now_ms() < end)
        nap(1);
    add_int(&shm->at_gate, -1);
    empm_printf(req, "through\n");
    return EMPM_OK;
}

/* Runs until there is a reason to stop, and notes it. */
static int h_until_stop(empm_request *req, void *user)
{
    uint64_t end = now_ms() + (uint64_t)SCALED(5000);
    int bits;

    (void)user;
    add_int(&shm->at_gate, 1);
    while ((bits = empm_should_stop(req)) == 0 && now_ms() < end)
        nap(1);
    set_int(&shm->rc[0], bits);
    add_int(&shm->at_gate, -1);
    empm_printf(req, "bits=%d\n", bits);
    return EMPM_OK;
}

/* The sanitizers shall let it: they have their own way with signals. */
__attribute__((no_sanitize("undefined"), no_sanitize("address")))
static int h_crash(empm_request *req, void *user)
{
    int *volatile nowhere = NULL;

    (void)req;
    (void)user;
    signal(SIGSEGV, SIG_DFL);
    *(volatile int *)nowhere = 1;
    return EMPM_OK;
}

static int h_quit(empm_request *req, void *user)
{
    (void)user;
    if (empm_query(req, "thread") != NULL)
        pthread_exit(NULL);
    _exit(0);
}

/* Leaves a process behind that holds a copy of the client's socket. */
/* "visit N", or what each call says where there is no store. rc[0] is 1 once a
 * second process has answered. */
static int h_visits(empm_request *req, void *user)
{
    empm_server *s = empm_server_of(req);
    const int me = (int)getpid();
    int64_t n = 0;
    int none = 0;

    (void)user;
    if (empm_store_add(s, "visits", 6, 1, 0, &n) == EMPM_OK) {
        if (!__atomic_compare_exchange_n(&shm->rc[1], &none, me, 0,
                                         __ATOMIC_RELAXED, __ATOMIC_RELAXED) &&
            none != me)
            set_int(&shm->rc[0], 1);
        return empm_printf(req, "visit %ld\n", (long)n);
    }
    return empm_printf(req, "%d %d %d %d %d\n",
                       empm_store_add(s, "visits", 6, 1, 0, &n),
                       empm_store_get(s, "a", 1, &n, sizeof n, NULL, NULL),
                       empm_store_put(s, "a", 1, &n, sizeof n, 0),
                       empm_store_cas(s, "a", 1, 0, &n, sizeof n, 0),
                       empm_store_delete(s, "a", 1));
}

static int h_fork(empm_request *req, void *user)
{
    pid_t pid = fork();

    (void)user;
    if (pid == 0) {
        empm_after_fork();
        nap(300);
        _exit(0);
    }
    set_int(&shm->rc[0], (int)pid);
    empm_printf(req, "forked\n");
    return EMPM_OK;
}

/* What a program finds that a handler has started: no shell, which might set
 * right what it finds. */
static int h_program(empm_request *req, void *user)
{
    char text[4096];
    int fd[2], status = -1;
    ssize_t n, i;
    pid_t pid;

    (void)user;
    if (pipe(fd) != 0)
        return 500;
    pid = fork();
    if (pid == 0) {
        dup2(fd[1], 1);
        execlp("cat", "cat", "/proc/self/status", "/proc/self/environ",
               (char *)NULL);
        _exit(127);
    }
    close(fd[1]);
    while ((n = read(fd[0], text, sizeof text)) > 0) {
        for (i = 0; i < n; i++)
            if (text[i] == 0)
                text[i] = '\n';
        empm_write(req, text, (size_t)n);
    }
    close(fd[0]);
    nap((int)query_long(req, "ms", 0));
    n = waitpid(pid, &status, 0);
    return empm_printf(req, "ended %d\n", n == pid ? status : -1);
}

static int h_stop(empm_request *req, void *user)
{
    (void)user;
    empm_stop(empm_server_of(req));
    empm_printf(req, "stopping\n");
    return EMPM_OK;
}

static int h_status(empm_request *req, void *user)
{
    (void)user;
    return (int)query_long(req, "code", 200);
}

/* A wake that tells why, and as the query says waits again. */
static int w_parked(empm_request *req, enum empm_why why, void *user)
{
    slot *s = (slot *)user;
    const char *how = empm_query(req, "how");

    set_int(&s->why, (int)why);
    add_int(&s->wakes, 1);
    if (how != NULL && strcmp(how, "hold") == 0 && why == EMPM_HALF_CLOSED)
        return EMPM_SUSPENDED;
    if (how != NULL && strcmp(how, "again") == 0 && get_int(&s->wakes) < 3) {
        empm_ticket t = empm_suspend(req, (int)query_long(req, "ms", 20000),
                                     w_parked, s);
        if (t == 0)
            return 500;
        shm_lock();
        s->ticket = t;
        shm_unlock();
        return EMPM_SUSPENDED;
    }
    empm_printf(req, "why=%d wakes=%d slot=%ld\n", (int)why, get_int(&s->wakes),
                query_long(req, "slot", 0));
    return EMPM_OK;
}

static int h_park(empm_request *req, void *user)
{
    slot *s = query_slot(req);
    const char *how = empm_query(req, "how");
    empm_ticket t = empm_suspend(req, (int)query_long(req, "ms", 20000),
                                 w_parked, s);

    (void)user;
    if (t == 0)
        return 500;
    if (how != NULL && strcmp(how, "flush") == 0) {
        empm_printf(req, "wait...\n");
        empm_flush(req);
    }
    shm_lock();
    s->ticket = t;
    shm_unlock();
    if (how != NULL && strcmp(how, "now") == 0)
        empm_resume(empm_server_of(req), t);
    return EMPM_SUSPENDED;
}

static int h_unpark(empm_request *req, void *user)
{
    int i = (int)query_long(req, "slot", 0);
    int rc = empm_resume(empm_server_of(req), get_ticket(i));

    (void)user;
    empm_printf(req, "%d", rc);
    return EMPM_OK;
}

/* Server-sent events: n of them, the time-out of the suspension is the
 * clock. */
static int w_event(empm_request *req, enum empm_why why, void *user)
{
    long *left = (long *)user;

    if (why != EMPM_TIMEOUT)
        return EMPM_OK;
    empm_printf(req, "data: %ld\n\n", *left);
    if (--*left == 0)
        return EMPM_OK;
    if (empm_suspend(req, 10, w_event, left) == 0)
        return 500;
    return EMPM_SUSPENDED;
}

static int h_events(empm_request *req, void *user)
{
    long *left = (long *)empm_alloc(req, sizeof *left);

    (void)user;
    if (left == NULL)
        return 500;
    *left = query_long(req, "n", 3);
    empm_set_header(req, "Content-Type", "text/event-stream");
    if (empm_suspend(req, 10, w_event, left) == 0)
        return 500;
    return EMPM_SUSPENDED;
}

static void d_count(void *p)
{
    (void)p;
    add_int(&shm->cleanups, 1);
}

static void d_digit(void *p)
{
    int digit = *(int *)p;

    set_int(&shm->order, get_int(&shm->order) * 10 + digit);
}

typedef struct production {
    int64_t at, end;
    long    how;                    /* 0 whole, -1 abort at the end */
} production;

static long produce(empm_request *req, void *buf, size_t cap, void *user)
{
    production *p = (production *)user;
    int64_t n = p->end - p->at;

    (void)req;
    if (n == 0)
        return p->how;
    if (n > (int64_t)cap)
        n = (int64_t)cap;
    pattern_fill((char *)buf, (size_t)n, p->at);
    p->at += n;
    return (long)n;
}

static int h_produce(empm_request *req, void *user)
{
    production *p = (production *)empm_alloc(req, sizeof *p);

    (void)user;
    if (p == NULL)
        return 500;
    p->at = 0;
    p->end = query_long(req, "bytes", 100000);
    p->how = query_long(req, "how", 0);
    if (empm_defer(req, d_count, NULL) != EMPM_OK)
        return 500;
    set_int(&shm->rc[0], empm_stream(req, query_long(req, "declare", -1),
                                     produce, p));
    return EMPM_OK;
}

/* Writes `bytes` in pieces, all of it before it returns. */
static int h_big(empm_request *req, void *user)
{
    char buf[16384];
    int64_t n = query_long(req, "bytes", 100000), at = 0;
    size_t piece = (size_t)query_long(req, "piece", 16384) % (sizeof buf + 1);
    /* never further ahead of what a client says in shm->hits */
    const int64_t ahead = query_long(req, "ahead", 0);
    const uint64_t end = now_ms() + PATIENCE;
    const char *declare = empm_query(req, "declare");
    int rc = EMPM_OK;

    (void)user;
    if (declare != NULL)
        empm_set_header(req, "Content-Length", declare);
    if (empm_defer(req, d_count, NULL) != EMPM_OK)
        return 500;
    while (at < n && rc == EMPM_OK) {
        size_t k = n - at < (int64_t)piece ? (size_t)(n - at) : piece;
        pattern_fill(buf, k, at);
        rc = empm_write(req, buf, k);
        at += (int64_t)k;
        while (ahead > 0 && at - get_int(&shm->hits) > ahead && now_ms() < end)
            nap(1);
    }
    set_int(&shm->rc[0], rc);
    if (n == 0)
        empm_write(req, "", 0);
    return EMPM_OK;
}

static int h_file(empm_request *req, void *user)
{
    char path[512];
    const char *name = empm_path_value(req, "name");
    int rc;

    (void)user;
    if (strchr(name, '/') != NULL)
        return 404;
    snprintf(path, sizeof path, "%s/www/%s", g_tmp, name);
    rc = empm_send_file(req, path);
    set_int(&shm->rc[0], rc);
    return rc == EMPM_OK ? EMPM_OK : rc == EMPM_EFULL ? 503 : 404;
}

static int h_alloc(empm_request *req, void *user)
{
    int *digits = (int *)empm_alloc(req, 4 * sizeof *digits);
    int i;

    (void)user;
    if (digits == NULL)
        return 500;
    for (i = 0; i < 4; i++) {
        char *p = (char *)empm_alloc(req, (size_t)(i * 5000 + 1));
        if (p == NULL || ((uintptr_t)p & (sizeof(void *) - 1)) != 0)
            return 500;
        memset(p, i, (size_t)(i * 5000 + 1));
        digits[i] = i + 1;
        empm_defer(req, d_digit, &digits[i]);
    }
    empm_printf(req, "ok");
    return query_long(req, "fail", 0) != 0 ? EMPM_ENOMEM : EMPM_OK;
}

static int h_headers(empm_request *req, void *user)
{
    (void)user;
    empm_status(req, 201);
    empm_set_header(req, "X-One", "replaced");
    empm_set_header(req, "x-one", "1");
    empm_add_header(req, "X-Two", "a");
    empm_add_header(req, "X-Two", "b");
    empm_set_header(req, "X-Empty", "");
    empm_printf(req, "created");
    return EMPM_OK;
}

static int h_thread(empm_request *req, void *user)
{
    int *d = (int *)empm_thread_data(req);

    (void)user;
    empm_printf(req, "%d", d != NULL ? *d : -1);
    return EMPM_OK;
}

/* Every way to be wrong. */
static int h_misuse(empm_request *req, void *user)
{
    const char *how = empm_query(req, "how");
    char nul[3];

    (void)user;
    memcpy(nul, "a\0b", 3);
    if (how == NULL || strcmp(how, "nothing") == 0)
        return EMPM_OK;
    if (strcmp(how, "short") == 0) {
        empm_set_header(req, "Content-Length", "100");
        empm_printf(req, "0123456789");
        return EMPM_OK;
    }
    if (strcmp(how, "short-flushed") == 0) {
        empm_set_header(req, "Content-Length", "100");
        empm_printf(req, "0123456789");
        empm_flush(req);
        return EMPM_OK;
    }
    if (strcmp(how, "long") == 0) {
        empm_set_header(req, "Content-Length", "5");
        set_int(&shm->rc[0], empm_printf(req, "0123456789"));
        return EMPM_OK;
    }
    if (strcmp(how, "full-then-more") == 0) {
        empm_set_header(req, "Content-Length", "5");
        set_int(&shm->rc[0], empm_printf(req, "01234"));
        set_int(&shm->rc[1], empm_printf(req, "5"));
        return EMPM_OK;
    }
    if (strcmp(how, "twice") == 0) {
        production *p = (production *)empm_alloc(req, sizeof *p);
        if (p == NULL)
            return 500;
        p->at = p->how = 0;
        p->end = 10;
        set_int(&shm->rc[0], empm_stream(req, 10, produce, p));
        set_int(&shm->rc[1], empm_stream(req, 10, produce, p));
        set_int(&shm->rc[2], empm_printf(req, "more"));
        return EMPM_OK;
    }
    if (strcmp(how, "headers") == 0) {
        set_int(&shm->rc[0], empm_set_header(req, "X-A", "a\r\nX-B: b"));
        set_int(&shm->rc[1], empm_add_header(req, "X-A", "a\nb"));
        set_int(&shm->rc[2], empm_set_header(req, "X A", "a"));
        set_int(&shm->rc[3], empm_set_header(req, "", "a"));
        set_int(&shm->rc[4], empm_set_header(req, "X-A\r\nX-B", "a"));
        set_int(&shm->rc[5], empm_set_header(req, "Transfer-Encoding", "gzip"));
        set_int(&shm->rc[6], empm_set_header(req, "Connection", "close"));
        set_int(&shm->rc[7], empm_set_header(req, "Content-Length", "-5"));
        empm_printf(req, "fine");
        return EMPM_OK;
    }
    if (strcmp(how, "late") == 0) {
        empm_printf(req, "first ");
        empm_flush(req);
        set_int(&shm->rc[0], empm_status(req, 404));
        set_int(&shm->rc[1], empm_set_header(req, "X-Late", "1"));
        set_int(&shm->rc[2], empm_printf(req, "second"));
        return EMPM_OK;
    }
    if (strcmp(how, "status") == 0) {
        set_int(&shm->rc[0], empm_status(req, 99));
        set_int(&shm->rc[1], empm_status(req, 600));
        set_int(&shm->rc[2], empm_status(req, 100));
        empm_printf(req, "fine");
        return EMPM_OK;
    }
    if (strcmp(how, "204") == 0) {
        empm_status(req, 204);
        set_int(&shm->rc[0], empm_printf(req, "no body here"));
        return EMPM_OK;
    }
    if (strcmp(how, "304") == 0) {
        empm_status(req, 304);
        set_int(&shm->rc[0], empm_printf(req, "no body here"));
        return EMPM_OK;
    }
    if (strcmp(how, "no-suspend") == 0)
        return EMPM_SUSPENDED;
    if (strcmp(how, "suspend-ok") == 0) {
        slot *s = query_slot(req);
        shm_lock();
        s->ticket = empm_suspend(req, 60000, w_parked, s);
        shm_unlock();
        empm_printf(req, "not suspended after all");
        return EMPM_OK;
    }
    if (strcmp(how, "suspend-twice") == 0) {
        slot *s = query_slot(req);
        empm_ticket a = empm_suspend(req, 50, w_parked, s);
        empm_ticket b = empm_suspend(req, 50, w_parked, s);
        set_int(&shm->rc[0], a != 0);
        set_int(&shm->rc[1], b != 0);
        return EMPM_SUSPENDED;
    }
    if (strcmp(how, "suspend-bad") == 0) {
        slot *s = query_slot(req);
        set_int(&shm->rc[0], empm_suspend(req, 0, w_parked, s) != 0);
        set_int(&shm->rc[1], empm_suspend(req, -5, w_parked, s) != 0);
        set_int(&shm->rc[2], empm_suspend(req, 50, NULL, s) != 0);
        empm_printf(req, "fine");
        return EMPM_OK;
    }
    if (strcmp(how, "error") == 0)
        return EMPM_ESYS;
    if (strcmp(how, "null") == 0) {
        set_int(&shm->rc[0], empm_write(req, NULL, 0));
        set_int(&shm->rc[1], empm_set_header(req, NULL, "x"));
        set_int(&shm->rc[2], empm_set_header(req, "X-Null", NULL));
        set_int(&shm->rc[3], empm_send_file(req, NULL));
        set_int(&shm->rc[4], empm_stream(req, 5, NULL, NULL));
        set_int(&shm->rc[5], empm_defer(req, NULL, NULL));
        empm_printf(req, "fine");
        return EMPM_OK;
    }
    if (strcmp(how, "big-header") == 0) {
        char big[9000];
        int i;
        memset(big, 'x', sizeof big);
        big[sizeof big - 1] = 0;
        empm_set_header(req, "X-Big", "small");
        set_int(&shm->rc[0], empm_set_header(req, "X-Big", big));
        big[7000] = 0;               /* room for one, but not for two */
        empm_set_header(req, "X-Fits", big);
        empm_set_header(req, "X-Fits", big);
        empm_set_header(req, "X-Fits", "again");
        big[200] = 0;
        for (i = 0; i < 100; i++)
            set_int(&shm->rc[1], empm_add_header(req, "X-Many", big));
        empm_printf(req, "fine");
        return EMPM_OK;
    }
    return (int)query_long(req, "return", 500);
}

/* Counts in memory of the request's own, which on_head has made. */
static int data_head(empm_request *req, void *user)
{
    long *n = (long *)empm_alloc(req, sizeof *n);

    (void)user;
    if (n == NULL || empm_data(req) != NULL)
        return 500;
    *n = 0;
    empm_set_data(req, n);
    return EMPM_OK;
}

static int data_body(empm_request *req, const void *data, size_t len,
                     void *user)
{
    (void)data;
    (void)user;
    *(long *)empm_data(req) += (long)len;
    return EMPM_OK;
}

static int data_end(empm_request *req, void *user)
{
    (void)user;
    return empm_printf(req, "%ld", *(long *)empm_data(req));
}

/* --- what a request itself says shall be done ----------------------------- */

/* The query has scripts: "h" for the handler, "w" for the function of its
 * suspension, "o" for on_head, "b" for on_body. A script is steps "verb.value"
 * between commas; what is written reads as answers that somebody has forged. */
static int script_woken(empm_request *req, enum empm_why why, void *user);

static void script_write(empm_request *req, long bytes, long piece)
{
    static const char forged[] = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
                                 "EVIL";
    char text[65536];
    size_t i;

    for (i = 0; i < sizeof text; i++)
        text[i] = forged[i % (sizeof forged - 1)];
    for (; bytes > 0; bytes -= piece) {
        const long n = bytes < piece ? bytes : piece;
        if (empm_write(req, text, (size_t)n) < 0)
            return;
    }
}

static int script_step(empm_request *req, slot *s, const char *verb,
                       const char *value)
{
    char path[512];
    const char *eq;
    empm_ticket t;

    if (strcmp(verb, "status") == 0)
        return empm_status(req, (int)strtol(value, NULL, 10));
    if (strcmp(verb, "write") == 0) {        /* bytes, in pieces of so many */
        const char *dot = strchr(value, '.');
        script_write(req, strtol(value, NULL, 10),
                     dot != NULL ? strtol(dot + 1, NULL, 10) : 65536);
        return EMPM_OK;
    }
    if (strcmp(verb, "flush") == 0)
        return empm_flush(req);
    if (strcmp(verb, "file") == 0) {
        snprintf(path, sizeof path, "%s/www/%s", g_tmp, value);
        return empm_send_file(req, path);
    }
    if (strcmp(verb, "set") == 0 && (eq = strchr(value, ':')) != NULL) {
        snprintf(path, sizeof path, "%.*s", (int)(eq - value), value);
        return empm_set_header(req, path, eq + 1);
    }
    if (strcmp(verb, "nap") == 0) {
        nap((int)strtol(value, NULL, 10));
        return EMPM_OK;
    }
    if (strcmp(verb, "defer") == 0)
        return empm_defer(req, d_count, NULL);
    if (strcmp(verb, "suspend") == 0) {
        t = empm_suspend(req, (int)strtol(value, NULL, 10), script_woken, s);
        shm_lock();
        s->ticket = t;
        shm_unlock();
        return t != 0 ? EMPM_OK : EMPM_EMISUSE;
    }
    fail(__FILE__, __LINE__, "no step \"%s\"", verb);
    return EMPM_EINVAL;
}

/* Ends with "wait" (a suspension has begun), with "return.N", or with 0; a
 * suspension that is not to be had ends it, too. */
static int script(empm_request *req, const char *name)
{
    const char *text = empm_query(req, name);
    slot *s = query_slot(req);

    while (text != NULL && *text != '\0') {
        char step[128], *dot;
        const size_t n = strcspn(text, ",");
        snprintf(step, sizeof step, "%.*s", (int)n, text);
        text += n + (text[n] == ',');
        dot = strchr(step, '.');
        if (dot != NULL)
            *dot++ = '\0';
        if (strcmp(step, "return") == 0)
            return (int)strtol(dot, NULL, 10);
        if (strcmp(step, "wait") == 0) {
            add_int(&s->pieces, 1);
            return EMPM_SUSPENDED;
        }
        if (script_step(req, s, step, dot != NULL ? dot : "") < 0 &&
            strcmp(step, "suspend") == 0)
            return EMPM_OK;
    }
    return EMPM_OK;
}

static int script_woken(empm_request *req, enum empm_why why, void *user)
{
    slot *s = (slot *)user;

    set_int(&s->why, (int)why);
    add_int(&s->wakes, 1);
    return script(req, "w");
}

static int script_run(empm_request *req, void *user)
{
    return script(req, (const char *)user);
}

static int script_body(empm_request *req, const void *data, size_t len,
                       void *user)
{
    (void)data;
    (void)len;
    (void)user;
    return script(req, "b");
}

static int script_head(empm_request *req, void *user)
{
    (void)user;
    return script(req, "o");
}

static const empm_route routes[] = {
    EMPM_ROUTE_WITH("POST /data",    data_end,     NULL, data_head, data_body,
                    0, 0, 0),
    EMPM_ROUTE("GET /script",        script_run,   EMPM_TEXT("h")),
    EMPM_ROUTE_WITH("POST /script",  script_run,   EMPM_TEXT("h"), script_head,
                    script_body, 0, 0, 0),
    EMPM_ROUTE_WITH("PUT /script",   script_run,   EMPM_TEXT("h"), script_head,
                    NULL, 0, 0, 0),
    EMPM_ROUTE("OPTIONS /script",    script_run,   EMPM_TEXT("h")),
    EMPM_ROUTE("GET /hello",         h_hello,      NULL),
    EMPM_ROUTE("GET /hello/{name}",  h_hello,      NULL),
    EMPM_ROUTE("POST /hit",          h_hit,        NULL),
    EMPM_ROUTE("GET /pid",           h_pid,        NULL),
    EMPM_ROUTE("GET /log",           h_log,        NULL),
    EMPM_ROUTE("GET /who",           h_who,        NULL),
    EMPM_ROUTE("GET /tls",           h_tls,        NULL),
    EMPM_ROUTE("GET /health",        empm_health_page, NULL),
    EMPM_ROUTE("GET /visits",        h_visits,     NULL),
    EMPM_ROUTE("POST /echo",         h_echo,       NULL),
    EMPM_ROUTE("PUT /echo",          h_echo,       NULL),
    EMPM_ROUTE("POST /sum",          h_sum,        NULL),
    EMPM_ROUTE_WITH("POST /sum-any", h_sum,        NULL, NULL, NULL, 0, 0, 0),
    EMPM_ROUTE_WITH("POST /sum-100", h_sum,        NULL, NULL, NULL, 100, 0, 0),
    EMPM_ROUTE_WITH("POST /count",   h_count,      NULL, NULL, p_count, 0, 0,
                    0),
    EMPM_ROUTE_WITH("POST /nap",     h_count,      NULL, NULL, p_nap, 0, 0, 0),
    EMPM_ROUTE_WITH("POST /piped",   h_end,        NULL, NULL, p_echo, 0, 0, 0),
    EMPM_ROUTE_FULL("POST /few",     h_sum,        NULL, NULL, NULL, 0, 0, 0,
                    2),
    EMPM_ROUTE_FULL("GET /few",      h_park,       NULL, NULL, NULL, 0, 0, 0,
                    1),
    EMPM_ROUTE_WITH("POST /private", h_hit,        NULL, on_head_auth, NULL,
                    0, 0, 0),
    EMPM_ROUTE("/dump/{x}",          h_dump,       NULL),
    EMPM_ROUTE("GET /sleep",         h_sleep,      NULL),
    EMPM_ROUTE("GET /meet",          h_meet,       NULL),
    EMPM_ROUTE_WITH("GET /one",      h_meet,       NULL, NULL, NULL, -1, 0, 1),
    EMPM_ROUTE("GET /gate",          h_gate,       NULL),
    EMPM_ROUTE("GET /until-stop",    h_until_stop, NULL),
    EMPM_ROUTE_WITH("GET /deadline", h_until_stop, NULL, NULL, NULL, -1, 100,
                    0),
    EMPM_ROUTE("GET /crash",         h_crash,      NULL),
    EMPM_ROUTE("GET /quit",          h_quit,       NULL),
    EMPM_ROUTE("GET /fork",          h_fork,       NULL),
    EMPM_ROUTE("GET /program",       h_program,    NULL),
    EMPM_ROUTE("GET /stop",          h_stop,       NULL),
    EMPM_ROUTE("GET /status",        h_status,     NULL),
    EMPM_ROUTE("GET /park",          h_park,       NULL),
    EMPM_ROUTE("GET /unpark",        h_unpark,     NULL),
    EMPM_ROUTE("GET /events",        h_events,     NULL),
    EMPM_ROUTE("GET /produce",       h_produce,    NULL),
    EMPM_ROUTE("GET /big",           h_big,        NULL),
    EMPM_ROUTE("GET /file/{name}",   h_file,       NULL),
    EMPM_ROUTE("GET /alloc",         h_alloc,      NULL),
    EMPM_ROUTE("GET /headers",       h_headers,    NULL),
    EMPM_ROUTE("GET /thread",        h_thread,     NULL),
    EMPM_ROUTE("GET /misuse",        h_misuse,     NULL),
    EMPM_ROUTE("GET /server-status", empm_status_page, NULL),
    EMPM_ROUTE("GET /tree/",         h_hello,      NULL),
    EMPM_ROUTES_END
};

/* ---------------------------------------------------------------------------
 * >>fixture -- a server to test, in either mode
 *
 * fx_init(), change f.cfg, fx_up(), test, fx_down(). fx_down() checks that the
 * server stops, leaves no process behind and has not upset a sanitizer.
 * ------------------------------------------------------------------------- */

typedef struct fixture {
    empm_config  cfg;
    empm_server *s;                 /* in-process */
    int          forked;
    pid_t        pid;               /* forked: the parent */
    int          port;
    int          deaths_ok;         /* children may die in this test */
    int          failure_ok;        /* and empm_run() may give up */
    int          count_fds;         /* it leaves no descriptor open */
    int          log_fd, err_fd;
    /* forked: of the parent, once it has ended */
    int          ended, status;
    void       (*in_child)(void);   /* forked: before empm_run() */
    char         listen0[32];
    const char  *options;           /* of the Listen, such as " proxy" */
    char         www[300];
} fixture;

static void fx_log(enum empm_log_level level, const char *line, void *user)
{
    const fixture *f = (const fixture *)user;
    char text[1024];
    int n = snprintf(text, sizeof text, "%d %s\n", (int)level, line);

    if (n > 0 && write(f->log_fd, text, (size_t)n < sizeof text ?
                       (size_t)n : sizeof text - 1) < 0)
        return;
}

static int fx_child_start(empm_server *s, void *user)
{
    (void)s;
    (void)user;
    add_int(&shm->child_starts, 1);
    return 0;
}

static int unlinked_file(void)
{
    char path[512];
    int fd;

    fd = open(tmp_path(path, sizeof path, "log"), O_RDWR | O_CREAT | O_APPEND,
              0600);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    unlink(path);
    return fd;
}

static void fx_init(fixture *f)
{
    memset(f, 0, sizeof *f);
    memset(shm, 0, sizeof *shm);
    f->cfg = empm_defaults();
    f->forked = g_forked;
    f->log_fd = unlinked_file();
    f->err_fd = unlinked_file();
    snprintf(f->www, sizeof f->www, "%s/www", g_tmp);
    f->cfg.routes = routes;
    f->cfg.user = f;
    f->cfg.listen[0] = "127.0.0.1:0";
    f->options = "";
    f->cfg.document_root = f->www;
    f->cfg.spool_directory = g_tmp;
    f->cfg.processes = g_forked ? 1 : 0;
    f->cfg.threads_per_child = 4;
    f->cfg.linger_short_ms = 200;   /* our clients seldom close at once */
    f->cfg.log = fx_log;
    f->cfg.log_level = EMPM_LOG_INFO;
    f->cfg.on_child_start = fx_child_start;
}

static void fx_init_forked(fixture *f, int processes)
{
    fx_init(f);
    f->forked = 1;
    f->cfg.processes = processes;
}

/* The whole file, NUL-terminated; the caller frees. */
static char *slurp(int fd)
{
    struct stat st;
    char *p;
    ssize_t n;

    if (fstat(fd, &st) != 0)
        st.st_size = 0;
    p = (char *)malloc((size_t)st.st_size + 1);
    if (p == NULL)
        abort();
    n = pread(fd, p, (size_t)st.st_size, 0);
    p[n > 0 ? n : 0] = 0;
    return p;
}

static int fx_log_has(const fixture *f, const char *what)
{
    char *log = slurp(f->log_fd);
    int has = strstr(log, what) != NULL;

    free(log);
    return has;
}

static int fx_log_lines(const fixture *f, const char *what)
{
    char *log = slurp(f->log_fd), *p = log;
    int n = 0;

    while ((p = strstr(p, what)) != NULL) {
        n++;
        p = strchr(p, '\n') ? strchr(p, '\n') : p + strlen(p);
    }
    free(log);
    return n;
}

static const int fx_signals[] = { SIGTERM, SIGINT, SIGWINCH, SIGCHLD, SIGPIPE };

static void fx_serve(fixture *f)
{
    struct sigaction was[5], is;
    struct rlimit no_core;
    const int live = get_int(&a_live);      /* settings, as text */
    size_t i;
    int rc, fds;

    setpgid(0, 0);
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    no_core.rlim_cur = no_core.rlim_max = 0;
    setrlimit(RLIMIT_CORE, &no_core);
    close(0);                       /* no terminal: WINCH shall stop it */
    open("/dev/null", O_RDWR);
    dup2(0, 1);
    dup2(f->err_fd, 2);
    for (i = 0; i < 5; i++)
        sigaction(fx_signals[i], NULL, &was[i]);
    if (f->in_child != NULL)
        f->in_child();
    if (geteuid() == 0 && f->cfg.user_name == NULL)
        f->cfg.user_name = "root";
    fds = f->count_fds ? open_fds() : 0;
    rc = empm_run(&f->cfg);
    close(atoi(f->listen0 + 3));    /* unless it has taken that */
    if (f->count_fds && open_fds() >= fds)
        _exit(5);
    for (i = 0; i < 5; i++) {
        sigaction(fx_signals[i], NULL, &is);
        if (is.sa_handler != was[i].sa_handler)
            _exit(4);               /* a disposition is not restored */
    }
    if (get_int(&a_live) != live)
        _exit(3);                   /* memory is not freed */
    _exit(rc == EMPM_OK ? 0 : 1);
}

static int listening_socket(int *port)
{
    struct sockaddr_in a;
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) != 0 ||
        listen(fd, 511) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &n) != 0) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    *port = ntohs(a.sin_port);
    return fd;
}

static void fx_close_files(fixture *f)
{
    if (g_show_log) {
        char *log = slurp(f->log_fd), *err = slurp(f->err_fd);
        printf("%s%s", log, err);
        free(log);
        free(err);
    }
    close(f->log_fd);
    close(f->err_fd);
    empm_config_free(&f->cfg);
}

/* Returns 1 if the server is up; else the failure is counted. */
static int fx_up(fixture *f)
{
    if (f->forked) {
        int fd = listening_socket(&f->port);
        if (!CHECK(fd >= 0)) {
            fx_close_files(f);
            return 0;
        }
        snprintf(f->listen0, sizeof f->listen0, "fd:%d%s", fd, f->options);
        f->cfg.listen[0] = f->listen0;
        fflush(NULL);
        f->pid = fork();
        if (f->pid == 0)
            fx_serve(f);
        setpgid(f->pid, f->pid);
        close(fd);
        return 1;
    }
    if (f->options[0] != 0) {
        snprintf(f->listen0, sizeof f->listen0, "127.0.0.1:0%s", f->options);
        f->cfg.listen[0] = f->listen0;
    }
    if (!CHECK_INT(empm_start(&f->cfg, &f->s), EMPM_OK)) {
        char *log = slurp(f->log_fd);
        printf("%s", log);
        free(log);
        fx_close_files(f);
        return 0;
    }
    f->port = empm_port(f->s, 0);
    CHECK(f->port > 0);
    return 1;
}

/* Waits for the forked parent's end. Returns 1 if it came in time. */
static int fx_wait(fixture *f, int ms)
{
    uint64_t end = now_ms() + (uint64_t)ms;
    pid_t got;

    if (f->pid == 0 || f->ended)
        return 1;
    while ((got = waitpid(f->pid, &f->status, WNOHANG)) == 0 && now_ms() < end)
        nap(1);
    f->ended = got == f->pid;
    return f->ended;
}

/* Reaps what is left of the server's process group; 0: somebody stays. */
static int fx_reap(fixture *f, pid_t group, int ms)
{
    uint64_t end = now_ms() + (uint64_t)ms;

    (void)f;
    for (;;) {
        int st;
        pid_t got = waitpid(-group, &st, WNOHANG);
        if (got > 0)
            continue;
        if (signal_group(group, 0) != 0 && errno == ESRCH)
            return 1;
        if (now_ms() >= end)
            return 0;
        nap(1);
    }
}

static void fx_down(fixture *f)
{
    if (f->forked) {
        static const char *const bad[] = {
            "ERROR: AddressSanitizer", "ThreadSanitizer", "runtime error",
            "LeakSanitizer", "Assertion", NULL
        };
        char *err;
        int i;
        pid_t group = f->pid;
        if (f->pid > 0) {
            /* a test that is skipped: a stop of its start would be a death */
            for (i = 0; g_skip != NULL && i < 4000 && !fx_wait(f, 0) &&
                        !fx_log_has(f, "EMPM0489"); i++)
                nap(1);
            if (!f->ended)
                signal_process(f->pid, SIGTERM);
            if (!CHECK(fx_wait(f, PATIENCE)))
                signal_group(group, SIGKILL);
            else if (!CHECK(WIFEXITED(f->status) &&
                            WEXITSTATUS(f->status) <= f->failure_ok))
                printf("the parent's status is 0x%x (1: empm_run failed, "
                       "3: leak, 4: signals not restored, 5: descriptors)\n",
                       (unsigned)f->status);
            if (!CHECK(fx_reap(f, group, SCALED(3000)))) {
                signal_group(group, SIGKILL);
                fx_reap(f, group, 1000);
            }
        }
        err = slurp(f->err_fd);
        for (i = 0; bad[i] != NULL; i++)
            if (strstr(err, bad[i]) != NULL) {
                fail(__FILE__, __LINE__, "the server said:\n%s", err);
                break;
            }
        free(err);
        if (!f->deaths_ok && f->cfg.processes >= 0)
            CHECK_IN(get_int(&shm->child_starts), 0,
                     f->cfg.processes > 0 ? f->cfg.processes : 1);
    } else if (f->s != NULL) {
        empm_stop(f->s);
        if (!CHECK_INT(empm_wait(f->s, PATIENCE), EMPM_OK)) {
            char *log = slurp(f->log_fd);
            printf("%s", log);
            free(log);
        }
        empm_free(f->s);
    }
    fx_close_files(f);
}

/* --- tests with a server and a client ------------------------------------ */

/* "Directive value; Directive value" -> f->cfg; 0: one of them is wrong. */
static int fx_set(fixture *f, const char *settings)
{
    char text[512], said[200], *next = text, *one, *value;

    snprintf(text, sizeof text, "%s", settings != NULL ? settings : "");
    while (next != NULL) {
        one = next + strspn(next, " ");
        next = strchr(one, ';');
        if (next != NULL)
            *next++ = 0;
        if (*one == 0)
            continue;
        value = one + strcspn(one, " ");
        if (*value != 0)
            *value++ = 0;
        if (empm_set(&f->cfg, one, value, said, sizeof said) != EMPM_OK) {
            fail(__FILE__, __LINE__, "\"%s %s\": %s", one, value, said);
            return 0;
        }
    }
    return 1;
}

/* All the timeouts that are not under test are out of the way. */
#define LONG_TIMES "Timeout 60; KeepAliveTimeout 60; " \
                   "RequestReadTimeout header=60 body=60,MinRate=500; "

static void long_times(fixture *f)
{
    fx_set(f, LONG_TIMES);
}

typedef void served_fn(fixture *f, client *c);

static void fx_test(fixture *f, const char *settings, served_fn *body)
{
    client c;

    if (!fx_set(f, settings)) {
        fx_close_files(f);
        return;
    }
    if (!fx_up(f))
        return;
    cl_init(&c);
    c.port = f->port;
    body(f, &c);
    cl_close(&c);
    fx_down(f);
}

/* SERVED(section, name, "Directive value; Directive value") { ... } has a
 * server `f` with these settings (NULL: with those of fx_init()) and a client
 * `c` of it, which connects when it sends. Both are gone at the test's end. It
 * runs in either mode; SERVED_HERE() runs in threads of this process only, so
 * that it may look into f->s; SERVED_BY() has a parent and so many children.
 * SERVED_WITH() has statements that prepare f, for what is no directive. */
#define SERVED(section, name, settings) \
    SERVED_WITH(section, name, T_LIVE, fx_init(f), settings)
#define SERVED_HERE(section, name, settings) \
    SERVED_WITH(section, name, T_PLAIN, fx_init(f), settings)
#define SERVED_BY(section, name, children, settings) \
    SERVED_WITH(section, name, T_PLAIN, fx_init_forked(f, children), settings)

#define SERVED_WITH(section, name, flags, prepare, settings)                  \
    static served_fn s_##section##_##name;                                    \
    TEST_WITH(section, name, flags)                                           \
    {                                                                         \
        fixture fx, *f = &fx;                                                 \
        prepare;                                                              \
        fx_test(f, settings, s_##section##_##name);                           \
    }                                                                         \
    static void s_##section##_##name(                                         \
        __attribute__((unused)) fixture *f, __attribute__((unused)) client *c)

/* --- short ways to ask --------------------------------------------------- */

static int cl_open(client *c, const fixture *f)
{
    if (cl_connect_port(c, f->port, 0) == 0)
        return 0;
    fail(__FILE__, __LINE__, "connect: %s", strerror(errno));
    return -1;
}

/* A client that connects when it sends, as a test's c. */
static client client_of(const fixture *f)
{
    client c;

    cl_init(&c);
    c.port = f->port;
    return c;
}

static int ask_n(const fixture *f, client *c, const void *raw, size_t n)
{
    if (cl_open(c, f) != 0)
        return -1;
    cl_send(c, raw, n);
    return cl_reply(c);
}

static int ask(const fixture *f, client *c, const char *raw)
{
    return ask_n(f, c, raw, strlen(raw));
}

/* GET on a new connection that is closed again; the status. */
static int get_status(const fixture *f, const char *target)
{
    client c;
    int status;

    if (cl_connect_port(&c, f->port, 0) != 0)
        return -2;
    cl_printf(&c, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
              target);
    status = cl_reply(&c);
    cl_close(&c);
    return status;
}

/* A number of the status page, or -1. */
static long status_number(const fixture *f, const char *name)
{
    client c;
    long n = -1;
    const char *p;

    if (ask(f, &c, "GET /server-status?auto HTTP/1.1\r\nHost: a\r\n"
            "\r\n") == 200 &&
        (p = strstr(c.body.p, name)) != NULL && p[strlen(name)] == ':')
        n = strtol(p + strlen(name) + 1, NULL, 10);
    cl_close(&c);
    return n;
}

/* On a new connection of a client that has a server; the one before is
 * closed. */
static int cl_ask_n(client *c, const void *raw, size_t n)
{
    cl_close(c);
    cl_send(c, raw, n);
    return cl_reply(c);
}

static int cl_ask(client *c, const char *raw)
{
    return cl_ask_n(c, raw, strlen(raw));
}

/* GET on an open connection. */
static int cl_get(client *c, const char *target)
{
    cl_printf(c, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", target);
    return cl_reply(c);
}

/* The next request on `c` is answered as it should: nothing is out of step. */
static void check_in_step(client *c)
{
    if (CHECK_INT(cl_get(c, "/hello/again"), 200))
        CHECK_STR(c->body.p, "Hello, again!\n");
}

/* --- messages ------------------------------------------------------------ */

#define GET1  "GET /hello HTTP/1.1\r\nHost: a\r\n"
#define POST1 "POST /echo HTTP/1.1\r\nHost: a\r\n"
#define CHUNK POST1 "Transfer-Encoding: chunked\r\n\r\n"
#define CL(v) POST1 "Content-Length: " v "\r\n\r\nhello"
#define TE(v) POST1 "Transfer-Encoding:" v "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

/* A POST with n bytes of the pattern: with a length (chunk 0) or in chunks. */
static void put_post(str *s, const char *target, size_t n, size_t chunk,
                     const char *fields)
{
    char *p = (char *)malloc(n + 1);
    size_t at;

    if (p == NULL)
        abort();
    pattern_fill(p, n, 0);
    str_addf(s, "POST %s HTTP/1.1\r\nHost: a\r\n%s", target, fields);
    if (chunk == 0) {
        str_addf(s, "Content-Length: %lu\r\n\r\n", (unsigned long)n);
        str_add(s, p, n);
    } else {
        str_addf(s, "Transfer-Encoding: chunked\r\n\r\n");
        for (at = 0; at < n; at += chunk) {
            size_t k = n - at < chunk ? n - at : chunk;
            str_addf(s, "%lx%s\r\n", (unsigned long)k, chunk >= 1000 &&
                     at % 3 ? ";x=\"y\"" : "");
            str_add(s, p + at, k);
            str_addf(s, "\r\n");
        }
        str_addf(s, "0\r\nX-Trailer: end\r\n\r\n");
    }
    free(p);
}

static uint32_t pattern_sum(size_t n)
{
    uint32_t h = 2166136261u;
    size_t i;

    for (i = 0; i < n; i++) {
        char ch = pattern((int64_t)i);
        h = sum_more(h, &ch, 1);
    }
    return h;
}

/* --- clients in threads --------------------------------------------------- */

typedef struct hammer {
    pthread_t thread;
    int       port;
    int      *stop;
    int       good;
} hammer;

static void *hammer_run(void *arg)
{
    hammer *h = (hammer *)arg;

    while (!get_int(h->stop)) {
        client c;
        int i;
        if (cl_connect_port(&c, h->port, 0) != 0) {
            nap(1);
            continue;
        }
        for (i = 0; i < 20 && !get_int(h->stop); i++) {
            if (cl_get(&c, "/hello/again") != 200)
                break;
            add_int(&h->good, 1);
        }
        cl_close(&c);
    }
    return NULL;
}

static void hammers_start(hammer *h, int n, int port, int *stop)
{
    int i;

    set_int(stop, 0);
    for (i = 0; i < n; i++) {
        memset(&h[i], 0, sizeof h[i]);
        h[i].port = port;
        h[i].stop = stop;
        pthread_create(&h[i].thread, NULL, hammer_run, &h[i]);
    }
}

static void hammers_stop(hammer *h, int n, int *stop)
{
    int i;

    set_int(stop, 1);
    for (i = 0; i < n; i++)
        pthread_join(h[i].thread, NULL);
}

/* ---------------------------------------------------------------------------
 * >>map -- the page for a newcomer says what is true
 * ------------------------------------------------------------------------- */

static char *slurp_path(const char *path);

/* Does `name` stand between p and end, as a word or as the beginning of one? */
static int stands_in(const char *p, const char *end, const char *name)
{
    const size_t n = strlen(name);

    for (; p + n <= end; p++)
        if (memcmp(p, name, n) == 0 && !isalnum((unsigned char)p[-1]) &&
            p[-1] != '_')
            return 1;
    return 0;
}

/* The picture of states in >>map has each of them. */
TEST(map, the_picture_names_every_state)
{
    char *text = slurp_path("eventmpm.h");
    char *p = strstr(text, "\n * States of a connection;"), *end;
    int i;

    end = p != NULL ? strstr(p, "\n * Locks") : NULL;
    if (CHECK(end != NULL))
        for (i = 0; i < EMPM__STATES; i++) {
            context("%s", empm__states[i].name);
            CHECK(stands_in(p, end, empm__states[i].name));
        }
    no_context();
    free(text);
}

/* ---------------------------------------------------------------------------
 * >>tools -- dates, numbers, escapes
 * ------------------------------------------------------------------------- */

/* A time that is written as an HTTP date (RFC 9110 5.6.7) is read back as the
 * same time. */
TEST(tools, dates_there_and_back)
{
    static const struct { int64_t t; const char *text; } cases[] = {
        { 0, "Thu, 01 Jan 1970 00:00:00 GMT" },
        { 784111777, "Sun, 06 Nov 1994 08:49:37 GMT" },
        { 951782400, "Tue, 29 Feb 2000 00:00:00 GMT" },
        { 4107542399, "Sun, 28 Feb 2100 23:59:59 GMT" },
        { 4107542400, "Mon, 01 Mar 2100 00:00:00 GMT" },
        { 2147483648, "Tue, 19 Jan 2038 03:14:08 GMT" }
    };
    char text[30];
    int64_t t;
    EACH(cases, i) {
        empm__format_date(text, cases[i].t);
        CHECK_STR(text, cases[i].text);
        CHECK_INT(empm__date_parse(text, 0), cases[i].t);
    }
    for (t = 0; t < 4102444800; t += 86400 * 13 + 3607) {
        empm__format_date(text, t);
        if (empm__date_parse(text, 0) != t)
            CHECK_INT(empm__date_parse(text, 0), t);
    }
}

/* The three forms of a date are read (RFC 9110 5.6.7). Any other text is no
 * date, so that its field is ignored. */
TEST(tools, dates_of_three_forms)
{
    static const struct { const char *text; int64_t t; } rows[] = {
        /* seen in the wild */
        { "Sun, 06 Nov 1994 08:49:37 GMT",    784111777 },
        { "Sunday, 06-Nov-94 08:49:37 GMT",   784111777 },
        { "Sun Nov  6 08:49:37 1994",         784111777 },
        { "Sun Nov 06 08:49:37 1994",         784111777 },
        { "Sun, 6 Nov 1994 08:49:37 GMT",     784111777 },
        { "Tue, 31 Dec 2024 23:59:60 GMT",    1735689600 },  /* a leap second */
        { "Tuesday, 29-Feb-00 00:00:00 GMT",  951782400 },
        { "Thu, 29 Feb 2024 00:00:00 GMT",    1709164800 },
        { "Thu, 29 Feb 2023 00:00:00 GMT",    -1 },
        { "Sunday, 29-Feb-23 00:00:00 GMT",   -1 },
        { "Sun, 06 Nov 1994 08:49:37 GMT trailing", -1 },
        { "Sun, 06 Nov 1994 08:49:37 GMT,",   -1 },
        { "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT", -1 },
        { "Sun, 06 Nov 1994 08:49:37 UTC",    -1 },
        { "Sun, 06 Nov 1994 08:49:37",        -1 },
        { "Sun, 32 Nov 1994 08:49:37 GMT",    -1 },
        { "Sun, 31 Nov 1994 08:49:37 GMT",    -1 },
        { "Sun, 00 Nov 1994 08:49:37 GMT",    -1 },
        { "Sun, 06 Nov 1994 24:00:00 GMT",    -1 },
        { "Sun, 06 Nov 1994 08:60:00 GMT",    -1 },
        { "Sun, 06 Nov 1994 08:49:61 GMT",    -1 },
        { "Sun, +6 Nov 1994 08:49:37 GMT",    -1 },
        { "Sun, 06 Nov 1994 8:49:37 GMT",     -1 },
        { "Sun, 06 Nov 94 08:49:37 GMT",      -1 },
        { "Sun, 06 Nov 0000 08:49:37 GMT",    -1 },
        { "sun, 06 nov 1994 08:49:37 gmt",    -1 },     /* case counts */
        { "Son, 06 Nov 1994 08:49:37 GMT",    -1 },
        { "Sun, 06 Mai 1994 08:49:37 GMT",    -1 },
        { "Sun, 06  Nov 1994 08:49:37 GMT",   -1 },
        { " Sun, 06 Nov 1994 08:49:37 GMT",   -1 },
        { "Sunday, 06-Nov-1994 08:49:37 GMT", -1 },
        { "784111777", -1 }, { "tomorrow", -1 }, { "0", -1 }, { "", -1 }
    };
    /* Two digits: the last such year that is not more than 50 years ahead. */
    static const struct { const char *now, *text, *means; } years[] = {
        { "Sat, 28 Nov 2026 12:00:00 GMT", "Saturday, 01-Jan-77 00:00:00 GMT",
          "Sat, 01 Jan 1977 00:00:00 GMT" },
        { "Sat, 28 Nov 2026 12:00:00 GMT", "Wednesday, 01-Jan-76 00:00:00 GMT",
          "Wed, 01 Jan 2076 00:00:00 GMT" },
        { "Sat, 28 Nov 2026 12:00:00 GMT", "Saturday, 25-Dec-76 00:00:00 GMT",
          "Sat, 25 Dec 1976 00:00:00 GMT" },
        { "Sat, 28 Nov 2026 12:00:00 GMT", "Saturday, 28-Nov-26 00:00:00 GMT",
          "Sat, 28 Nov 2026 00:00:00 GMT" },
        { "Thu, 01 Jan 2088 00:00:00 GMT", "Wednesday, 01-Jan-05 00:00:00 GMT",
          "Thu, 01 Jan 2105 00:00:00 GMT" }
    };
    EACH(rows, i) {
        context("%s", rows[i].text);
        CHECK_INT(empm__date_parse(rows[i].text, 1795867200), rows[i].t);
    }
    EACH(years, i) {
        context("%s in %s", years[i].text, years[i].now);
        CHECK_INT(empm__date_parse(years[i].text,
                                   empm__date_parse(years[i].now, 0)),
                  empm__date_parse(years[i].means, 0));
    }
}

/* A number from the wire is digits only, and one that does not fit in 63 bits
 * is refused: every size of a request is read here. */
TEST(tools, numbers_are_digits_and_fit)
{
    static const struct { const char *text; int64_t value; } cases[] = {
        { "0", 0 }, { "7", 7 }, { "9223372036854775807", INT64_MAX },
        { "9223372036854775808", -2 }, { "99999999999999999999", -2 },
        { "", -1 }, { "+1", -1 }, { "-1", -1 }, { "0x10", -1 }, { "1_0", -1 },
        { " 1", -1 }, { "1 ", -1 }, { "1Z", -1 }
    };
    EACH(cases, i)
        CHECK_INT(empm__parse_u63(cases[i].text, strlen(cases[i].text)),
                  cases[i].value);
}

/* A percent code is decoded once. A code that is cut, is no hex or is %00
 * makes the whole text invalid. */
TEST(tools, decode_once_and_strictly)
{
    static const struct {
        const char *in;
        int         plus;
        const char *out;
    } cases[] = {
        { "abc", 0, "abc" }, { "a%20b", 0, "a b" }, { "%41%7a", 0, "Az" },
        { "%252e", 0, "%2e" }, { "a+b", 0, "a+b" }, { "a+b", 1, "a b" },
        { "%ff", 0, "\xff" }, { "%", 0, NULL }, { "%2", 0, NULL },
        { "%4z", 0, NULL },
        { "%zz", 0, NULL }, { "%00", 0, NULL }, { "a%0", 0, NULL }, { "", 0,
                                                                     "" }
    };
    char to[32];
    EACH(cases, i) {
        long n = empm__text_decode(to, cases[i].in, strlen(cases[i].in),
                                   cases[i].plus);
        if (cases[i].out == NULL)
            CHECK_INT(n, -1);
        else
            CHECK_STR(n < 0 ? "refused" : to, cases[i].out);
    }
}

/* Blanks are cut at the end alone, and never before the text begins. */
TEST(tools, trimmed_at_the_end)
{
    static const char blanks[] = "x \t y \t ";
    CHECK_INT((int)empm__text_trimmed(blanks, 8), 5);
    CHECK_INT((int)empm__text_trimmed(blanks, 4), 1);
    CHECK_INT((int)empm__text_trimmed(blanks + 1, 3), 0);
    CHECK_INT((int)empm__text_trimmed(blanks, 0), 0);
}

/* The text of a small file ends where the file or the room does; a file that
 * cannot be read is an empty text. */
TEST(tools, text_of_a_small_file)
{
    char path[300], text[8];
    write_file(tmp_path(path, sizeof path, "small"), "0123456789", 10);
    empm__text_of_file(path, text, sizeof text);
    CHECK_STR(text, "0123456");
    write_file(path, "42", 2);
    empm__text_of_file(path, text, sizeof text);
    CHECK_STR(text, "42");
    unlink(path);
    empm__text_of_file(path, text, sizeof text);
    CHECK_STR(text, "");
    empm__text_of_file("/", text, sizeof text);     /* opens, but is no file */
    CHECK_STR(text, "");
}

/* ---------------------------------------------------------------------------
 * >>config -- defaults, directives, what cannot be
 * ------------------------------------------------------------------------- */

static int g_said[8];               /* lines per level */

static void say(enum empm_log_level level, const char *line, void *user)
{
    (void)user;
    CHECK(line != NULL && line[0] != 0 && strchr(line, '\n') == NULL);
    g_said[level & 7]++;
}

/* The defaults are Apache's, but for MaxKeepAliveRequests and the limit of a
 * body, and pass the check. */
TEST(config, defaults_are_apaches)
{
    empm_config cfg = empm_defaults();

    CHECK_INT(cfg.start_servers, 3);
    CHECK_INT(cfg.server_limit, 16);
    CHECK_INT(cfg.threads_per_child, 25);
    CHECK_INT(cfg.thread_limit, 64);
    CHECK_INT(cfg.max_request_workers, 400);
    CHECK_INT(cfg.min_spare_threads, 75);
    CHECK_INT(cfg.max_spare_threads, 250);
    CHECK_INT(cfg.timeout_ms, 60000);
    CHECK_INT(cfg.keep_alive_timeout_ms, 5000);
    CHECK_INT(cfg.max_keep_alive_requests, 1000);   /* Apache: 100 */
    CHECK_INT(cfg.header_timeout_ms, 20000);
    CHECK_INT(cfg.header_timeout_max_ms, 40000);
    CHECK_INT(cfg.limit_request_line, 8190);
    CHECK_INT(cfg.limit_request_fields, 100);
    CHECK_INT(cfg.limit_request_field_size, 8190);
    CHECK_INT(cfg.limit_request_body, 1 << 20);
    cfg.routes = routes;
    memset(g_said, 0, sizeof g_said);
    CHECK_INT(empm_check(&cfg, say, NULL), 0);
    CHECK_INT(g_said[EMPM_LOG_ERROR], 0);
    empm_config_free(&cfg);
}

/* A message fits into any room that the caller gives, and has its NUL there. */
TEST(config, messages_fit)
{
    empm_config cfg = empm_defaults();
    char err[8];
    char *big = (char *)malloc(100000);
    size_t n;

    for (n = 0; n <= sizeof err; n++) {
        memset(err, 'x', sizeof err);
        CHECK_INT(empm_set(&cfg, "NoSuchDirective", "1", n ? err : NULL, n),
                  EMPM_EINVAL);
        if (n != 0)
            CHECK(memchr(err, 0, n) != NULL);
        if (n < sizeof err)
            CHECK_INT(err[n], 'x');
    }
    if (big != NULL) {
        memset(big, '9', 99999);
        big[99999] = 0;
        CHECK_INT(empm_set(&cfg, "Timeout", big, err, sizeof err), EMPM_EINVAL);
        CHECK_INT(empm_set(&cfg, big, "1", err, sizeof err), EMPM_EINVAL);
    }
    free(big);
    empm_config_free(&cfg);
}

/* empm_check() says every error, corrects what Apache corrects, and returns
 * how many errors there are. */
TEST(config, check_says_every_error)
{
    static const empm_route bad[] = {
        EMPM_ROUTE("GET no-slash", h_hello, NULL),
        EMPM_ROUTE("GET /{",       h_hello, NULL),
        EMPM_ROUTES_END
    };
    empm_config cfg = empm_defaults();
    int errors;

    cfg.routes = bad;
    cfg.spool_directory = "/no/such/directory";
    cfg.async_request_worker_factor = 0;
    cfg.listen[0] = "no such:thing:at all";
    memset(g_said, 0, sizeof g_said);
    errors = empm_check(&cfg, say, NULL);
    CHECK_IN(errors, 5, 9);
    CHECK_INT(g_said[EMPM_LOG_ERROR], errors);
    CHECK_INT(empm_check(&cfg, NULL, NULL), errors);
    cfg = empm_defaults();          /* what Apache clamps */
    cfg.routes = routes;
    cfg.threads_per_child = -1;
    cfg.max_request_workers = 0;
    memset(g_said, 0, sizeof g_said);
    CHECK_INT(empm_check(&cfg, say, NULL), 0);
    CHECK(g_said[EMPM_LOG_WARN] >= 2);
    CHECK_INT(cfg.threads_per_child, 1);
    cfg = empm_defaults();
    CHECK(empm_check(&cfg, NULL, NULL) > 0);    /* no routes */
}

/* Starts with `v` in the number of a directive: refused, or the server
 * works. */
static void start_with_odd_number(const empm__directive *d, int v)
{
    fixture f;
    client c;
    int rc, status;

    context("%s = %d", d->name, v);
    fx_init(&f);
    empm__directive_set_number(&f.cfg, d, v);
    rc = empm_start(&f.cfg, &f.s);
    if (rc != EMPM_OK) {
        CHECK_IN(rc, EMPM_ESYS, EMPM_EINVAL);
        CHECK(f.s == NULL);
        fx_close_files(&f);
        return;
    }
    f.port = empm_port(f.s, 0);
    cl_connect_port(&c, f.port, 0);
    c.patience = SCALED(2000);
    cl_puts(&c, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    status = cl_reply(&c);          /* a limit or a time of 0 or 1 may bite */
    CHECK(status == 200 || status == 414 || status == 431 || status == 408 ||
          (status == 0 && v >= 0 && v <= 1));
    cl_close(&c);
    fx_down(&f);
}

/* Any number in any field is refused, or the server works with it. */
TEST(config, odd_numbers)
{
    static const int values[] = { -1, 0, 1, INT_MAX, INT_MIN };
    static const empm__directive read[] = {
        EMPM__SET("header, max", header_timeout_max_ms, INT, 0, 0, NULL, NULL),
        EMPM__SET("header, rate", header_min_rate, INT, 0, 0, NULL, NULL),
        EMPM__SET("body", body_timeout_ms, INT, 0, 0, NULL, NULL),
        EMPM__SET("body, max", body_timeout_max_ms, INT, 0, 0, NULL, NULL),
        EMPM__SET("body, rate", body_min_rate, INT, 0, 0, NULL, NULL)
    };
    const size_t n = EMPM__COUNT(empm__directives);
    size_t i, k;

    for (i = 0; i < n + EMPM__COUNT(read); i++) {
        const empm__directive *d = i < n ? &empm__directives[i] : &read[i - n];
        if (d->kind != EMPM__KIND_READ && (!empm__directive_is_number(d) ||
                             (i < n && d != empm__directive_first(d))))
            continue;
        for (k = 0; k < EMPM__COUNT(values); k++)
            if (g_slow < 8 || k == i % EMPM__COUNT(values))
                start_with_odd_number(d, values[k]);  /* there half a second */
    }
    no_context();
}

/* empm_start() refuses each Listen that names no socket. */
TEST(config, start_refuses_nonsense)
{
    static const char *const listens[] = {
        "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:", "x y z", "fd:99999",
        "fd:", "fd:x", "unix:", "300.1.1.1:80", "[::1:80", "127.0.0.1:0 bogus",
        "unix:/no/such/directory/x.sock", "127.0.0.1:80x"
    };
    size_t i;

    for (i = 0; i < sizeof listens / sizeof listens[0]; i++) {
        fixture f;
        context("listen \"%s\"", listens[i]);
        fx_init(&f);
        f.cfg.listen[0] = listens[i];
        CHECK(empm_start(&f.cfg, &f.s) < 0);
        CHECK(f.s == NULL);
        if (f.s != NULL)
            fx_down(&f);
        else
            fx_close_files(&f);
    }
}

/* A port that is in use fails the start, and the log names it. */
TEST(config, port_in_use)
{
    fixture f, g;
    char listen[64];

    fx_init(&f);
    if (!fx_up(&f))
        return;
    fx_init(&g);
    snprintf(listen, sizeof listen, "127.0.0.1:%d", f.port);
    g.cfg.listen[0] = listen;
    CHECK_INT(empm_start(&g.cfg, &g.s), EMPM_ESYS);
    CHECK(fx_log_has(&g, listen) || fx_log_has(&g, "in use"));
    fx_close_files(&g);
    fx_down(&f);
}

/* Names of directives have no case, and values have Apache's syntax and
 * units. */
TEST(config, directives_as_apache_spells_them)
{
    static const struct { const char *name, *value; int ok; } cases[] = {
        { "KeepAliveTimeout", "7", 1 }, { "keepalivetimeout", "100ms", 1 },
        { "Timeout", "2min", 1 }, { "Timeout", "soon", 0 },
        { "Timeout", "-1", 0 }, { "KeepAlive", "Off", 1 },
        { "KeepAlive", "maybe", 0 }, { "ThreadsPerChild", "4", 1 },
        { "ThreadsPerChild", "4x", 0 }, { "MaxClients", "100", 1 },
        { "AsyncRequestWorkerFactor", "1.5", 1 },
        { "AsyncRequestWorkerFactor", "0", 0 },
        { "AsyncRequestWorkerFactor", "2 apples", 0 },
        { "RequestReadTimeout", "header=10-30,MinRate=100 body=5", 1 },
        { "RequestReadTimeout", "header=30-10,MinRate=100", 0 },
        { "RequestReadTimeout", "header=10-30", 0 },
        { "RequestReadTimeout", "header=10,MinRate=0", 0 },
        { "RequestReadTimeout", "tail=1", 0 }, { "NoSuchThing", "1", 0 },
        { "LimitRequestBody", "9223372036854775807", 1 },
        { "LimitRequestBody", "9223372036854775808", 0 },
        { "LogLevel", "debug", 1 }, { "LogLevel", "loud", 0 }
    };
    empm_config cfg = empm_defaults();
    char err[200];
    size_t i;
    for (i = 0; i < EMPM__COUNT(cases); i++) {
        int r;
        err[0] = '\0';
        r = empm_set(&cfg, cases[i].name, cases[i].value, err, sizeof err);
        if ((r == EMPM_OK) != cases[i].ok)
            CHECK_STR(cases[i].value, cases[i].ok ? "accepted" : "refused");
        CHECK(cases[i].ok || strstr(err, cases[i].name) != NULL);
    }
    CHECK_INT(cfg.keep_alive_timeout_ms, 100);
    CHECK_INT(cfg.timeout_ms, 120000);
    CHECK_INT(cfg.max_request_workers, 100);
    CHECK_INT(cfg.header_timeout_ms, 10000);
    CHECK_INT(cfg.header_timeout_max_ms, 30000);
    CHECK_INT(cfg.header_min_rate, 100);
    CHECK_INT(cfg.body_timeout_ms, 5000);
    CHECK_INT(cfg.body_min_rate, 0);
    empm_config_free(&cfg);
}

/* --- what is said, and files --------------------------------------------- */

static str g_heard;                 /* "level EMPMnnnn: text" a line */

static void hear(enum empm_log_level level, const char *line, void *user)
{
    (void)user;
    CHECK(strchr(line, '\n') == NULL && strncmp(line, "EMPM", 4) == 0);
    str_addf(&g_heard, "%d %s\n", (int)level, line);
}

static empm__report hearing(void)
{
    empm__report rep;

    memset(&rep, 0, sizeof rep);
    rep.say = hear;
    str_free(&g_heard);
    str_addf(&g_heard, "\n");
    return rep;
}

/* How many lines of this level were heard; code 0: with any code. */
static int heard(int level, int code)
{
    char want[32];
    const char *p = g_heard.p;
    int n = 0;

    snprintf(want, sizeof want, code != 0 ? "\n%d EMPM%04d: " : "\n%d ", level,
             code);
    for (; (p = strstr(p, want)) != NULL; p++)
        n++;
    return n;
}

static int conf_write(const char *name, const char *text, size_t n)
{
    char path[400];

    unlink(tmp_path(path, sizeof path, name));  /* truncating waits for disks */
    return write_file(path, text, n);
}

/* Loads `text` as g_tmp/x.conf; what is said is heard. */
static int conf_load_n(empm_config *cfg, const char *text, size_t n)
{
    char path[400];
    empm__report rep = hearing();

    CHECK_INT(conf_write("x.conf", text, n), 0);
    empm__config_load(cfg, tmp_path(path, sizeof path, "x.conf"), &rep);
    CHECK_INT(rep.errors, heard(EMPM_LOG_ERROR, 0));
    CHECK_INT(rep.errors > 0, rep.result < 0);
    return rep.result;
}

static int conf_load(empm_config *cfg, const char *text)
{
    return conf_load_n(cfg, text, strlen(text));
}

/* The field behind a directive, as text. */
static const char *conf_value(const empm_config *cfg, const char *name)
{
    static char text[64];
    const empm__directive *d = empm__directive_find(name);
    const char *s;

    if (d == NULL)
        return "no such directive";
    if (d->kind == EMPM__KIND_REAL)
        snprintf(text, sizeof text, "%g", empm__directive_real(cfg, d));
    else if (empm__directive_is_number(d) || d->kind == EMPM__KIND_READ)
        snprintf(text, sizeof text, "%lld",
                 (long long)empm__directive_number(cfg, d));
    else
        return (s = empm__directive_text(cfg, d)) != NULL ? s : "(null)";
    return text;
}

/* Each rule of the event MPM's check_config() corrects its setting to Apache's
 * value. */
TEST(config, rules_are_apaches)
{
    static const struct {
        const char *text, *name, *want;
        int code, level;
    } rows[] = {
        { "ServerLimit 20001", "ServerLimit", "20000", 497, EMPM_LOG_WARN },
        { "ServerLimit 0\nMaxRequestWorkers 25", "ServerLimit", "1", 499,
          EMPM_LOG_WARN },
        { "ServerLimit -7\nMaxRequestWorkers 25", "ServerLimit", "1", 499,
          EMPM_LOG_WARN },
        { "ThreadLimit 100001", "ThreadLimit", "100000", 502, EMPM_LOG_WARN },
        { "ThreadLimit 0\nThreadsPerChild 1\nMaxRequestWorkers 16",
          "ThreadLimit", "1", 504, EMPM_LOG_WARN },
        { "ThreadsPerChild 65\nMaxRequestWorkers 640", "ThreadsPerChild", "64",
          507, EMPM_LOG_WARN },
        { "ThreadsPerChild 0\nMaxRequestWorkers 10", "ThreadsPerChild", "1",
          509, EMPM_LOG_WARN },
        { "MaxRequestWorkers 24", "MaxRequestWorkers", "25", 511,
          EMPM_LOG_WARN },
        { "MaxRequestWorkers 0", "MaxRequestWorkers", "25", 511,
          EMPM_LOG_WARN },
        { "MaxRequestWorkers 399", "MaxRequestWorkers", "375", 513,
          EMPM_LOG_WARN },
        { "MaxRequestWorkers 425", "MaxRequestWorkers", "400", 515,
          EMPM_LOG_WARN },
        { "ServerLimit 20\nMaxRequestWorkers 500", "MaxRequestWorkers", "500",
          0, EMPM_LOG_WARN },
        { "StartServers 0", "StartServers", "1", 517, EMPM_LOG_WARN },
        { "MinSpareThreads 0", "MinSpareThreads", "1", 519, EMPM_LOG_WARN },
        { "StartServers 17", "StartServers", "16", 5110, EMPM_LOG_INFO },
        { "MaxSpareThreads 99", "MaxSpareThreads", "100", 5111, EMPM_LOG_INFO },
        { "MaxSpareThreads -1", "MaxSpareThreads", "100", 5111, EMPM_LOG_INFO },
        { "MaxClients 50", "MaxRequestWorkers", "50", 521, EMPM_LOG_INFO },
        { "MaxRequestsPerChild 7", "MaxConnectionsPerChild", "7", 545,
          EMPM_LOG_INFO },
        /* ours */
        { "SendBufferSize 100", "SendBufferSize", "512", 5112, EMPM_LOG_WARN },
        { "ReceiveBufferSize 511", "ReceiveBufferSize", "512", 5112,
          EMPM_LOG_WARN },
        { "SendBufferSize 0", "SendBufferSize", "0", 0, EMPM_LOG_WARN },
        { "ListenCoresBucketsRatio 8", "StartServers", "3", 5121,
          EMPM_LOG_INFO },
        { "Processes 20\nServerLimit 4", "ServerLimit", "20", 0,
         EMPM_LOG_WARN },
        { "Processes 3", "MaxRequestWorkers", "75", 0, EMPM_LOG_WARN },
        { "AsyncRequestWorkerFactor 0.5", "AsyncRequestWorkerFactor", "0.5", 0,
          EMPM_LOG_WARN }
    };
    size_t i;
    int strict;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (strict = 0; strict < 2; strict++) {
            empm_config cfg = empm_defaults();
            empm__report rep;
            str text;
            const int refused = strict && rows[i].code != 0 &&
                                rows[i].level == EMPM_LOG_WARN;
            context("%.60s, Strict %d", rows[i].text, strict);
            memset(&text, 0, sizeof text);
            str_addf(&text, "Strict %s\n%s\n", strict ? "On" : "Off",
                     rows[i].text);
            cfg.routes = routes;
            CHECK_INT(conf_load(&cfg, text.p), EMPM_OK);
            memset(&rep, 0, sizeof rep);
            rep.say = hear;
            CHECK_INT(empm__check_all(&cfg, NULL, &rep),
                      refused ? EMPM_EINVAL : EMPM_OK);
            CHECK_INT(rep.errors, refused);
            CHECK_INT(heard(EMPM_LOG_ERROR, 0), refused);
            CHECK_STR(conf_value(&cfg, rows[i].name), rows[i].want);
            if (rows[i].code != 0)
                CHECK_INT(heard(refused ? EMPM_LOG_ERROR : rows[i].level,
                                rows[i].code), 1);
            /* one rule at a time; and what is corrected stays so */
            CHECK_INT(heard(EMPM_LOG_WARN, 0), !strict && rows[i].code != 0 &&
                                               rows[i].level == EMPM_LOG_WARN);
            rep = hearing();
            CHECK_INT(empm__check_all(&cfg, NULL, &rep), EMPM_OK);
            CHECK_INT(heard(EMPM_LOG_WARN, 0) + heard(EMPM_LOG_INFO, 0), 0);
            str_free(&text);
            empm_config_free(&cfg);
        }
    no_context();
    str_free(&g_heard);
}

/* A scoreboard that no size_t can count is no memory, and not a small one. */
TEST(config, limits_that_overflow)
{
    empm__score sb;
    const int huge = sizeof(size_t) > 4 ? INT_MAX : 100000;

    memset(&sb, 0, sizeof sb);
    CHECK_INT(empm__score_init(&sb, sizeof(size_t) > 4 ? INT_MAX : 40002, huge,
                               0), EMPM_ENOMEM);
    CHECK(sb.mem == NULL);
    empm__score_free(&sb);
}

/* The start says whether long bodies can be kept. A server that keeps none
 * needs no /tmp, as many a container has none. */
TEST(config, a_spool_directory_that_is_no_good)
{
    static const empm_route one[] = {
        EMPM_ROUTE("GET /health", empm_health_page, NULL), EMPM_ROUTES_END
    };
    char dir[300];
    int status = -1, i;
    pid_t pid;

    for (i = 0; i < 2; i++) {
        mkdir(tmp_path(dir, sizeof dir, i ? "bare" : "closed"), 0555);
        chmod(g_tmp, 0755);
        context("%s", dir);
        fflush(NULL);
        if ((pid = fork()) == 0) {
            empm_config cfg = empm_defaults();
            empm_server *s = NULL;
            int ok;
            hearing();
            cfg.routes = one;
            cfg.listen[0] = "127.0.0.1:0";
            if (i == 0) {
                cfg.spool_directory = dir;
                if (geteuid() == 0 && setuid(65534) < 0)
                    _exit(2);
                ok = empm_check(&cfg, hear, NULL) == 0 &&
                     heard(EMPM_LOG_WARN, 5004) == 1;
            } else {
                if (chroot(dir) < 0 || chdir("/") < 0)
                    _exit(3);
                ok = empm_start(&cfg, &s) == EMPM_OK;
                empm_free(s);
                ok = ok && empm_check(&cfg, hear, NULL) == 0 &&
                     heard(EMPM_LOG_WARN, 5107) == 1;
            }
            _exit(ok ? 0 : 1);
        }
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 3)   /* not root */
            CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        rmdir(dir);
    }
    no_context();
}

/* A stack size that would kill each request is corrected: musl takes any size
 * above 2048. */
TEST(config, stacks_have_room_for_us)
{
    empm_config cfg = empm_defaults();

    cfg.routes = routes;
    cfg.thread_stack_size = 2048;
    CHECK_INT(empm_check(&cfg, say, NULL), 0);
    CHECK_INT(cfg.thread_stack_size, EMPM__STACK_LEAST);
    cfg.thread_stack_size = 0;
    CHECK_INT(empm_check(&cfg, say, NULL), 0);
    CHECK_INT(cfg.thread_stack_size, 0);
}

/* A reload cannot change the sizes of the scoreboard (AH00501, AH00506); all
 * other settings are then held against them, as Apache does. */
TEST(config, limits_stay_with_the_scoreboard)
{
    static const struct {
        const char *text;
        int code, servers, threads, workers, per_child;
    } rows[] = {
        { "ServerLimit 32\nMaxRequestWorkers 800", 501, 16, 64, 400, 25 },
        { "ServerLimit 4\nMaxRequestWorkers 400", 501, 16, 64, 400, 25 },
        { "ThreadLimit 100\nThreadsPerChild 100\nMaxRequestWorkers 640", 506,
         16,
          64, 640, 64 },
        { "ThreadLimit 8\nThreadsPerChild 25", 506, 16, 64, 400, 25 },
        { "Processes 30", 501, 16, 64, 400, 25 },
        { "SharedStoreSize 1048576", 5503, 16, 64, 400, 25 },
        { "ThreadsPerChild 50\nMaxRequestWorkers 800", 0, 16, 64, 800, 50 }
    };
    empm_config old = empm_defaults();
    size_t i;

    old.routes = routes;
    CHECK_INT(empm_check(&old, NULL, NULL), 0);
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        empm_config cfg = empm_defaults();
        empm__report rep;
        context("%s", rows[i].text);
        cfg.routes = routes;
        CHECK_INT(conf_load(&cfg, rows[i].text), EMPM_OK);
        rep = hearing();
        CHECK_INT(empm__check_all(&cfg, &old, &rep), EMPM_OK);
        CHECK_INT(heard(EMPM_LOG_WARN, 501), rows[i].code == 501);
        CHECK_INT(heard(EMPM_LOG_WARN, 506), rows[i].code == 506);
        CHECK_INT(heard(EMPM_LOG_WARN, 5503), rows[i].code == 5503);
        CHECK_INT(cfg.shared_store_size, 0);
        CHECK_INT(cfg.server_limit, rows[i].servers);
        CHECK_INT(cfg.thread_limit, rows[i].threads);
        CHECK_INT(cfg.max_request_workers, rows[i].workers);
        CHECK_INT(cfg.threads_per_child, rows[i].per_child);
        empm_config_free(&cfg);
    }
    no_context();
    str_free(&g_heard);
}

/* --- one fact, one row ---------------------------------------------------- */

/* Does `word` stand between p and end, with no letter or digit beside it? */
static int tells_word(const char *p, const char *end, const char *word)
{
    const size_t n = strlen(word);
    const char *from = p;

    for (; p + n <= end; p++)
        if (memcmp(p, word, n) == 0 &&
            (p == from || !isalnum((unsigned char)p[-1])) &&
            (p + n == end || !isalnum((unsigned char)p[n])))
            return 1;
    return 0;
}

/* Is a default told there, in one of the ways in which people write it? */
static int tells_default(const char *p, const char *end,
                         const empm__directive *d)
{
    static const char *const unset[] = {
        "NULL", "none", "the host's", "the user's", "the system's", "nobody",
        "stderr", "two thirds", "a third"
    };
    static const struct { const char *unit; int64_t bytes; } units[] = {
        { "", 1 }, { " KiB", 1024 }, { " KB", 1024 }, { " MiB", 1 << 20 },
        { " GiB", 1 << 30 }
    };
    const empm_config cfg = empm_defaults();
    int64_t v = 0;
    char text[64];
    size_t i;

    if (d->preset != NULL && tells_word(p, end, d->preset))
        return 1;
    if (empm__directive_is_number(d))
        v = empm__directive_number(&cfg, d);
    for (i = 0; (d->preset == NULL || (empm__directive_is_number(d) && v == 0))
                && i < EMPM__COUNT(unset); i++)
        if (tells_word(p, end, unset[i]))
            return 1;
    switch (d->kind) {
    case EMPM__KIND_LEVEL:
        return tells_word(p, end, "EMPM_LOG_WARN") && v == EMPM_LOG_WARN;
    case EMPM__KIND_SIGNAL:
        return tells_word(p, end, "SIGQUIT") && v == SIGQUIT;
    case EMPM__KIND_ETAG:
        return tells_word(p, end, "all of it") && v == EMPM_ETAG_ALL;
    case EMPM__KIND_REAL:
        snprintf(text, sizeof text, "%.1f", empm__directive_real(&cfg, d));
        return tells_word(p, end, text);
    case EMPM__KIND_READ:            /* header= and body= are the same there */
        return tells_word(p, end, "20") && tells_word(p, end, "500") &&
               cfg.header_timeout_ms == 20000 && cfg.header_min_rate == 500 &&
               cfg.body_timeout_ms == 20000 && cfg.body_min_rate == 500;
    default:
        break;
    }
    for (i = 0; empm__directive_is_number(d) && i < EMPM__COUNT(units); i++) {
        snprintf(text, sizeof text, "%lld%s", (long long)(v / units[i].bytes),
                 units[i].unit);
        if (v % units[i].bytes == 0 && (v != 0 || i == 0) &&
            tells_word(p, end, text))
            return 1;
    }
    return 0;
}

/* The comment of a field of empm_config: *end is where it ends. */
static const char *field_comment(const char *all, const char *field,
                                 const char **end)
{
    const size_t n = strlen(field);
    const char *p = all;

    while ((p = strstr(p, field)) != NULL &&
           ((p[-1] != ' ' && p[-1] != '*') || (p[n] != ';' && p[n] != '[')))
        p++;
    if (p == NULL)
        return NULL;
    *end = p + strcspn(p, "\n");
    if (memchr(p, '*', (size_t)(*end - p)) == NULL)   /* it stands above */
        while (p[-1] != '/')
            p--;
    while (p[-1] != '\n')
        p--;
    while (strncmp(*end, "\n     ", 6) == 0)
        *end += 1 + strcspn(*end + 1, "\n");
    return p;
}

/* The comments of empm_config tell the defaults that the table has. */
TEST(config, the_structs_comments_tell_the_defaults)
{
    static const struct { const char *field; int value; } read[] = {
        { "header_timeout_ms", 20000 }, { "header_timeout_max_ms", 40000 },
        { "header_min_rate", 500 }, { "body_timeout_ms", 20000 },
        { "body_timeout_max_ms", 0 }, { "body_min_rate", 500 }
    };
    char *text = slurp_path("eventmpm.h"), *all, *p;
    const empm_config cfg = empm_defaults();
    const int is[] = {
        cfg.header_timeout_ms, cfg.header_timeout_max_ms, cfg.header_min_rate,
        cfg.body_timeout_ms, cfg.body_timeout_max_ms, cfg.body_min_rate
    };
    const char *at, *end;
    char word[64];
    size_t i, n = 0;

    all = strstr(text, "typedef struct empm_config {");
    p = strstr(text, "empm__directives[] = {");
    if (!CHECK(all != NULL && p != NULL)) {
        free(text);
        return;
    }
    for (i = 0; i < EMPM__COUNT(empm__directives); i++) {
        const empm__directive *d = &empm__directives[i];
        if ((p = strstr(p, "EMPM__SET(\"")) == NULL)
            break;
        p += strcspn(p, ",") + 2;
        snprintf(word, sizeof word, "%.*s", (int)strcspn(p, ","), p);
        context("%s", word);
        if (d->kind == EMPM__KIND_READ || d != empm__directive_first(d) ||
            (d->kind == EMPM__KIND_LIST && d->preset == NULL))
            continue;
        at = field_comment(all, word, &end);
        if (CHECK(at != NULL) && !CHECK(tells_default(at, end, d)))
            fprintf(stderr, "%.*s\n", (int)(end - at), at);
        n++;
    }
    CHECK_INT(i, EMPM__COUNT(empm__directives));
    CHECK(n > 50);
    for (i = 0; i < EMPM__COUNT(read); i++) {
        context("%s", read[i].field);
        snprintf(word, sizeof word, "%d", is[i]);
        at = field_comment(all, read[i].field, &end);
        CHECK(at != NULL && tells_word(at, end, word));
        CHECK_INT(is[i], read[i].value);
    }
    no_context();
    free(text);
}

/* A name of a directive in a text is one that there is, ours or of Apache's:
 * words with capitals inside. `quoted`: only those between backticks. */
static int unknown_names(const char *p, const char *end, int quoted)
{
    static const char others[] =
        "CustomLogs ETag FileDescriptorName GiB IfDefine IfFile IfModule "
        "IfVersion "
        "IncludeOptional INode KiB MiB MinRate MTime NotifyAccess ReloadSignal "
        "WebSocket";
    int inside = !quoted, found = 0, capitals, small;
    char word[64];
    size_t n, i;

    for (; p < end; p += n > 0 ? n : 1) {
        n = 0;
        if (quoted && *p == '`')
            inside = !inside;
        else if (quoted && *p == '\n')
            inside = 0;
        while (p + n < end && (isalnum((unsigned char)p[n]) || p[n] == '_'))
            n++;
        for (i = 0, capitals = small = 0; i < n; i++) {
            capitals += isupper((unsigned char)p[i]) != 0;
            small += islower((unsigned char)p[i]) != 0;
        }
        if (!inside || n == 0 || n >= sizeof word || capitals < 2 ||
            small < 2 ||
            !isupper((unsigned char)*p) || memchr(p, '_', n) != NULL)
            continue;
        snprintf(word, sizeof word, "%.*s", (int)n, p);
        if (empm__directive_find(word) == NULL &&
            !empm__text_listed(others, word) &&
            !empm__text_listed(empm__meaningless, word)) {
            fail(__FILE__, __LINE__, "there is no directive %s", word);
            found++;
        }
    }
    return found;
}

/* Does the code of a section of the header have this word? Comments do not
 * count, unless the section is nothing else: `word` is "" then. */
static int section_has(const char *text, const char *section, const char *word)
{
    char head[80];
    const char *at, *end, *line;
    snprintf(head, sizeof head, "\n * >>%s -- ", section);
    at = strstr(text, head);
    if (at == NULL || *word == '\0')
        return at != NULL;
    end = strstr(at + 5, "\n * >>");
    while ((at = strstr(at + 1, word)) != NULL && (end == NULL || at < end)) {
        const char after = at[strlen(word)];
        for (line = at; line[-1] != '\n'; line--)
            ;
        if (strncmp(line, " *", 2) != 0 && strncmp(line, "/*", 2) != 0 &&
            !isalnum((unsigned char)after) && after != '_')
            return 1;
    }
    return 0;
}

static int test_exists(const char *name)
{
    char full[120];
    const test *x;
    for (x = tests_first; x != NULL; x = x->next) {
        snprintf(full, sizeof full, "%s.%s", x->section, x->name);
        if (strcmp(full, name) == 0)
            return 1;
    }
    return 0;
}

/* The checklists of >>map name places and tests that exist: "NAME in >>SECTION"
 * stands there, and "test SECTION.NAME" is one of these. Each is complete: it
 * has as many steps as the table says. */
TEST(config, the_map_leads_to_what_there_is)
{
    static const struct { const char *what; int places, tests; } lists[] = {
        { "a directive", 2, 1 }, { "a message", 1, 1 }, { "a state", 2, 1 },
        { "a counter", 1, 1 }, { "a log letter", 2, 1 }, { "an order", 3, 0 },
        { "a wing", 3, 0 }, { "a transport", 2, 1 }, { "a protocol", 3, 0 },
        { "a public call", 1, 0 }
    };
    char *text = slurp_path("eventmpm.h"), list[8192] = "";
    const char *at = strstr(text, "\n * To add something,"), *end, *p;
    size_t n = 0;
    int i;

    end = at != NULL ? strstr(at, "calls go up") : NULL;
    if (!CHECK(end != NULL)) {
        free(text);
        return;
    }
    for (p = at; p < end && n + 1 < sizeof list; p++)    /* one line of it */
        if (*p != '\n')
            list[n++] = *p;
        else
            for (list[n++] = ' '; strchr(" *", p[1]) != NULL; p++)
                ;
    EACH(lists, i) {
        char head[40];
        const char *from, *to = list + n;
        int places = 0, tests = 0, k;
        snprintf(head, sizeof head, "%s  ", lists[i].what);
        from = strstr(list, head);
        context("%s", lists[i].what);
        if (!CHECK(from != NULL))
            continue;
        EACH(lists, k) {                 /* it ends where another begins */
            snprintf(head, sizeof head, " %s  ", lists[k].what);
            p = strstr(from + 1, head);
            to = p != NULL && p < to ? p : to;
        }
        for (p = from; (p = strstr(p, " in >>")) != NULL && p < to; p += 6) {
            char name[80], section[80];
            const char *word = p;
            while (isalnum((unsigned char)word[-1]) || word[-1] == '_')
                word--;
            snprintf(name, sizeof name, "%.*s", (int)(p - word), word);
            snprintf(section, sizeof section, "%.*s",
                     (int)strspn(p + 6, "abcdefghijklmnopqrstuvwxyz-"), p + 6);
            context("%s: %s in >>%s", lists[i].what, name, section);
            CHECK(section_has(text, section,
                              strncasecmp(name, "empm", 4) == 0 ? name : ""));
            places++;
        }
        for (p = from; (p = strstr(p, "est ")) != NULL && p < to; p += 4) {
            char name[80];
            snprintf(name, sizeof name, "%.*s",
                     (int)strspn(p + 4, "abcdefghijklmnopqrstuvwxyz_."), p + 4);
            if (name[0] != '\0' && name[strlen(name) - 1] == '.')
                name[strlen(name) - 1] = '\0';
            if (strchr(name, '.') == NULL)
                continue;
            context("%s: test %s", lists[i].what, name);
            CHECK(test_exists(name));
            tests++;
        }
        context("%s", lists[i].what);
        CHECK_INT(places, lists[i].places);
        CHECK_INT(tests, lists[i].tests);
    }
    no_context();
    free(text);
}

/* README and manual name directives that there are; a row of a table whose
 * first cell names some, "| `A`, `B` | 1, 2 |", has the default of each in its
 * second. */
TEST(config, readme_and_manual_name_what_there_is)
{
    char *text = slurp_path("README.md"), *manual, *p, *cell, *end;
    char word[64];
    size_t n;
    int rows = 0;

    for (p = strstr(text, "\n| `"); p != NULL; p = strstr(p + 1, "\n| `")) {
        cell = strstr(p + 3, " |");
        end = cell != NULL ? strstr(cell + 2, " |") : NULL;
        if (end == NULL || !isupper((unsigned char)p[4]))
            continue;
        for (p += 3; (p = strchr(p, '`')) != NULL && p < cell; p += n + 2) {
            const empm__directive *d;
            n = strcspn(p + 1, "`");
            snprintf(word, sizeof word, "%.*s", (int)n, p + 1);
            context("%s", word);
            if (!CHECK((d = empm__directive_find(word)) != NULL))
                continue;
            rows++;
            if (!CHECK(tells_default(cell, end, empm__directive_first(d)) ||
                       tells_default(cell, end, d)))
                fprintf(stderr, "%.*s\n", (int)(end - cell), cell);
        }
        p = cell;
    }
    no_context();
    CHECK(rows > 5);
    CHECK_INT(unknown_names(text, text + strlen(text), 1), 0);
    free(text);
    manual = slurp_path("eventmpm.h");
    p = strstr(manual, "typedef struct empm_config {");
    end = strstr(manual, "} empm_config;");
    if (CHECK(p != NULL && end != NULL))
        CHECK_INT(unknown_names(p, end, 0), 0);
    if (CHECK((end = strstr(manual, "#ifndef EVENTMPM_H")) != NULL))
        CHECK_INT(unknown_names(manual, end, 0), 0);
    free(manual);
}

/* A row is whole: a default that its own reader takes, in its range, and help;
 * another name has no default of its own. */
TEST(config, rows_of_the_table_are_whole)
{
    const empm_config presets = empm_defaults();
    size_t i;

    for (i = 0; i < EMPM__COUNT(empm__directives); i++) {
        const empm__directive *d = &empm__directives[i];
        empm_config cfg = empm_defaults();
        char was[64];
        context("%s", d->name);
        CHECK(d->help != NULL && d->help[0] != 0 && strlen(d->help) < 72);
        CHECK(d == empm__directive_find(d->name));
        if (empm__directive_is_number(d)) {
            CHECK(d->preset != NULL || d != empm__directive_first(d));
            CHECK(empm__directive_in_range(d, empm__directive_number(&presets,
                                                                  d)));
        }
        if (d->preset == NULL || d->kind == EMPM__KIND_LIST)
            continue;
        /* what it is not, and then the default by its text */
        snprintf(was, sizeof was, "%s", conf_value(&presets, d->name));
        memset((char *)&cfg + d->offset, 0, sizeof(int));
        CHECK(empm__directive_store(&cfg, d, d->preset, 0) == NULL);
        if (strcmp(d->preset, ".") != 0)
            CHECK_STR(conf_value(&cfg, d->name), was);
        empm_config_free(&cfg);
    }
    no_context();
    CHECK(presets.arena == NULL);    /* nothing is allocated */
}

/* A value that no correction can mend is one error with a number of its own. */
TEST(config, what_is_refused)
{
    static const struct { const char *text; int code; } rows[] = {
        { "Listen 8080\nListen 8080", 5109 },
        { "Listen 8080\nListen *:8080 admin", 5109 },
        { "Listen 127.0.0.1:80\nListen 127.0.0.1:080", 5109 },
        { "Listen unix:/tmp/a:0\nListen unix:/tmp/a:0", 5109 },
        { "Listen 0\nListen 0\nListen 127.0.0.1:0\nListen 127.0.0.1:0", 0 },
        { "Listen 8080\nListen 127.0.0.1:8081", 0 },
        { "Listen 0.0.0.0:8080\nListen [::]:8080", 0 },
        { "Listen 8080 sideways", 5108 },
        { "SpoolDirectory /no/such/place", 5107 },
        { "SpoolDirectory null\nServerRoot /dev", 5107 },
        { "ServerRoot /usr\nSpoolDirectory bin\nDocumentRoot bin\n"
          "CoreDumpDirectory bin", 0 },
        { "Strict On\nServerRoot /usr\nDocumentRoot no/such", 112 },
        { "DocumentRoot /no/such/place\nStrict On", 112 },
        { "DocumentRoot /dev/null\nStrict On", 112 },
        { "Listen 8080 https", 5600 }, { "Listen 8080 http", 0 },
        { "Listen 127.0.0.1:8080 HTTP proxy", 0 },
        { "ChrootDir /no/such/place\nUser #65534", 5134 },
        { "ChrootDir /dev/null\nUser #65534", 5134 },
        { "ChrootDir /", 5134 },
        { "ChrootDir /\nUser root", 5134 },
        { "ChrootDir /\nUser #0", 5134 },
        { "ChrootDir /dev\nUser #65534\nSpoolDirectory /dev", 5134 },  /* "." */
        { "Listen \"unix:/tmp/x user=nobody-of-that-name\"", 5108 },
        { "CoreDumpDirectory /dev/null", 5134 },
        { "User no-such-user-at-all", 543 },
        { "User \"#-1\"", 543 },
        { "User \"#4294967296\"", 543 },         /* would be root */
        { "User \"#4294967295\"", 543 },         /* would be nobody's number */
        { "User \"#65534\"\nGroup no-such-group", 544 },
        { "User \"#65534\"\nGroup \"#4294967296\"", 544 },
        { "Group \"#65534\"", 544 },
        { "User \"#65534\"\nGroup \"#65534\"", 0 },
        { "ServerField a\x7f", 5102 }
    };
    static const empm_route files[] = {
        EMPM_FILES("GET /", NULL), EMPM_ROUTES_END
    };
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        empm_config cfg = empm_defaults();
        empm__report rep;
        context("%s", rows[i].text);
        cfg.routes = files;
        CHECK_INT(conf_load(&cfg, rows[i].text), EMPM_OK);
        rep = hearing();
        CHECK_INT(empm__check_all(&cfg, NULL, &rep),
                  rows[i].code != 0 ? EMPM_EINVAL : EMPM_OK);
        CHECK_INT(rep.errors, rows[i].code != 0);
        if (rows[i].code != 0)
            CHECK_INT(heard(EMPM_LOG_ERROR, rows[i].code), 1);
        empm_config_free(&cfg);
    }
    no_context();
    /* numbers so odd that sums of them overflow */
    {
        empm_config cfg = empm_defaults();
        empm__report rep = hearing();
        cfg.routes = routes;
        cfg.processes = INT_MAX;
        cfg.max_body_memory = cfg.shared_store_size = INT64_MAX;
        CHECK_INT(empm__check_all(&cfg, NULL, &rep), EMPM_EINVAL);
        CHECK_INT(heard(EMPM_LOG_ERROR, 5101), 1);
        CHECK(empm_memory_estimate(&cfg) == INT64_MAX);
    }
    str_free(&g_heard);
}

/* The check looks at the system's limits, as Apache does not. It runs in a
 * process of its own, which may lower them. */
TEST(config, the_systems_limits)
{
    int status;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        empm_config cfg = empm_defaults();
        empm__report rep = hearing();
        struct rlimit r;
        int64_t before;
        cfg.routes = routes;
        CHECK_INT(empm__check_all(&cfg, NULL, &rep), EMPM_OK);
        before = empm_memory_estimate(&cfg);
        cfg.thread_stack_size = 1 << 30;    /* 416 of them */
        CHECK_INT(empm__check_all(&cfg, NULL, &rep), EMPM_OK);
        CHECK(empm_memory_estimate(&cfg) > before);
        CHECK(empm_memory_estimate(&cfg) > (INT64_C(416) << 30));
        CHECK_INT(heard(EMPM_LOG_WARN, 5131), 1);
        cfg.thread_stack_size = 65536;
        cfg.listen_backlog = 1 << 20;
        rep = hearing();
        CHECK_INT(empm__check_all(&cfg, NULL, &rep), EMPM_OK);
        CHECK_INT(heard(EMPM_LOG_WARN, 5131), 0);
        if (empm__check_number_in("/proc/sys/net/core/somaxconn") < 1 << 20)
            CHECK_INT(heard(EMPM_LOG_WARN, 5132),
                      empm__check_number_in("/proc/sys/net/core/somaxconn") >
                      0);
        cfg.listen_backlog = 1;
        /* connections and files are shared out; a sum that does not come out
         * says so, by the name of what was set, and what to type */
        r.rlim_cur = r.rlim_max = 500;
        if (setrlimit(RLIMIT_NOFILE, &r) == 0) {
            cfg.max_open_connections = 100;
            rep = hearing();
            CHECK_INT(empm__check_all(&cfg, NULL, &rep), EMPM_OK);
            CHECK_INT(heard(EMPM_LOG_WARN, 5130), 0);
            cfg.max_open_connections = 490;
            CHECK_INT(empm__check_all(&cfg, NULL, &rep), EMPM_OK);
            CHECK_INT(heard(EMPM_LOG_WARN, 5130), 1);
            CHECK(empm__engine_connection_limit(&cfg) < 490);
            cfg.max_open_connections = 0;
            cfg.max_open_files = 400;
            rep = hearing();
            CHECK_INT(empm__check_all(&cfg, NULL, &rep), EMPM_OK);
            CHECK_INT(heard(EMPM_LOG_WARN, 5130), 1);
            CHECK_IN(empm__engine_file_limit(&cfg) +
                     empm__engine_connection_limit(&cfg),
                     300, 500 - 48 - 2 * cfg.threads_per_child);
            cfg.max_open_files = 0;
            rep = hearing();
            CHECK_INT(empm__check_all(&cfg, NULL, &rep), EMPM_OK);
            CHECK_INT(heard(EMPM_LOG_WARN, 5130), 0);
            CHECK_INT(empm__engine_file_limit(&cfg) +
                      empm__engine_connection_limit(&cfg),
                      500 - 48 - 2 * cfg.threads_per_child);
        }
        r.rlim_cur = 100;            /* it says nothing of "0" connections */
        if (setrlimit(RLIMIT_NOFILE, &r) == 0) {
            rep = hearing();
            CHECK_INT(empm__check_all(&cfg, NULL, &rep), EMPM_OK);
            CHECK_INT(heard(EMPM_LOG_WARN, 5130), 1);
        }
#ifdef RLIMIT_NPROC
        r.rlim_cur = r.rlim_max = 100;
        if (setrlimit(RLIMIT_NPROC, &r) == 0 &&
            (geteuid() != 0 || setuid(65534) == 0)) {
            rep = hearing();
            CHECK_INT(empm__check_all(&cfg, NULL, &rep), EMPM_OK);
            CHECK_IN(heard(EMPM_LOG_WARN, 5133), 1, 2);   /* and the cgroup's */
            cfg.strict = 1;         /* nothing of this is corrected */
            CHECK_INT(empm__check_all(&cfg, NULL, &rep), EMPM_OK);
        }
#endif
        fflush(NULL);
        _exit(get_int(&g_failures) != 0);
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    CHECK_INT(empm__check_number_in("/proc/sys/net/core/somaxconn/none"), -1);
    CHECK_INT(empm__check_number_in("/dev/null"), -1);
}

/* Each directive sets its field from a file, and no directive is without a row
 * here. */
TEST(config, every_directive_from_a_file)
{
    static const struct { const char *name, *value, *want; } rows[] = {
        /* ServerRoot, not where it starts */
        { "Listen", "127.0.0.1:81 proxy", "127.0.0.1:81 proxy" },
        { "DocumentRoot", "\"/srv/my files\"", "/srv/my files" },
        { "DocumentRoot", ".", "./" },
        { "SpoolDirectory", "/var/tmp", "/var/tmp" },
        { "AddType", "video/x-matroska .mkv mk3d", "video/x-matroska .mkv "
         "mk3d" },
        { "AddType", "\"text/html; charset=utf-8\" .php",
          "\"text/html; charset=utf-8\" .php" },
        { "FileETag", "MTime size", "6" }, { "FileETag", "all", "7" },
        { "FileETag", "None", "0" }, { "FileETag", "INode MTime Size", "7" },
        { "ServerField", "me", "me" }, { "ServerField", "\"\"", "" },
        { "ServerTokens", "Prod", "eventmpm" },
        { "ServerTokens", "min", "eventmpm/" EMPM_VERSION },
        { "ServerTokens", "Full", "eventmpm/" EMPM_VERSION " (Unix)" },
        { "ServerName", "www.example.com", "www.example.com" },
        { "ServerRoot", "/etc/eventmpm", "/etc/eventmpm" },
        { "Strict", "On", "1" }, { "PidFile", "run/a.pid", "run/a.pid" },
        { "User", "www-data", "www-data" }, { "Group", "#33", "#33" },
        { "ChrootDir", "/srv", "/srv" },
        { "CoreDumpDirectory", "/var/crash", "/var/crash" },
        { "GracefulStopSignal", "none", "0" },
        { "ErrorLog", "syslog:local1", "syslog:local1" },
        { "LogFormat", "\"%h %t\" short", "\"%h %t\" short" },
        { "CustomLog", "logs/a.log common", "logs/a.log common" },
        { "ExtendedStatus", "Off", "0" },
        { "RemoteIPHeader", "X-Real-IP", "X-Real-IP" },
        { "RemoteIPTrustedProxy", "10.0.0.0/8 ::1", "10.0.0.0/8 ::1" },
        { "RemoteIPInternalProxy", "10.1.0.0/16", "10.1.0.0/16" },
        { "MaxConnectionsPerPeer", "20", "20" },
        { "SharedStoreSize", "1048576", "1048576" },
        { "Processes", "0", "0" }, { "StartServers", "2", "2" },
        { "ServerLimit", "8", "8" }, { "ThreadsPerChild", "10", "10" },
        { "ThreadLimit", "80", "80" }, { "MaxRequestWorkers", "70", "70" },
        { "MaxClients", "70", "70" }, { "MinSpareThreads", "5", "5" },
        { "MaxSpareThreads", "500", "500" },
        { "MaxConnectionsPerChild", "9", "9" },
        { "MaxRequestsPerChild", "9", "9" },
        { "AsyncRequestWorkerFactor", "1.5", "1.5" },
        { "MaxOpenConnections", "1000", "1000" },
        { "MaxOpenFiles", "500", "500" },
        { "ThreadStackSize", "262144", "262144" },
        { "ListenBacklog", "100", "100" }, { "SendBufferSize", "4096", "4096" },
        { "ReceiveBufferSize", "4096", "4096" },
        { "MaxMemFree", "100", "102400" },           /* KB, as Apache has it */
        { "MaxMemFree", "0", "0" }, { "OpenFileCache", "10", "10" },
        { "Timeout", "5", "5000" }, { "Timeout", "100ms", "100" },
        { "Timeout", "7s", "7000" }, { "Timeout", "2mi", "120000" },
        { "Timeout", "1min", "60000" }, { "Timeout", "1h", "3600000" },
        { "Timeout", "2147483", "2147483000" },
        { "KeepAlive", "off", "0" }, { "KeepAliveTimeout", "100ms", "100" },
        { "MaxKeepAliveRequests", "0", "0" },
        { "ResponseMinRate", "0", "0" }, { "ResponseMinRate", "9", "9" },
        { "RequestReadTimeout", "header=7", "7000" },
        { "LingerTimeout", "3", "3000" }, { "LingerTimeoutShort", "3", "3000" },
        { "GracefulShutdownTimeout", "3", "3000" },
        { "GracefulShutdownDelay", "3", "3000" },
        { "GracefulRestartTimeout", "0", "0" }, { "StartTimeout", "3", "3000" },
        { "WatchdogInterval", "0", "0" }, { "StuckWorkerTimeout", "30",
                                           "30000" },
        { "StopTimeout", "3", "3000" }, { "LimitRequestLine", "16", "16" },
        { "LimitRequestFieldSize", "16", "16" },
        { "LimitRequestFields", "1", "1" },
        { "LimitRequestHead", "16384", "16384" },
        { "LimitRequestBody", "0", "0" }, { "LimitBodyInMemory", "1", "1" },
        { "MaxBodyMemory", "1", "1" },
        { "MaxSpoolBytes", "9223372036854775807", "9223372036854775807" },
        { "LimitResponseSpool", "1", "1" }, { "LimitLingerBytes", "1", "1" },
        { "LogLevel", "debug", "7" }, { "LogLevel", "trace3 core:info", "7" },
        { "LogLevel", "error", "3" },
        { "DirectoryIndex", "index.php index.html", "index.php index.html" },
        { "FallbackResource", "/index.php", "/index.php" },
        { "AddHandler", "\"proxy:fcgi://127.0.0.1:9000\" .php",
          "\"proxy:fcgi://127.0.0.1:9000\" .php" },
        { "ProxyTimeout", "5", "5000" }, { "ProxyConnectTimeout", "1", "1000" },
        { "SSLCertificateFile", "a.pem", "a.pem" },
        { "SSLCertificateKeyFile", "a.key", "a.key" },
        { "SSLCipherSuite", "ECDHE-RSA-AES128-GCM-SHA256",
          "ECDHE-RSA-AES128-GCM-SHA256" },
        { "SSLSessionCacheSize", "0", "0" },
        { "SSLSessionCacheTimeout", "60", "60000" }
    };
    empm_config cfg;
    str all;
    uint64_t lists = 0;
    size_t i, k;

    memset(&all, 0, sizeof all);
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char line[200], shown[200];
        snprintf(line, sizeof line, "  %s\t%s \r\n", rows[i].name,
                 rows[i].value);
        str_addf(&all, "%s", line);
        context("%s %s", rows[i].name, rows[i].value);
        cfg = empm_defaults();
        CHECK_INT(conf_load(&cfg, line), EMPM_OK);
        CHECK_STR(conf_value(&cfg, rows[i].name), rows[i].want);
        empm__test_format(&cfg, empm__directive_find(rows[i].name), 0, shown,
                          sizeof shown);
        empm_config_free(&cfg);
        cfg = empm_defaults();      /* as -t prints it, it can be read */
        if (strcmp(rows[i].name, "ServerTokens") != 0) {
            CHECK_INT(empm_set(&cfg, rows[i].name, shown, NULL, 0), EMPM_OK);
            CHECK_STR(conf_value(&cfg, rows[i].name), rows[i].want);
        }
        empm_config_free(&cfg);
        cfg = empm_defaults();      /* and from the program */
        CHECK_INT(empm_set(&cfg, rows[i].name, rows[i].value, NULL, 0),
                  EMPM_OK);
        CHECK_STR(conf_value(&cfg, rows[i].name), rows[i].want);
        empm_config_free(&cfg);
    }
    no_context();
    cfg = empm_defaults();
    CHECK_INT(conf_load(&cfg, all.p), EMPM_OK);
    CHECK_STR(cfg.remote_ip_header, "X-Real-IP");
    empm_config_free(&cfg);
    str_free(&all);
    for (k = 0; k < EMPM__COUNT(empm__directives); k++) {
        const empm__directive *d = &empm__directives[k];
        for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
            if (strcmp(rows[i].name, d->name) == 0)
                break;
        if (i == sizeof rows / sizeof rows[0])
            fail(__FILE__, __LINE__, "%s has no row here", d->name);
        if (d->kind == EMPM__KIND_LIST) {           /* a bit for each list */
            CHECK((lists >> k % 64 & 1) == 0);
            lists |= UINT64_C(1) << k % 64;
        }
    }
    cfg = empm_defaults();
    CHECK_INT(conf_load(&cfg, "StuckWorkerTimeout 30 replace\n"
                              "RequestReadTimeout handshake=5 HEADER=20-40,"
                              "minrate=500\nRequestReadTimeout body=10,"
                              "minrate=400"), EMPM_OK);
    CHECK_INT(cfg.stuck_worker_replace, 1);
    CHECK_INT(cfg.header_timeout_max_ms, 40000);
    CHECK_INT(cfg.body_timeout_ms, 10000);
    CHECK_INT(cfg.body_min_rate, 400);
    CHECK_INT(conf_load(&cfg, "StuckWorkerTimeout 30"), EMPM_OK);
    CHECK_INT(cfg.stuck_worker_replace, 0);
    empm_config_free(&cfg);
    str_free(&g_heard);
}

/* A bad value of any directive is said once, with file, line and name. */
TEST(config, bad_values_of_every_directive)
{
    static const struct { enum empm__kind kind; const char *value; } rows[] = {
        { EMPM__KIND_INT, "x" }, { EMPM__KIND_INT, "" }, { EMPM__KIND_INT, "1 "
                                                          "2" },
        { EMPM__KIND_INT, "1.5" }, { EMPM__KIND_INT, "-" },
        { EMPM__KIND_INT, "2147483648" }, { EMPM__KIND_INT, "-2147483649" },
        { EMPM__KIND_INT, "99999999999999999999" },
        { EMPM__KIND_INT, "-99999999999999999999" }, { EMPM__KIND_INT, "\"1" },
        { EMPM__KIND_MS, "soon" }, { EMPM__KIND_MS, "-1" }, { EMPM__KIND_MS,
                                                             "" },
        { EMPM__KIND_MS, "ms" }, { EMPM__KIND_MS, "99999999999999999999" },
        { EMPM__KIND_MS, "5 s" }, { EMPM__KIND_MS, "1.5" },
        { EMPM__KIND_STUCK, "30 perhaps" }, { EMPM__KIND_STUCK, "x" },
        { EMPM__KIND_STUCK, "30 replace it" }, { EMPM__KIND_STUCK, "" },
        { EMPM__KIND_I64, "9223372036854775808" }, { EMPM__KIND_I64, "-1" },
        { EMPM__KIND_I64, "1k" }, { EMPM__KIND_I64, "" },
        { EMPM__KIND_KB, "9223372036854775807" }, { EMPM__KIND_KB, "-1" },
        { EMPM__KIND_KB, "2M" }, { EMPM__KIND_BOOL, "maybe" },
        { EMPM__KIND_BOOL, "1" }, { EMPM__KIND_BOOL, "" },
        { EMPM__KIND_BOOL, "On Off" }, { EMPM__KIND_REAL, "2x" },
        { EMPM__KIND_REAL, "0" }, { EMPM__KIND_REAL, "-1" },
        { EMPM__KIND_REAL, "nan" }, { EMPM__KIND_REAL, "inf" },
        { EMPM__KIND_REAL, "" }, { EMPM__KIND_TEXT, "two words" },
        { EMPM__KIND_TEXT, "\"never closed" }, { EMPM__KIND_TEXT, "'nor "
                                                "this\"" },
        { EMPM__KIND_TEXT, "\"closed\" and more" },
        { EMPM__KIND_ETAG, "Digest" }, { EMPM__KIND_ETAG, "MTime 5" },
        { EMPM__KIND_TOKENS, "Everything" }, { EMPM__KIND_TOKENS, "" },
        { EMPM__KIND_LIST, "" }, { EMPM__KIND_LEVEL, "loud" },
        { EMPM__KIND_LEVEL, "trace9" }, { EMPM__KIND_LEVEL, "trace" },
        { EMPM__KIND_LEVEL, "warn core:loud" }, { EMPM__KIND_LEVEL, ":info" },
        { EMPM__KIND_LEVEL, "" }, { EMPM__KIND_SIGNAL, "KILL" },
        { EMPM__KIND_SIGNAL, "-3" }, { EMPM__KIND_SIGNAL, "99" },
        { EMPM__KIND_READ, "" }, { EMPM__KIND_READ, "tail=1" },
        { EMPM__KIND_READ, "header=" }, { EMPM__KIND_READ, "header=20-10" },
        { EMPM__KIND_READ, "header=10-20" },
        { EMPM__KIND_READ, "header=10-10,MinRate=1" },
        { EMPM__KIND_READ, "header=10,MinRate=0" },
        { EMPM__KIND_READ, "header=10,MinRate=x" },
        { EMPM__KIND_READ, "header=10,Rate=1" },
        { EMPM__KIND_READ, "header=10 body" }
    };
    size_t i, k;
    char where[500], path[400];

    snprintf(where, sizeof where, "EMPM5123: %s:3: ",
             tmp_path(path, sizeof path, "x.conf"));
    for (k = 0; k < EMPM__COUNT(empm__directives); k++) {
        const empm__directive *d = &empm__directives[k];
        int tried = 0;
        for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            empm_config cfg = empm_defaults();
            char text[300], was[64];
            if (rows[i].kind != (d->kind == EMPM__KIND_COUNT ? EMPM__KIND_INT
                                                             : d->kind))
                continue;
            tried++;
            context("%s %s", d->name, rows[i].value);
            snprintf(was, sizeof was, "%s", conf_value(&cfg, d->name));
            snprintf(text, sizeof text, "# comment\n\n%s %s\nTimeout 7\n",
                     d->name, rows[i].value);
            CHECK_INT(conf_load(&cfg, text), EMPM_EINVAL);
            CHECK_INT(heard(EMPM_LOG_ERROR, 5123), 1);
            CHECK_INT(heard(EMPM_LOG_ERROR, 0), 1);
            CHECK(strstr(g_heard.p, where) != NULL);
            CHECK(strstr(g_heard.p, d->name) != NULL);
            if (d->kind != EMPM__KIND_READ && strcmp(d->name, "Timeout") != 0)
                CHECK_STR(conf_value(&cfg, d->name), was);
            CHECK_INT(cfg.timeout_ms, 7000);        /* it goes on to the end */
            empm_config_free(&cfg);
        }
        if (tried == 0)
            fail(__FILE__, __LINE__, "no bad value for %s", d->name);
    }
    no_context();
    str_free(&g_heard);
}

/* Debian's mpm_event.conf loads, and so do all directives of httpd's core,
 * event MPM, mod_reqtimeout and mod_status that this kit covers. */
TEST(config, files_of_apaches_load)
{
    static const char debian[] =
        "# event MPM\n# StartServers: initial number of server processes\n"
        "<IfModule mpm_event_module>\n\tStartServers\t\t 2\n"
        "\tMinSpareThreads\t\t 25\n\tMaxSpareThreads\t\t 75\n"
        "\tThreadLimit\t\t 64\n\tThreadsPerChild\t\t 25\n"
        "\tMaxRequestWorkers\t  150\n\tMaxConnectionsPerChild   0\n"
        "</IfModule>\n\n# vim: syntax=apache ts=4 sw=4 sts=4 sr noet\n";
    static const char shipped[] =        /* the shape of httpd-mpm.conf */
        "<IfModule !mpm_netware_module>\n    PidFile \"logs/httpd.pid\"\n"
        "</IfModule>\n<IfModule mpm_prefork_module>\n    StartServers 5\n"
        "    MinSpareServers 5\n    MaxSpareServers 10\n</IfModule>\n"
        "<IfModule mpm_worker_module>\n    StartServers 4\n</IfModule>\n"
        "<IfModule mpm_event_module>\n    StartServers             3\n"
        "    MinSpareThreads         75\n    MaxSpareThreads        250\n"
        "    ThreadsPerChild         25\n    MaxRequestWorkers      400\n"
        "    MaxConnectionsPerChild   0\n</IfModule>\n"
        "<IfModule mpm_netware_module>\n    MaxThreads 2000\n</IfModule>\n"
        "<IfModule !mpm_netware_module>\n    MaxMemFree            2048\n"
        "</IfModule>\n<IfModule mpm_winnt_module>\n    ThreadsPerChild 150\n"
        "</IfModule>\n";
    static const char *const core[] = {
        "StartServers 3", "ServerLimit 16", "ThreadLimit 64",
        "ThreadsPerChild 25", "MaxRequestWorkers 400", "MinSpareThreads 75",
        "MaxSpareThreads 250", "AsyncRequestWorkerFactor 2",
        "MaxConnectionsPerChild 0", "GracefulShutdownTimeout 0",
        "ListenBacklog 511", "SendBufferSize 0", "ReceiveBufferSize 0",
        "ThreadStackSize 0", "MaxMemFree 2048", "PidFile logs/httpd.pid",
        "CoreDumpDirectory /tmp", "User www-data", "Group www-data",
        "ChrootDir /srv", "Timeout 60", "KeepAlive On", "KeepAliveTimeout 5",
        "MaxKeepAliveRequests 100", "LimitRequestLine 8190",
        "LimitRequestFieldSize 8190", "LimitRequestFields 100",
        "LimitRequestBody 1073741824", "ServerTokens OS", "Listen 80",
        "ExtendedStatus On", "ErrorLog ${APACHE_LOG_DIR}/error.log",
        "LogLevel warn", "ServerName localhost", "ServerRoot \"/etc/apache2\"",
        "DocumentRoot /var/www",
        "RequestReadTimeout handshake=0 header=20-40,MinRate=500 "
        "body=20,MinRate=500",
        NULL,                       /* from here on without a meaning */
        "ListenCoresBucketsRatio 0", "ScoreBoardFile logs/apache_runtime",
        "EnableExceptionHook Off", "AcceptErrorsNonFatal Off",
        "AsyncFilter request", "LimitInternalRecursion 10",
        "FlushMaxThreshold 65535", "FlushMaxPipelined 4", "EnableSendfile Off",
        "EnableMMAP On", "MaxRanges 200", "TraceEnable off",
        "ServerSignature Off", "AcceptFilter http none",
        "Mutex file:/var/lock default", "HostnameLookups Off",
        "ServerAdmin webmaster@localhost", "UseCanonicalName Off",
        "LoadModule mpm_event_module modules/mod_mpm_event.so"
    };
    static const char installed[] =
        "/etc/apache2/mods-available/mpm_event.conf";
    empm_config cfg = empm_defaults();
    empm__report rep;
    size_t i;
    int ours = 1;

    CHECK_INT(conf_load(&cfg, debian), EMPM_OK);
    CHECK_STR(g_heard.p, "\n");
    CHECK_INT(cfg.start_servers, 2);
    CHECK_INT(cfg.min_spare_threads, 25);
    CHECK_INT(cfg.max_spare_threads, 75);
    CHECK_INT(cfg.max_request_workers, 150);
    cfg.routes = routes;
    cfg.strict = 1;                 /* nothing in it needs a correction */
    CHECK_INT(empm_check(&cfg, NULL, NULL), 0);
    empm_config_free(&cfg);
    CHECK_INT(conf_load(&cfg, shipped), EMPM_OK);
    CHECK_STR(g_heard.p, "\n");
    CHECK_INT(cfg.min_spare_threads, 75);
    CHECK_INT(cfg.start_servers, 3);
    CHECK_STR(cfg.pid_file, "logs/httpd.pid");
    empm_config_free(&cfg);
    setenv("APACHE_LOG_DIR", "/var/log/apache2", 1);
    for (i = 0; i < sizeof core / sizeof core[0]; i++) {
        if (core[i] == NULL) {
            ours = 0;
            continue;
        }
        context("%s", core[i]);
        cfg = empm_defaults();
        CHECK_INT(conf_load(&cfg, core[i]), EMPM_OK);
        CHECK_INT(heard(EMPM_LOG_INFO, 5121), !ours);
        CHECK_INT(heard(EMPM_LOG_WARN, 0), 0);
        empm_config_free(&cfg);
    }
    no_context();
    unsetenv("APACHE_LOG_DIR");
    if (access(installed, R_OK) == 0) {
        cfg = empm_defaults();
        rep = hearing();
        empm__config_load(&cfg, installed, &rep);
        CHECK_INT(rep.result, EMPM_OK);
        CHECK_STR(g_heard.p, "\n");
        CHECK(cfg.max_request_workers != 400);
        empm_config_free(&cfg);
    }
    str_free(&g_heard);
}

/* Each row of a file's syntax sets its values, or has its number of errors and
 * the first one's line. */
TEST(config, grammar_of_files)
{
    static const struct {
        const char *text, *name;    /* ServerName afterwards, NULL: not set */
        int errors, code, line;
    } rows[] = {
        { "", NULL, 0, 0, 0 }, { "\n\n  \n\t\n", NULL, 0, 0, 0 },
        { "ServerName a", "a", 0, 0, 0 }, { "ServerName a\n", "a", 0, 0, 0 },
        { "servername a", "a", 0, 0, 0 }, { "\t ServerName \t a \t ", "a", 0,
                                           0, 0 },
        { "ServerName a\r\n", "a", 0, 0, 0 }, { "ServerName a\r", "a", 0, 0,
                                               0 },
        { "# ServerName a\n", NULL, 0, 0, 0 },
        { "  # ServerName a\n", NULL, 0, 0, 0 },
        { "# ${UNSET_FOR_SURE}\nServerName b", "b", 0, 0, 0 },
        { "# goes on \\\nServerName a\nServerName b", "b", 0, 0, 0 },
        { "ServerName a # b", NULL, 1, 5123, 1 },
        { "ServerName a#b", "a#b", 0, 0, 0 },
        { "Server\\\nName \\\r\n  a\n", "a", 0, 0, 0 },
        { "ServerName a\\", "a", 0, 0, 0 }, { "ServerName a\\\n", "a", 0, 0,
                                             0 },
        { "ServerName \\\na\nFoo 1", "a", 1, 5122, 3 },
        { "ServerName a\\\nb\n", "ab", 0, 0, 0 }, { "\\", NULL, 0, 0, 0 },
        { "\\\n\\\n\\", NULL, 0, 0, 0 }, { "\\\n\nFoo", NULL, 1, 5122, 3 },
        { "ServerName \"a b\"", "a b", 0, 0, 0 },
        { "ServerName 'a b'", "a b", 0, 0, 0 },
        { "ServerName \"a 'b\"", "a 'b", 0, 0, 0 },
        { "ServerName \"a \\\"b\\\" \\\\ \\n\"", "a \"b\" \\ \\n", 0, 0, 0 },
        { "ServerName 'it\\'s'", "it's", 0, 0, 0 },
        { "ServerName a\"b", "a\"b", 0, 0, 0 },
        { "ServerName \"\"", NULL, 1, 5123, 1 }, { "ServerName", NULL, 1, 5123,
                                                  1 },
        { "ServerName \"a", NULL, 1, 5123, 1 },
        { "ServerName \"a\\\"", NULL, 1, 5123, 1 },
        { "Foo\nBar 2\n", NULL, 2, 5122, 1 }, { "\n\nFoo 1", NULL, 1, 5122, 3 },
        { "${EMPM_T} a", "a", 0, 0, 0 },
        { "ServerName ${EMPM_V}", "v w", 1, 5123, 1 },
        { "ServerName \"${EMPM_V}\"", "v w", 0, 0, 0 },
        { "ServerName x${EMPM_T}y${EMPM_T}", "xServerNameyServerName", 0, 0,
         0 },
        { "ServerName ${UNSET_FOR_SURE}", "${UNSET_FOR_SURE}", 0, 111, 1 },
        { "ServerName ${EMPM_T", "${EMPM_T", 0, 0, 0 },
        { "ServerName $EMPM_T", "$EMPM_T", 0, 0, 0 },
        { "ServerName ${}", "${}", 0, 111, 1 }, { "${EMPM_E}", NULL, 0, 0, 0 },
        { "${EMPM_E} ServerName a", "a", 0, 0, 0 },
        { "<IfModule mpm_event_module>\nServerName a\n</IfModule>", "a", 0, 0,
         0 },
        { "<IfModule event.c>\nServerName a\n</IfModule>", "a", 0, 0, 0 },
        { "<ifmodule mod_reqtimeout.c >\nServerName a\n</ifmodule>", "a", 0, 0,
         0 },
        { "<IfModule ssl_module>\nServerName a\nFoo\n<Bar>\n${UNSET_FOR_SURE}\n"
          "</IfModule>\nFoo", NULL, 1, 5122, 7 },
        { "<IfModule !ssl_module>\nServerName a\n</IfModule>", "a", 0, 0, 0 },
        { "<IfModule !mpm_event_module>\nServerName a\n</IfModule>", NULL, 0, 0,
          0 },
        { "<IfModule ssl_module>\n<IfModule core.c>\nServerName "
         "a\n</IfModule>\n"
          "ServerName b\n</IfModule>", NULL, 0, 0, 0 },
        { "<IfModule ssl_module>\n<IfModule ssl_module>\n</IfModule>\n"
          "ServerName b\n</IfModule>", NULL, 0, 0, 0 },
        { "<IfModule core.c>\n<IfModule ssl_module>\nServerName "
         "a\n</IfModule>\n"
          "ServerName b\n</IfModule>", "b", 0, 0, 0 },
        { "<IfModule core.c>\nServerName a\n", "a", 1, 5125, 2 },
        { "<IfModule ssl_module>\nServerName a", NULL, 1, 5125, 2 },
        { "ServerName a\n</IfModule>\nServerName b", "b", 1, 5125, 2 },
        { "<IfModule core.c\nServerName a", "a", 1, 5125, 1 },
        { "<IfModule>\nServerName a\n", "a", 1, 5125, 1 },
        { "<Directory /srv>\nServerName a\n</Directory>\nServerName b", "b", 1,
          5126, 1 },                /* what is for one folder is not for all */
        { "<Bar x>\nServerName a\n<Directory /srv>\n</Directory>\n</Bar>", NULL,
          1, 5125, 1 },
        { "<VirtualHost *:80>\nServerName a\nServerAlias b\n</VirtualHost>",
         NULL,
          1, 5126, 1 },
        { "<Limit GET>\n</Limit>\n<Else>\n</Else>", NULL, 2, 5126, 1 },
        { "<IfModule core.c>\n<Directory />\n</IfModule>\nServerName a", "a", 1,
          5126, 2 },
        { "<IfModule core.c>\n<IfModule !x>\n</IfDefine>\n</IfModule>\n"
          "</IfModule>", NULL, 1, 5125, 3 },
        { "Define A a\nServerName ${A}", "a", 0, 0, 0 },
        { "define A \"a b\"\nServerName \"${A}\"", "a b", 0, 0, 0 },
        { "Define A a\nDefine A b\nDefine AB c\nServerName ${A}", "b", 0, 0,
         0 },
        { "Define EMPM_T e\nServerName ${EMPM_T}", "e", 0, 0, 0 },
        { "Define EMPM_T e\nUnDefine EMPM_T\nServerName ${EMPM_T}",
         "ServerName",
          0, 0, 0 },
        { "Define A\n<IfDefine A>\nServerName a\n</IfDefine>", "a", 0, 0, 0 },
        { "Define A\n<IfDefine !A>\nServerName a\n</IfDefine>", NULL, 0, 0, 0 },
        { "<IfDefine A>\nServerName a\nFoo\n</IfDefine>", NULL, 0, 0, 0 },
        { "<IfDefine !A>\nServerName a\n</IfDefine>", "a", 0, 0, 0 },
        { "Define A\nUnDefine A\n<IfDefine A>\nServerName a\n</IfDefine>", NULL,
          0, 0, 0 },
        { "Define", NULL, 1, 5123, 1 }, { "Define A b c", NULL, 1, 5123, 1 },
        { "UnDefine A B", NULL, 1, 5123, 1 }, { "UnDefine A", NULL, 0, 0, 0 },
        { "<IfVersion 2.4>\nServerName a\n</IfVersion>", NULL, 0, 0, 0 },
        { "<IfVersion >= 2.4>\nServerName a\n</IfVersion>", "a", 0, 0, 0 },
        { "<IfVersion >=2.4.1>\nServerName a\n</IfVersion>", "a", 0, 0, 0 },
        { "<IfVersion < 2.4>\nServerName a\n</IfVersion>", NULL, 0, 0, 0 },
        { "<IfVersion < 2.5 >\nServerName a\n</IfVersion>", "a", 0, 0, 0 },
        { "<IfVersion !< 2.4>\nServerName a\n</IfVersion>", "a", 0, 0, 0 },
        { "<IfVersion > 2.3.99>\nServerName a\n</IfVersion>", "a", 0, 0, 0 },
        { "<IfVersion <= 2>\nServerName a\n</IfVersion>", NULL, 0, 0, 0 },
        { "<IfVersion ~ ^2>\nServerName a\n</IfVersion>", NULL, 1, 5125, 1 },
        { "<IfVersion 2.4.x>\nServerName a\n</IfVersion>", NULL, 1, 5125, 1 },
        { "<IfVersion >>\n</IfVersion>", NULL, 1, 5125, 1 },
        { "<IfFile /dev/null>\nServerName a\n</IfFile>", "a", 0, 0, 0 },
        { "<IfFile /no/such/file>\nServerName a\n</IfFile>", NULL, 0, 0, 0 },
        { "<", NULL, 1, 5125, 1 }, { "Include", NULL, 1, 5120, 1 },
        { "Include a b", NULL, 1, 5120, 1 },
        { "\nInclude /no/such/file", NULL, 1, 5120, 2 },
        { "IncludeOptional /no/such/file\nServerName a", "a", 0, 0, 0 },
        { "IncludeOptional /no/such/*.conf\nServerName a", "a", 0, 0, 0 },
        { "Include /no/such/*.conf\nServerName a", "a", 1, 5120, 1 }
    };
    size_t i;

    setenv("EMPM_T", "ServerName", 1);
    setenv("EMPM_V", "v w", 1);
    setenv("EMPM_E", "", 1);
    unsetenv("UNSET_FOR_SURE");
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        empm_config cfg = empm_defaults();
        const char *p;
        int line = 0;
        context("%s", rows[i].text);
        CHECK_INT(conf_load(&cfg, rows[i].text),
                  rows[i].errors ? EMPM_EINVAL : EMPM_OK);
        CHECK_INT(heard(EMPM_LOG_ERROR, 0), rows[i].errors);
        if (rows[i].code != 0) {
            CHECK_INT(heard(rows[i].errors ? EMPM_LOG_ERROR : EMPM_LOG_WARN,
                            rows[i].code), rows[i].errors ? rows[i].errors : 1);
            p = strstr(g_heard.p, "x.conf:");
            if (p != NULL)
                line = (int)strtol(p + 7, NULL, 10);
            CHECK_INT(line, rows[i].line);
        }
        if (rows[i].code == 0)
            CHECK_STR(g_heard.p, "\n");
        if (rows[i].errors == 0 || rows[i].code != 5123) {
            if (rows[i].name == NULL)
                CHECK(cfg.server_name == NULL);
            else
                CHECK_STR(cfg.server_name, rows[i].name);
        }
        empm_config_free(&cfg);
    }
    no_context();
    unsetenv("EMPM_T");
    unsetenv("EMPM_V");
    unsetenv("EMPM_E");
    str_free(&g_heard);
}

/* Nothing is cut in silence: not a line, not a value, not at a NUL. */
TEST(config, lengths_and_nul_bytes)
{
    static const char *const nuls[] = { "Timeout 7\nTimeout 9@\n", "@",
                                        "Timeout 9@", "@\nTimeout 9",
                                        "Timeout 7\nTimeout 9 \\\n@\n" };
    empm_config cfg;
    str s;
    int n;
    size_t i;

    memset(&s, 0, sizeof s);
    for (n = EMPM__CONFIG_LINE - 2; n <= EMPM__CONFIG_LINE; n++) {
        int way;                    /* in one line; in several; by a variable */
        for (way = 0; way < 3; way++) {
            const int fits = n < EMPM__CONFIG_LINE;
            context("%d bytes, way %d", n, way);
            str_free(&s);
            str_addf(&s, way == 2 ? "Listen a${EMPM_L}" : "Listen a");
            if (way == 2) {
                str value;
                memset(&value, 0, sizeof value);
                str_fill(&value, 'b', (size_t)n - 8);
                setenv("EMPM_L", value.p, 1);
                str_free(&value);
            } else {
                str_fill(&s, 'b', (size_t)n / 2 - 8);
                str_addf(&s, way == 1 ? "\\\n" : "");
                str_fill(&s, 'b', (size_t)(n - n / 2));
            }
            str_addf(&s, "\nTimeout 9\n");
            cfg = empm_defaults();
            CHECK_INT(conf_load(&cfg, s.p), fits ? EMPM_OK : EMPM_EINVAL);
            CHECK_INT(heard(EMPM_LOG_ERROR, 5124), !fits);
            CHECK(fits || strstr(g_heard.p, way == 1 ? "x.conf:2:"
                                                     : "x.conf:1:") != NULL);
            if (fits)
                CHECK_INT(strlen(cfg.listen[0]), n - 7);
            empm_config_free(&cfg);
        }
    }
    unsetenv("EMPM_L");
    for (n = 1022; n <= 1025; n++) {        /* a word of up to 1023 bytes */
        context("a value of %d bytes", n);
        str_free(&s);
        str_addf(&s, "ServerName ");
        str_fill(&s, 'b', (size_t)n);
        cfg = empm_defaults();
        CHECK_INT(conf_load(&cfg, s.p), n < 1024 ? EMPM_OK : EMPM_EINVAL);
        if (n < 1024)
            CHECK_INT(strlen(cfg.server_name), n);
        empm_config_free(&cfg);
    }
    for (i = 0; i < sizeof nuls / sizeof nuls[0]; i++) {
        char *at;
        context("NUL %d", (int)i);
        str_free(&s);
        str_addf(&s, "%s", nuls[i]);
        for (at = s.p; (at = strchr(at, '@')) != NULL; )
            *at = '\0';
        cfg = empm_defaults();
        CHECK_INT(conf_load_n(&cfg, s.p, s.n), EMPM_EINVAL);
        CHECK_INT(heard(EMPM_LOG_ERROR, 5124), 1);
        CHECK(cfg.timeout_ms != 9000);
        empm_config_free(&cfg);
    }
    no_context();
    str_free(&s);
    str_free(&g_heard);
}

/* Include takes a file, a pattern or a folder, in the order of names and
 * relative to ServerRoot; each message names its own file and line. */
TEST(config, includes)
{
    char path[400], text[1000];
    empm_config cfg = empm_defaults();
    empm__report rep;
    int i;

    mkdir(tmp_path(path, sizeof path, "d"), 0700);
    mkdir(tmp_path(path, sizeof path, "d/sub"), 0700);
    mkdir(tmp_path(path, sizeof path, "empty"), 0700);
    CHECK_INT(conf_write("d/20-b.conf", "ServerName b\nListen 2\n", 22), 0);
    CHECK_INT(conf_write("d/10-a.conf", "ServerName a\nListen 1", 21), 0);
    CHECK_INT(conf_write("d/30-c.txt", "ServerName c\nListen 3\n", 22), 0);
    CHECK_INT(conf_write("bad.conf", "\n\nNope 1\n", 9), 0);

    /* a file, a pattern, a folder: by name, and each list adds up */
    snprintf(text, sizeof text, "Include %s/d/30-c.txt\n", g_tmp);
    CHECK_INT(conf_load(&cfg, text), EMPM_OK);
    CHECK_STR(cfg.server_name, "c");
    CHECK_STR(cfg.listen[0], "3");
    snprintf(text, sizeof text, "Listen 0\nInclude \"%s/d/*.conf\"\n", g_tmp);
    CHECK_INT(conf_load(&cfg, text), EMPM_OK);
    CHECK_STR(cfg.server_name, "b");
    CHECK_STR(cfg.listen[0], "0");
    CHECK_STR(cfg.listen[1], "1");
    CHECK_STR(cfg.listen[2], "2");
    CHECK(cfg.listen[3] == NULL);
    snprintf(text, sizeof text, "IncludeOptional %s/d\nListen 4", g_tmp);
    CHECK_INT(conf_load(&cfg, text), EMPM_OK);
    CHECK_STR(cfg.server_name, "c");
    CHECK_STR(cfg.listen[2], "3");
    CHECK_STR(cfg.listen[3], "4");
    CHECK(cfg.listen[4] == NULL);
    snprintf(text, sizeof text, "Include %s/empty\n", g_tmp);
    CHECK_INT(conf_load(&cfg, text), EMPM_OK);

    /* relative to ServerRoot; both files tell their own place */
    snprintf(text, sizeof text, "ServerRoot %s\nInclude d/10-a.conf\n"
             "Include bad.conf\nNope 2\n", g_tmp);
    CHECK_INT(conf_load(&cfg, text), EMPM_EINVAL);
    CHECK_STR(cfg.server_name, "a");
    CHECK_STR(empm__config_path(&cfg, "/a/b", path, sizeof path), "/a/b");
    CHECK_STR(empm__config_path(&cfg, ".", path, sizeof path), ".");
    CHECK(strncmp(empm__config_path(&cfg, "a/b", path, sizeof path), g_tmp,
                  strlen(g_tmp)) == 0);
    CHECK_INT(heard(EMPM_LOG_ERROR, 5122), 2);
    CHECK(strstr(g_heard.p, "/bad.conf:3: ") != NULL);
    CHECK(strstr(g_heard.p, "/x.conf:4: ") != NULL);

    /* a file in itself, by each of its two doors: one error, at once */
    snprintf(text, sizeof text, "Include %s/x.conf\nIncludeOptional %s/x.*\n",
             g_tmp, g_tmp);
    CHECK_INT(conf_load(&cfg, text), EMPM_EINVAL);
    CHECK_INT(heard(EMPM_LOG_ERROR, 0), 1);
    CHECK_INT(heard(EMPM_LOG_ERROR, 5120), 1);

    /* so deep it may be, and no deeper */
    for (i = 1; i <= EMPM__CONFIG_DEPTH + 1; i++) {
        char name[32];
        int n = snprintf(text, sizeof text, "Include %s/deep%d\n", g_tmp,
                         i + 1);
        snprintf(name, sizeof name, "deep%d", i);
        CHECK_INT(conf_write(name, i == EMPM__CONFIG_DEPTH + 1 ? "Timeout 9"
                                                               : text,
                             i == EMPM__CONFIG_DEPTH + 1 ? 9 : (size_t)n), 0);
    }
    rep = hearing();
    empm__config_load(&cfg, tmp_path(path, sizeof path, "deep2"), &rep);
    CHECK_INT(rep.result, EMPM_OK);
    CHECK_INT(cfg.timeout_ms, 9000);
    rep = hearing();
    empm__config_load(&cfg, tmp_path(path, sizeof path, "deep1"), &rep);
    CHECK_INT(rep.result, EMPM_EINVAL);
    CHECK_INT(heard(EMPM_LOG_ERROR, 5120), 1);

    rep = hearing();                /* no file, and what is none */
    empm__config_load(&cfg, "/no/such/file", &rep);
    CHECK_INT(rep.result, EMPM_EINVAL);
    CHECK(strstr(g_heard.p, "EMPM5120: /no/such/file: No such file") != NULL);
    rep = hearing();
    empm__config_load(&cfg, g_tmp, &rep);
    CHECK_INT(rep.result, EMPM_EINVAL);
    {
        char err[100];
        CHECK_INT(empm_load(&cfg, "/no/such/file", err, sizeof err),
                  EMPM_EINVAL);
        CHECK(strstr(err, "/no/such/file") != NULL);
        CHECK_INT(empm_load(&cfg, tmp_path(path, sizeof path, "bad.conf"), err,
                            sizeof err), EMPM_EINVAL);
        CHECK(strstr(err, "bad.conf:3: ") != NULL);
        CHECK_INT(empm_load(&cfg, path, NULL, 0), EMPM_EINVAL);
    }
    empm_config_free(&cfg);
    str_free(&g_heard);
}

/* A folder is all that is in it, in folders inside, too, by the bytes of the
 * names: dots and tildes hide nothing, as in Apache. */
TEST(config, a_folder_is_all_of_it)
{
    char path[400], text[1000];
    empm_config cfg = empm_defaults();
    int i;

    mkdir(tmp_path(path, sizeof path, "all"), 0700);
    mkdir(tmp_path(path, sizeof path, "all/b[c"), 0700);
    mkdir(tmp_path(path, sizeof path, "all/b[c/e"), 0700);
    CHECK_INT(conf_write("all/.first", "Listen 1", 8), 0);
    CHECK_INT(conf_write("all/B", "Listen 2", 8), 0);
    CHECK_INT(conf_write("all/a", "Listen 3", 8), 0);
    CHECK_INT(conf_write("all/b[c/d", "Listen 4", 8), 0);
    CHECK_INT(conf_write("all/b[c/e/f", "Listen 5", 8), 0);
    CHECK_INT(conf_write("all/g", "Listen 6\nNope\n", 14), 0);
    snprintf(text, sizeof text, "Include %s/all\nNope\n", g_tmp);
    CHECK_INT(conf_load(&cfg, text), EMPM_EINVAL);
    for (i = 0; i < 6; i++) {
        char want[2] = { (char)('1' + i), 0 };
        CHECK_STR(cfg.listen[i] != NULL ? cfg.listen[i] : "none", want);
    }
    CHECK(cfg.listen[6] == NULL);
    CHECK_INT(heard(EMPM_LOG_ERROR, 5122), 2);
    CHECK(strstr(g_heard.p, "/all/g:2: ") != NULL);
    CHECK(strstr(g_heard.p, "/x.conf:2: ") != NULL);
    /* a pattern finds folders, too, but no name with a dot */
    snprintf(text, sizeof text, "Include %s/all/[.ab]*\n", g_tmp);
    CHECK_INT(conf_load(&cfg, text), EMPM_OK);
    CHECK_STR(cfg.listen[0], "3");
    CHECK_STR(cfg.listen[1], "4");
    CHECK_STR(cfg.listen[2], "5");
    CHECK(cfg.listen[3] == NULL);
    /* a folder in itself */
    CHECK_INT(symlink("..", tmp_path(path, sizeof path, "all/b[c/up")), 0);
    snprintf(text, sizeof text, "Include %s/all/b[c\n", g_tmp);
    CHECK_INT(conf_load(&cfg, text), EMPM_EINVAL);
    CHECK(heard(EMPM_LOG_ERROR, 5120) >= 1);
    unlink(path);
    empm_config_free(&cfg);
    str_free(&g_heard);
}

/* A file may have all that Apache takes, and is refused for all that Apache
 * refuses. */
TEST(config, small_things_as_apache_has_them)
{
    static const struct { const char *text; int result; } rows[] = {
        { "\xef\xbb\xbfTimeout 7\n", EMPM_OK },
        { "\xef\xbb\xbf# a comment\nTimeout 7\n", EMPM_OK },
        { "Timeout 7\n\xef\xbb\xbfTimeout 7\n", EMPM_EINVAL },
        { "LimitRequestFields 0\nTimeout 7", EMPM_OK },
        { "KeepAliveTimeout 0\nTimeout 7", EMPM_OK },
        { "LogLevel core:info warn\nTimeout 7", EMPM_OK },
        { "LogLevel warn ssl:trace8 core:debug\nTimeout 7", EMPM_OK },
        { "LogLevel trace8\nLogLevel core:info\nTimeout 7", EMPM_OK },
        { "ErrorLog syslog:user:web\nTimeout 7", EMPM_OK },
        { "ErrorLogFormat \"[%t] %M\"\nTimeout 7", EMPM_OK },
        { "Timeout 2147484\nTimeout 7", EMPM_OK },
        { "PidFile\nTimeout 7", EMPM_EINVAL },
        { "PidFile \"\"\nTimeout 7", EMPM_EINVAL },
        { "ServerName\nTimeout 7", EMPM_EINVAL },
        { "ErrorLog\nTimeout 7", EMPM_EINVAL },
        { "LogLevel trace9\nTimeout 7", EMPM_EINVAL },
        { "ServerField \"\"\nTimeout 7", EMPM_OK },
        { "<Nonesuch x>\nTimeout 9\n</Nonesuch>\nTimeout 7\n", EMPM_EINVAL },
        { "Timeout 7\n<Nonesuch>\nTimeout 9\n</Nonesuch>\n", EMPM_EINVAL }
    };
    empm_config cfg;
    size_t i;

    for (i = 0; i < EMPM__COUNT(rows); i++) {
        cfg = empm_defaults();
        context("%s", rows[i].text);
        CHECK_INT(conf_load(&cfg, rows[i].text), rows[i].result);
        CHECK_INT(cfg.timeout_ms, 7000);
        CHECK_INT(cfg.log_level, i == 7 ? EMPM_LOG_DEBUG : EMPM_LOG_WARN);
        empm_config_free(&cfg);
    }
    no_context();
    cfg = empm_defaults();
    CHECK_INT(conf_load(&cfg, "Timeout 2147484\nKeepAliveTimeout 0\n"
                              "LimitRequestFields 0\nMaxMemFree 0\n"
                              "RemoteIPInternalProxy 10.0.0.0/255.0.0.0\n"
                              "RemoteIPTrustedProxy 192.0.2.1\n"), EMPM_OK);
    CHECK_INT(cfg.timeout_ms, INT_MAX);
    CHECK_INT(cfg.keep_alive_timeout_ms, 0);
    CHECK_INT(cfg.limit_request_fields, 0);
    CHECK_INT(cfg.max_mem_free, 0);
    CHECK_STR(cfg.remote_ip_trusted_proxy[0], "10.0.0.0/255.0.0.0");
    CHECK_STR(cfg.remote_ip_trusted_proxy[1], "192.0.2.1");
    empm_config_free(&cfg);
    CHECK_STR(empm__log_tag("syslog:user:web"), "web");
    CHECK_STR(empm__log_tag("syslog::web"), "web");
    CHECK_STR(empm__log_tag("syslog:user"), "eventmpm");
    CHECK_STR(empm__log_tag("syslog:user:"), "eventmpm");
    str_free(&g_heard);
}

/* LimitRequestFields 0 leaves the limit to that of the whole head, and
 * MaxMemFree 0 keeps all pages. KeepAliveTimeout 0 closes idle connections at
 * once. */
LIVE(config, no_limit_and_no_time)
{
    fixture f;
    client c;
    str s;
    int i;

    fx_init(&f);
    f.cfg.limit_request_fields = 0;
    f.cfg.keep_alive_timeout_ms = 0;
    f.cfg.max_mem_free = 0;
    if (!fx_up(&f))
        return;
    memset(&s, 0, sizeof s);
    str_addf(&s, "GET /hello HTTP/1.1\r\nHost: a\r\n");
    for (i = 0; i < 300; i++)
        str_addf(&s, "X-%d: y\r\n", i);
    str_addf(&s, "\r\n");
    CHECK_INT(ask_n(&f, &c, s.p, s.n), 200);
    CHECK_INT(c.closes, 1);
    cl_close(&c);
    if (!f.forked)
        CHECK(f.s->engine.pool.most > 1u << 20);
    str_free(&s);
    fx_down(&f);
}

/* Defaults < program < file < command line; lists begin anew in each. */
TEST(config, precedence)
{
    static const char file[] = "Timeout 20\nKeepAliveTimeout 20\nListen 21\n"
                               "Listen 22\nDocumentRoot /file\n";
    static const struct {
        const char *args[8];
        int timeout, keep;
        const char *listen, *root;
    } rows[] = {
        { { "prog" }, 10, 10, "11 12", "/program" },
        { { "prog", "-f", "FILE" }, 20, 20, "21 22", "/file" },
        { { "prog", "-c", "Timeout 30" }, 30, 10, "11 12", "/program" },
        { { "prog", "-c", "Timeout 30", "-f", "FILE" }, 30, 20, "21 22",
         "/file" },
        { { "prog", "-c", "Listen 31", "-f", "FILE", "-p", "32" }, 20, 20,
          "31 32", "/file" },
        { { "prog", "-p", "31", "/dir" }, 10, 10, "31", "/dir" },
        { { "prog", "-f", "FILE", "-a", "41", "/dir" }, 20, 20, "21 22 41 "
         "admin",
          "/dir" },
        { { "prog", "-c", "ServerRoot /usr", "/tmp/../dev" }, 10, 10, "11 12",
          "/dev" },
        { { "prog", "-c", "ServerRoot /usr", "/no/such" }, 10, 10, "11 12",
          "/no/such" },
        { { "prog", "-a", "41", "-p", "31" }, 10, 10, "31 41 admin",
         "/program" }
    };
    char path[400];
    size_t i;

    CHECK_INT(conf_write("x.conf", file, sizeof file - 1), 0);
    tmp_path(path, sizeof path, "x.conf");
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        empm_config base = empm_defaults(), *cfg;
        empm__source from;
        empm__report rep = hearing();
        char *argv[9];
        char list[100] = "";
        int n, k;
        for (n = 0; n < 8 && rows[i].args[n] != NULL; n++)
            argv[n] = strdup(strcmp(rows[i].args[n], "FILE") == 0
                                 ? path : rows[i].args[n]);
        argv[n] = NULL;
        context("row %d", (int)i);
        base.timeout_ms = base.keep_alive_timeout_ms = 10000;
        base.listen[0] = "11";
        base.listen[1] = "12";
        base.document_root = "/program";
        memset(&from, 0, sizeof from);
        from.base = &base;
        from.apply = empm__main_apply;
        from.argc = n;
        from.argv = argv;
        cfg = empm__program_config_new(&from, &rep);
        if (CHECK(cfg != NULL)) {
            for (k = 0; cfg->listen[k] != NULL; k++)
                snprintf(list + strlen(list), sizeof list - strlen(list),
                         "%s%s", k > 0 ? " " : "", cfg->listen[k]);
            CHECK_INT(cfg->timeout_ms, rows[i].timeout * 1000);
            CHECK_INT(cfg->keep_alive_timeout_ms, rows[i].keep * 1000);
            CHECK_STR(list, rows[i].listen);
            CHECK_STR(cfg->document_root, rows[i].root);
            empm_config_free(cfg);
            EMPM_FREE(cfg);
        }
        CHECK_STR(base.listen[0], "11");
        while (n-- > 0)
            free(argv[n]);
    }
    no_context();
    {                               /* as many as there is room for */
        empm_config cfg = empm_defaults();
        str s;
        int k;
        memset(&s, 0, sizeof s);
        for (k = 0; k <= EMPM_MAX_LISTEN; k++)
            str_addf(&s, "Listen %d\n", 8000 + k);
        CHECK_INT(conf_load(&cfg, s.p), EMPM_EINVAL);
        CHECK_INT(heard(EMPM_LOG_ERROR, 5123), 1);
        CHECK(strstr(g_heard.p, "x.conf:17: Listen 8016") != NULL);
        str_free(&s);
        empm_config_free(&cfg);
    }
    str_free(&g_heard);
}

/* An unknown directive is an error that names the nearest known one, if one is
 * near. */
TEST(config, unknown_names_and_the_nearest)
{
    static const char *const rows[][2] = {
        { "KepAliveTimeout", "KeepAliveTimeout" }, { "TimeOut", "" },
        { "Timeot", "Timeout" }, { "keepalivetimeut", "KeepAliveTimeout" },
        { "MaxRequestWorker", "MaxRequestWorkers" }, { "Lisen", "Listen" },
        { "ThreadPerChild", "ThreadsPerChild" }, { "Usr", "User" },
        { "Frobnicate", NULL }, { "x", NULL }, { "Qqqqqqqqqqqqqq", NULL }
    };
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        empm_config cfg = empm_defaults();
        char text[100], want[100], err[200] = "";
        context("%s", rows[i][0]);
        snprintf(text, sizeof text, "%s 1", rows[i][0]);
        conf_load(&cfg, text);
        empm_set(&cfg, rows[i][0], "1", err, sizeof err);
        if (rows[i][1] == NULL) {
            CHECK_INT(heard(EMPM_LOG_ERROR, 5122), 1);
            CHECK(strstr(g_heard.p, "perhaps") == NULL);
            CHECK(strstr(err, "perhaps") == NULL && err[0] != '\0');
        } else if (rows[i][1][0] == '\0') {
            CHECK_STR(g_heard.p, "\n");
        } else {
            snprintf(want, sizeof want, "Invalid command '%s', perhaps '%s' is "
                     "meant", rows[i][0], rows[i][1]);
            CHECK(strstr(g_heard.p, want) != NULL);
            CHECK(strstr(err, want) != NULL);
        }
        empm_config_free(&cfg);
    }
    no_context();
    str_free(&g_heard);
}

/* A directive of Apache's that this server has not is no typing error: the
 * message names its replacement, for every line and once. */
TEST(config, apaches_names_say_what_to_do)
{
    static const char *const rows[][2] = {
        { "MinSpareServers", "MinSpareThreads" }, { "maxspareservers", "event "
                                                   "MPM" },
        { "SSLEngine", "behind the port" }, { "ProxyPass", "proxy in front" },
        { "RewriteEngine", "a route" }, { "Header", "empm_set_header" },
        { "Alias", "EMPM_FILES" }, { "SetHandler", "AddHandler" },
        { "AddOutputFilterByType", "handler" }, { "AuthType", "on_head" },
        { "Require", "on_head" }, { "TransferLog", "CustomLog" },
        { "SetEnvIf", "getenv" }, { "ExpiresActive", "empm_set_header" },
        { "Protocols", "HTTP/1.1" }, { "php_value", "handler" },
        { "ErrorDocument", "handler" }, { "Define", "file" },
        { "RemoteIPProxyProtocol", "8080 proxy" }
    };
    static const char *const typos[] = { "SS", "MinSpareServer", "Headers" };
    size_t i, k;

    for (i = 0; i < EMPM__COUNT(rows); i++) {
        empm_config cfg = empm_defaults();
        char err[300] = "";
        context("%s", rows[i][0]);
        CHECK_INT(empm_set(&cfg, rows[i][0], "x", err, sizeof err),
                  EMPM_EINVAL);
        CHECK(strncmp(err, "EMPM5126: ", 10) == 0);
        CHECK(strstr(err, rows[i][0]) != NULL &&
              strstr(err, rows[i][1]) != NULL);
        CHECK(strstr(err, "perhaps") == NULL);
        empm_config_free(&cfg);
    }
    for (i = 0; i < EMPM__COUNT(typos); i++) {
        empm_config cfg = empm_defaults();
        char err[300] = "";
        context("%s", typos[i]);
        CHECK_INT(empm_set(&cfg, typos[i], "x", err, sizeof err), EMPM_EINVAL);
        CHECK(strncmp(err, "EMPM5122: ", 10) == 0);
        empm_config_free(&cfg);
    }
    no_context();
    /* the lists are well-formed, and none of them hides a directive */
    for (i = 0; i < EMPM__COUNT(empm__directives); i++)
        CHECK(!empm__text_listed(empm__meaningless, empm__directives[i].name));
    for (i = 0; i < EMPM__COUNT(empm__apaches); i++) {
        const char *p = empm__apaches[i].names;
        CHECK(*p != ' ' && strstr(p, "  ") == NULL && p[strlen(p) - 1] != ' ');
        for (k = 0; k < EMPM__COUNT(empm__directives); k++)
            CHECK(!empm__text_listed(p, empm__directives[k].name));
    }
    {
        empm_config cfg = empm_defaults();
        conf_load(&cfg, "SSLEngine on\nMinSpareServers 5\nTimeout 7\nFoo\n"
                        "<Location />\nRequire all denied\n</Location>\n");
        CHECK_INT(heard(EMPM_LOG_ERROR, 5126), 3);
        CHECK_INT(heard(EMPM_LOG_ERROR, 5122), 1);
        CHECK(strstr(g_heard.p, "x.conf:5: <Location> ") != NULL);
        CHECK_INT(cfg.timeout_ms, 7000);
        empm_config_free(&cfg);
    }
    str_free(&g_heard);
}

/* Directives read the same under any setlocale(): with Turkish rules I is no
 * i, with German ones 2.5 is no number. */
TEST(config, locales)
{
    static const char *const names[] = { "tr_TR", "de_DE" };
    char cmd[600], month[32];
    struct tm tm;
    locale_t c;
    int i, n = 0;

    setenv("LOCPATH", g_tmp, 1);
    for (i = 0; i < 2; i++) {
        empm_config cfg = empm_defaults();
        snprintf(cmd, sizeof cmd, "localedef -i %s -f %s %s/%s >/dev/null 2>&1",
                 names[i], i == 0 ? "ISO-8859-9" : "ISO-8859-1", g_tmp,
                 names[i]);
        if (system(cmd) == -1 || setlocale(LC_ALL, names[i]) == NULL)
            continue;
        context("%s", names[i]);
        CHECK_INT(conf_load(&cfg, "TIMEOUT 7\nasyncrequestworkerfactor 2.5\n"
                                  "<IFMODULE core.c>\nKEEPALIVETIMEOUT 9MIN\n"
                                  "</ifmodule>\nLISTEN 80\nSSLVERIFYCLIENT x\n"
                                  "HOSTNAMELOOKUPS Off\nLOGLEVEL INFO\n"),
                  EMPM_EINVAL);
        CHECK_INT(heard(EMPM_LOG_ERROR, 0), 1);
        CHECK_INT(heard(EMPM_LOG_ERROR, 5126), 1);
        CHECK_INT(heard(EMPM_LOG_INFO, 5121), 1);
        CHECK_INT(empm__log_facility("syslog:MAIL"), LOG_MAIL);
        memset(&tm, 0, sizeof tm);
        tm.tm_mon = 4;
        c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
        CHECK_INT(empm__access_strftime(c, month, sizeof month, "%b", &tm), 3);
        CHECK_STR(month, "May");
        freelocale(c);
        CHECK_INT(cfg.timeout_ms, 7000);
        CHECK_INT(cfg.keep_alive_timeout_ms, 540000);
        CHECK(cfg.async_request_worker_factor > 2.4 &&
              cfg.async_request_worker_factor < 2.6);
        setlocale(LC_ALL, "C");
        empm_config_free(&cfg);
        n++;
    }
    no_context();
    unsetenv("LOCPATH");
    str_free(&g_heard);
    if (n == 0)
        SKIP("no localedef, or no sources of locales");
}

/* Define has room for so many names; one more is an error, and UnDefine makes
 * room. */
TEST(config, defines_have_a_limit)
{
    empm_config cfg = empm_defaults();
    str text = { NULL, 0, 0, 0 };
    int i;

    for (i = 0; i < EMPM__CONFIG_DEFINES; i++)
        str_addf(&text, "Define N%d v%d\n", i, i);
    str_addf(&text, "UnDefine N5\nDefine M m\nServerName ${M}${N63}\n");
    CHECK_INT(conf_load(&cfg, text.p), EMPM_OK);
    CHECK_STR(cfg.server_name, "mv63");
    str_addf(&text, "Define P\n");
    CHECK_INT(conf_load(&cfg, text.p), EMPM_EINVAL);
    CHECK(strstr(g_heard.p, "64 can be defined") != NULL);
    empm_config_free(&cfg);
    text.n = 0;
    for (i = 0; i < EMPM__CONFIG_SECTIONS; i++)
        str_addf(&text, "<IfDefine !A>\n");
    str_addf(&text, "ServerName deep\n");
    for (i = 0; i < EMPM__CONFIG_SECTIONS; i++)
        str_addf(&text, "</IfDefine>\n");
    CHECK_INT(conf_load(&cfg, text.p), EMPM_OK);
    CHECK_STR(cfg.server_name, "deep");
    empm_config_free(&cfg);
    for (text.n = 0, i = 0; i <= EMPM__CONFIG_SECTIONS; i++)
        str_addf(&text, "<IfDefine A>\n");
    CHECK_INT(conf_load(&cfg, text.p), EMPM_EINVAL);
    CHECK_INT(heard(EMPM_LOG_ERROR, 5125), 1);
    empm_config_free(&cfg);
    str_free(&text);
    str_free(&g_heard);
}

/* No mutation of a good file crashes the reader, and each error says its
 * place. */
TEST(config, mutations_of_a_good_file)
{
    static const char good[] =
        "# a file\nServerRoot \"/tmp\"\nListen 127.0.0.1:0 admin\nListen 8080\n"
        "<IfModule mpm_event_module>\n  ThreadsPerChild 10\n"
        "  <IfModule !ssl_module>\n    MaxRequestWorkers 40\n  </IfModule>\n"
        "</IfModule>\nRequestReadTimeout header=20-40,MinRate=500 body=20\n"
        "LogFormat \"%h \\\"%r\\\" %>s\" mine\nKeepAliveTimeout \\\n  100ms\n"
        "User ${EMPM_USER}\nGracefulStopSignal QUIT\nServerTokens Prod\n"
        "AsyncRequestWorkerFactor 1.5\nStuckWorkerTimeout 30 replace\n"
        "LogLevel info\nMaxMemFree 2048\nKeepAlive On\nGroup '#33'\n";
    static const char spice[] = "\n\r\\\"' \t#<>/!${}=,-.0123456789aZ\0\xff";
    uint32_t seed = 12345;
    char path[400];
    int round, bad = 0;

    tmp_path(path, sizeof path, "x.conf");
    setenv("EMPM_USER", "www-data", 1);
    for (round = 0; round < 4000 && get_int(&g_failures) < 5; round++) {
        empm_config cfg = empm_defaults();
        char text[2 * sizeof good];
        const char *p;
        size_t n = sizeof good - 1;
        int cuts = round == 0 ? 0 : 1 + round % 4;
        memcpy(text, good, n);
        while (cuts-- > 0 && n > 0) {
            size_t at, len;
            seed = seed * 1664525u + 1013904223u;
            at = (seed >> 8) % n;
            len = 1 + (seed >> 4) % 12;
            if (len > n - at)
                len = n - at;
            switch (seed >> 30) {
            case 0:                 /* another byte */
                text[at] = spice[(seed >> 3) % (sizeof spice - 1)];
                break;
            case 1:                 /* some out */
                memmove(text + at, text + at + len, n - at - len);
                n -= len;
                break;
            case 2:                 /* some twice */
                if (n + len > sizeof text)
                    break;
                memmove(text + at + len, text + at, n - at);
                n += len;
                break;
            default:                /* the end off */
                if (seed >> 28 == 15)
                    n = at;
            }
        }
        context("round %d", round);
        bad += conf_load_n(&cfg, text, n) < 0;
        if (round == 0)
            CHECK_STR(g_heard.p, "\n");
        for (p = g_heard.p; (p = strstr(p, "\n3 EMPM")) != NULL; p++) {
            const char *at = strstr(p, "x.conf:");
            CHECK(at != NULL && at[7] >= '1' && at[7] <= '9');
        }
        cfg.routes = routes;
        if (round % 8 == 0)
            empm_check(&cfg, NULL, NULL);
        empm_config_free(&cfg);
    }
    no_context();
    CHECK_IN(bad, 500, 3900);
    unsetenv("EMPM_USER");
    str_free(&g_heard);
}

/* Any one allocation that fails makes a call of the configuration return
 * EMPM_ENOMEM, with a message, and leaves nothing behind. */
TEST(config, load_survives_each_failing_allocation)
{
    char path[400], text[600], err[200];
    int k, n, failed = 0;

    mkdir(tmp_path(path, sizeof path, "d"), 0700);
    CHECK_INT(conf_write("d/10-a.conf", "Listen 1\nServerName a\n", 22), 0);
    n = snprintf(text, sizeof text, "ServerName b\nInclude %s/d/10-a.conf\n"
                 "CustomLog a b\nUser \"#33\"\nTimeout 7\nServerTokens Prod\n",
                 g_tmp);
    CHECK_INT(conf_write("x.conf", text, (size_t)n), 0);
    tmp_path(path, sizeof path, "x.conf");
    for (k = 1; k < 100; k++) {
        empm_config cfg = empm_defaults();
        int r, hit;
        context("allocation %d", k);
        err[0] = '\0';
        set_int(&a_fail_at, k);
        r = empm_load(&cfg, path, err, sizeof err);
        hit = get_int(&a_fail_at) <= 0;
        set_int(&a_fail_at, 0);
        CHECK_INT(r, hit ? EMPM_ENOMEM : EMPM_OK);
        CHECK(!hit || strstr(err, "memory") != NULL);
        failed += hit;
        empm_config_free(&cfg);
        CHECK_INT(get_int(&a_live), 0);
        if (!hit)
            break;
    }
    CHECK_INT(failed, 8);           /* 2 files, 6 strings */
    for (k = 1; k < 3; k++) {
        empm_config cfg = empm_defaults();
        context("empm_set, allocation %d", k);
        set_int(&a_fail_at, k);
        CHECK_INT(empm_set(&cfg, "Listen", "1", err, sizeof err),
                  k == 1 ? EMPM_ENOMEM : EMPM_OK);
        set_int(&a_fail_at, 0);
        empm_config_free(&cfg);
    }
    for (k = 1; k < 100; k++) {     /* the check needs memory, too */
        empm_config cfg = empm_defaults();
        empm__report rep = hearing();
        int r, hit;
        context("check, allocation %d", k);
        cfg.routes = routes;
        set_int(&a_fail_at, k);
        r = empm__check_all(&cfg, NULL, &rep);
        hit = get_int(&a_fail_at) <= 0;
        set_int(&a_fail_at, 0);
        CHECK_INT(r, hit ? EMPM_ENOMEM : EMPM_OK);
        CHECK_INT(rep.errors > 0, hit);
        CHECK_INT(get_int(&a_live), 0);
        if (!hit)
            break;
    }
    no_context();
    CHECK(k > 1 && k < 100);
    str_free(&g_heard);
}

/* ---------------------------------------------------------------------------
 * >>log -- every message has a number, a shape and a limit
 * ------------------------------------------------------------------------- */

/* A file of this test's, read whole; the caller frees. */
static char *slurp_path(const char *path)
{
    int fd = open(path, O_RDONLY);
    char *text = slurp(fd);

    if (fd >= 0)
        close(fd);
    return text;
}

static int lines_in(const char *text)
{
    int n = 0;

    for (; *text != 0; text++)
        n += *text == '\n';
    return n;
}

/* Does text match? In the pattern '#' is digits, '*' anything but a line's end
 * up to the byte after it. */
static int like(const char *text, const char *pattern)
{
    for (; *pattern != 0; pattern++) {
        if (*pattern == '#') {
            if (!empm__ascii_is_digit((unsigned char)*text))
                return 0;
            while (empm__ascii_is_digit((unsigned char)*text))
                text++;
        } else if (*pattern == '*') {
            while (*text != 0 && *text != '\n' && *text != pattern[1])
                text++;
        } else if (*text++ != *pattern)
            return 0;
    }
    return *text == 0;
}

static void mark_codes(unsigned char *marks, unsigned char bit,
                       const char *from, const char *to)
{
    for (; from < to; from++) {
        size_t n = strspn(from, "0123456789");
        if (n > 0) {
            long code = strtol(from, NULL, 10);
            if (code >= 20 && code < 10000 && n <= 4)
                marks[code] |= bit;
            from += n;
        }
    }
}

/* The appendix lists every message number of the code, each exactly once. */
TEST(log, table_of_codes)
{
    static const char *const calls[] = {
        "empm__log(", "empm__engine_log(", "empm__worker_log(",
            "empm__request_log(",
        "empm__report_say(", "empm__config_clamp(",
        "empm__reading_proxy_refuse("
    };
    /* 1: in the table, 2: called, 4: a number */
    unsigned char marks[10000];
    char *text = slurp_path("eventmpm.h"), *p, *end, *code, *table;
    int last = -1, i;

    memset(marks, 0, sizeof marks);
    p = table = strstr(text, "\n * >>messages ");
    code = strstr(text, "#ifdef EVENTMPM_IMPLEMENTATION\n");
    if (!CHECK(p != NULL && code != NULL && code < p)) {
        free(text);
        return;
    }
    *p++ = 0;                        /* the code ends here */
    end = strstr(p, "\n * ---");
    for (; p < end; p = strchr(p, '\n') + 1) {
        char *at = p, *stop = strchr(p, '\n');
        for (; at + 6 < stop; at++)      /* two spaces, number, two spaces */
            if (at[0] == ' ' && at[1] == ' ' &&
                strspn(at + 2, "0123456789") == 4 && at[6] == ' ' &&
                at[7] == ' ') {
                i = (int)strtol(at + 2, NULL, 10);
                if (i <= last)
                    fail(__FILE__, __LINE__, "%04d stands behind %04d", i,
                         last);
                last = i;
                marks[i] |= 1;
            }
    }
    EACH(calls, k)
        for (p = code; (p = strstr(p, calls[k])) != NULL; p += strlen(calls[k]))
            mark_codes(marks, 2, p, p + strcspn(p, "\";{"));
    mark_codes(marks, 4, code, table);
    for (i = 0; i < 10000; i++) {
        if ((marks[i] & 3) == 2)
            fail(__FILE__, __LINE__, "%04d is logged and not in the table", i);
        if ((marks[i] & 5) == 1)
            fail(__FILE__, __LINE__, "%04d is in the table and never logged",
                 i);
    }
    CHECK(last > 5000);
    free(text);
}

/* HTTP and configurations are ASCII under any setlocale(): no function that
 * follows it is called. */
TEST(log, nothing_follows_the_locale)
{
    static const char *const calls[] = {
        "strcasecmp", "strncasecmp", "strcasestr", "strcoll", "strtod",
            "strtof",
        "atof", "toupper", "tolower", "isalpha", "isalnum", "isdigit",
        "isxdigit",
        "isspace", "isupper", "islower", "isprint", "iscntrl", "ispunct",
        "fnmatch", "regcomp", "mbtowc"
    };
    char *text = slurp_path("eventmpm.h"), *p;
    size_t n;

    EACH(calls, i)
        for (p = text; (p = strstr(p, calls[i])) != NULL; p += n) {
            n = strlen(calls[i]);
            if (p[n] == '(' && strchr(" (!=,\n", p[-1]) != NULL &&
                p[n + 1] != ')')
                fail(__FILE__, __LINE__, "%s() follows the locale", calls[i]);
        }
    free(text);
}

/* A line of the log has the shape of Apache's error log. Control characters of
 * its text become '?', so that one message is one line. */
TEST(log, a_line_is_one_write_in_apaches_shape)
{
    empm_config cfg = empm_defaults();
    char path[300], longer[2000], *text;

    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = 0;
    tmp_path(path, sizeof path, "error.log");
    cfg.log = empm__log_stderr;
    cfg.log_target = empm__log_file(path);
    if (!CHECK(cfg.log_target > 2))
        return;
    empm__log(&cfg, EMPM_LOG_ERROR, 484, "busy: %d", 7);
    text = slurp_path(path);
    if (!CHECK(like(text, "[* * # #:#:#.# #] [mpm_event:error] [pid #:tid -] "
                    "EMPM0484: busy: 7\n") ||
               like(text, "[* *  # #:#:#.# #] [mpm_event:error] [pid #:tid -] "
                    "EMPM0484: busy: 7\n")))
        printf("%s", text);
    CHECK_INT(strcspn(strchr(text, '.') + 1, " "), 6);      /* microseconds */
    free(text);
    empm__log(&cfg, EMPM_LOG_DEBUG, 484, "below LogLevel");
    empm__log(&cfg, EMPM_LOG_WARN, 1, "%s", "a\nb\033[31mc\177");
    empm__log(&cfg, EMPM_LOG_WARN, 1, "%s", longer);
    text = slurp_path(path);
    CHECK_INT(lines_in(text), 3);
    CHECK(strstr(text, "EMPM0001: a?b?[31mc?\n") != NULL);
    CHECK(strchr(text, '\033') == NULL);
    CHECK(text[strlen(text) - 1] == '\n');
    free(text);
    close(cfg.log_target);
    unlink(path);
}

/* ErrorLog "syslog", with a facility and a tag, is syslog; an unknown facility
 * is an error, and any other text is a file. */
TEST(log, targets)
{
    static const struct { const char *name; int facility; } cases[] = {
        { "syslog", LOG_LOCAL7 }, { "syslog:user", LOG_USER },
        { "syslog:LOCAL3", LOG_LOCAL3 }, { "syslog:kern", LOG_KERN },
        { "syslog:loud", -1 }, { "syslog:user:web", LOG_USER },
        { "syslog::web", LOG_LOCAL7 }, { "syslog:loud:web", -1 },
        { "syslogs", -2 }, { "logs/error_log", -2 },
        { "stderr", -2 }
    };
    empm_config cfg = empm_defaults();

    cfg.routes = routes;
    EACH(cases, i) {
        context("%s", cases[i].name);
        CHECK_INT(empm__log_facility(cases[i].name), cases[i].facility);
        cfg.error_log = cases[i].name;
        CHECK_INT(empm_check(&cfg, say, NULL), cases[i].facility == -1);
    }
}

/* The words of "|program" are split as a line of a configuration, and none of
 * them passes a shell unless "|$" says so. */
TEST(log, words_of_a_program)
{
    static const struct { const char *command, *words; int n; } cases[] = {
        { "|rotatelogs logs/a.%Y 86400", "rotatelogs,logs/a.%Y,86400,", 3 },
        { "||cat -u", "cat,-u,", 2 }, { "|\"a b\" 'c d'  e", "a b,c d,e,", 3 },
        { "|$cat > x; y", "/bin/sh,-c,cat > x; y,", 3 }, { "|", "", 0 },
        { "||", "", 0 }, { "|$", "", 0 }, { "| \"x", "", 0 },
        { "|1 2 3 4 5 6 7 8 9 10 1 2 3 4 5 6 7 8 9 20 1 2 3 4 5 6 7 8 9 30 31 "
          "32 33", "", 0 }
    };
    char room[1024], longer[1200], got[200], *argv[EMPM__PIPE_WORDS + 1];
    int k, n;

    EACH(cases, i) {
        context("%s", cases[i].command);
        n = empm__log_pipe_words(cases[i].command, room, argv);
        CHECK_INT(n, cases[i].n);
        got[0] = 0;
        for (k = 0; k < n; k++)
            snprintf(got + strlen(got), sizeof got - strlen(got), "%s,",
                     argv[k]);
        if (n > 0)
            CHECK(argv[n] == NULL);
        if (n == cases[i].n && n > 0)
            CHECK_STR(got, cases[i].words);
    }
    memset(longer, 'x', sizeof longer);
    longer[0] = '|';
    longer[sizeof longer - 1] = 0;
    CHECK_INT(empm__log_pipe_words(longer, room, argv), 0);
    longer[1] = '$';
    CHECK_INT(empm__log_pipe_words(longer, room, argv), 0);
}

/* A relative ErrorLog lies below ServerRoot, and its file has mode 0640. */
TEST(log, error_log_is_a_file)
{
    fixture f;
    char path[300], *text = NULL;
    struct stat st;
    mode_t mask = umask(0);

    fx_init_forked(&f, 1);
    f.cfg.log = NULL;
    f.cfg.log_level = EMPM_LOG_INFO;
    f.cfg.server_root = g_tmp;
    f.cfg.error_log = "error_log";
    tmp_path(path, sizeof path, "error_log");
    if (!fx_up(&f))
        return;
    CHECK_INT(get_status(&f, "/misuse?how=nothing"), 500);
    text = slurp_path(path);
    CHECK(strstr(text, "] [client 127.0.0.1:") != NULL);
    CHECK(strstr(text, "] EMPM5002: GET /misuse: gave no answer\n") != NULL);
    /* a worker said it */
    CHECK(strstr(text, ":tid -] EMPM5002") == NULL);
    CHECK(strstr(text, " [mpm_event:info] ") != NULL);      /* and the parent */
    free(text);
    CHECK_INT(stat(path, &st), 0);
    CHECK_INT(st.st_mode & 07777, 0640);
    fx_down(&f);
    unlink(path);
    umask(mask);
}

/* A FIFO as a log has no reader at first: the start does not wait for one, a
 * later reader finds the first lines, and a full FIFO holds nobody. */
TEST(log, a_fifo_is_not_waited_for)
{
    static char page[8192];
    empm_config cfg = empm_defaults();
    char path[300];
    int fd, i;
    ssize_t n = 0;

    tmp_path(path, sizeof path, "fifo");
    if (!CHECK_INT(mkfifo(path, 0600), 0))
        return;
    cfg.log = empm__log_stderr;
    cfg.log_target = empm__log_file(path);
    if (!CHECK(cfg.log_target > 2))
        return;
    empm__log(&cfg, EMPM_LOG_ERROR, 484, "early");
    if (!CHECK((fd = open(path, O_RDONLY | O_NONBLOCK)) >= 0))
        return;
    n = read(fd, page, sizeof page - 1);
    page[n > 0 ? n : 0] = 0;
    CHECK(strstr(page, "EMPM0484: early\n") != NULL);
    memset(page, 'x', sizeof page);
    for (i = 0; i < 2; i++)
        while (write(cfg.log_target, page, i == 0 ? sizeof page : 1) > 0)
            ;
    for (i = 0; i < 5; i++)
        empm__log(&cfg, EMPM_LOG_ERROR, 484, "lost");
    CHECK_INT(cfg.log_lost, 5);
    while (read(fd, page, sizeof page) > 0)
        ;
    empm__log(&cfg, EMPM_LOG_ERROR, 484, "late");
    n = read(fd, page, sizeof page - 1);
    page[n > 0 ? n : 0] = 0;
    CHECK(strstr(page, "EMPM0646: 5 lines before this one are lost") != NULL);
    CHECK(strstr(page, "EMPM0484: late\n") != NULL);
    CHECK(strstr(page, "EMPM0484: lost\n") == NULL);
    CHECK_INT(cfg.log_lost, 0);
    close(fd);
    close(cfg.log_target);
    unlink(path);
}

/* A message to the log callback carries its level, the client's address and
 * its number. */
SERVED(log, callbacks_get_client_number_and_text, NULL)
{
    CHECK_INT(get_status(f, "/misuse?how=nothing"), 500);
    CHECK_SOON(fx_log_has(f, "3 [client 127.0.0.1:"), 1000);
    CHECK(fx_log_has(f, "] EMPM5002: GET /misuse: gave no answer\n"));
}

/* A line that a handler logs carries the client's address and no number, and
 * LogLevel decides about it. */
SERVED(log, handlers_write_their_own_lines, "LogLevel warn")
{
    CHECK_INT(get_status(f, "/log"), 200);
    CHECK(fx_log_has(f, "3 [client 127.0.0.1:"));
    CHECK(fx_log_has(f, "] no price of tea:?asked 3 times\n"));
    CHECK(!fx_log_has(f, "a detail"));
    CHECK(!fx_log_has(f, "a notice of a handler"));    /* LogLevel decides */
    CHECK(!fx_log_has(f, "EMPM0000"));
}

/* Start, reload and stop are logged even at LogLevel crit. */
SERVED(log, what_the_server_does_is_said_at_any_level, "LogLevel crit")
{
    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "5 EMPM0489: eventmpm/" EMPM_VERSION
                          " configured -- resuming normal operations"), 8000);
    if (f->forked) {
        signal_process(f->pid, SIGUSR1);
        CHECK_SOON(fx_log_has(f, "5 EMPM0489: generation 1 serves"), 8000);
        CHECK(fx_log_has(f, "5 EMPM0493: SIGUSR1 received"));
        signal_process(f->pid, SIGTERM);
        CHECK(fx_wait(f, PATIENCE));
        if (CHECK(fx_reap(f, f->pid, SCALED(3000))))
            f->pid = 0;
    } else {
        empm_stop(f->s);
        CHECK_INT(empm_wait(f->s, PATIENCE), EMPM_OK);
    }
    CHECK(fx_log_has(f, "5 EMPM0491: "));
}

/* A failed empm_start() prints nothing; it writes its reason to ErrorLog where
 * there is one. Later messages go to the same file. */
TEST(log, start_says_why_it_fails_where_it_is_asked_to)
{
    fixture f;
    char path[300], *text;
    int asked, kept = -1, said;

    tmp_path(path, sizeof path, "error_log");
    for (asked = 0; asked < 2; asked++) {        /* nowhere; ErrorLog */
        context("ErrorLog %d", asked);
        fx_init(&f);
        f.cfg.log = NULL;
        f.cfg.error_log = asked ? path : NULL;
        f.cfg.listen[0] = "192.0.2.1:80";        /* no address of ours */
        kept = dup(2);
        said = unlinked_file();
        dup2(said, 2);
        CHECK(empm_start(&f.cfg, &f.s) < 0);
        dup2(kept, 2);
        close(kept);
        text = slurp(said);
        CHECK_STR(text, "");                     /* it prints nothing */
        free(text);
        close(said);
        CHECK(f.cfg.log == NULL);
        if (asked) {
            text = slurp_path(path);
            CHECK(strstr(text, "EMPM0072: Listen 192.0.2.1:80: ") != NULL);
            free(text);
        }
        fx_close_files(&f);
    }
    no_context();
    fx_init(&f);                                 /* and what it does later */
    f.cfg.log = NULL;
    f.cfg.error_log = path;
    f.forked = 0;
    if (fx_up(&f)) {
        CHECK_INT(get_status(&f, "/misuse?how=nothing"), 500);
        fx_down(&f);
        CHECK(f.cfg.log == NULL);
        text = slurp_path(path);
        CHECK(strstr(text, "EMPM0489: ") != NULL);
        CHECK(strstr(text, "EMPM5002: ") != NULL);
        CHECK(strstr(text, "EMPM0491: ") != NULL);
        free(text);
    }
    unlink(path);
}

/* After ten lines of a kind within a minute, the log only counts further ones,
 * and says at the stop how many it left out. */
SERVED(log, load_does_not_fill_it, NULL)
{
    int i;

    for (i = 0; i < 50; i++)
        CHECK_INT(get_status(f, "/misuse?how=nothing"), 500);
    CHECK_SOON(fx_log_lines(f, "gave no answer") == 10, 1000);
    nap(20);
    CHECK_INT(fx_log_lines(f, "gave no answer"), 10);
    if (!f->forked) {
        empm_stop(f->s);
        CHECK_INT(empm_wait(f->s, PATIENCE), EMPM_OK);
        CHECK(fx_log_has(f, "EMPM5002: 40 more of these were left out"));
    }
}

/* A message is limited per number and minute; the next minute begins with how
 * many lines were left out. A full table limits nothing more. */
TEST(log, limits_are_per_number_and_minute)
{
    static empm__log_limit limits[EMPM__LOG_CODES];
    fixture f;
    uint32_t i, n = 0;

    fx_init(&f);
    memset(limits, 0, sizeof limits);
    for (i = 0; i < 100; i++)
        n += (uint32_t)empm__log_may(&f.cfg, limits, EMPM_LOG_ERROR, 5003, 10);
    CHECK_INT(n, 10);
    CHECK_INT(empm__log_may(&f.cfg, limits, EMPM_LOG_ERROR, 5009, 1), 1);
    CHECK_INT(empm__log_may(&f.cfg, limits, EMPM_LOG_ERROR, 5009, 1), 0);
    CHECK(!fx_log_has(&f, "left out"));
    limits[0].began_ms -= EMPM__LOG_WINDOW_MS - 1000;      /* 59 s later */
    CHECK_INT(empm__log_may(&f.cfg, limits, EMPM_LOG_ERROR, 5003, 10), 0);
    limits[0].began_ms -= 1000;
    CHECK_INT(empm__log_may(&f.cfg, limits, EMPM_LOG_ERROR, 5003, 10), 1);
    CHECK(fx_log_has(&f, "EMPM5003: 91 more of these were left out"));
    CHECK_INT(empm__log_may(&f.cfg, limits, EMPM_LOG_ERROR, 5009, 1), 0);
    limits[1].began_ms += 0x70000000u;         /* 28 days later */
    CHECK_INT(empm__log_may(&f.cfg, limits, EMPM_LOG_ERROR, 5009, 1), 1);
    CHECK(fx_log_has(&f, "EMPM5009: 2 more of these were left out"));
    for (i = 0; i < EMPM__LOG_CODES; i++)      /* a full table limits no more */
        empm__log_may(&f.cfg, limits, EMPM_LOG_ERROR, 6000 + (int)i, 1);
    CHECK_INT(empm__log_may(&f.cfg, limits, EMPM_LOG_ERROR, 7000, 1), 1);
    CHECK_INT(empm__log_may(&f.cfg, limits, EMPM_LOG_ERROR, 7000, 1), 1);
    fx_close_files(&f);
}

/* ---------------------------------------------------------------------------
 * >>handover -- the word, tickets, slabs
 * ------------------------------------------------------------------------- */

/* An event for an owned record is noted, an event that nobody wants is kept,
 * and a wanted one is taken together with all that were kept. A hang-up is
 * always wanted. */
TEST(handover, an_event_is_taken_noted_or_kept)
{
    empm__conn c;
    memset(&c, 0, sizeof c);
    c.word = EMPM__OWNED;
    CHECK_INT(empm__conn_offer(&c, EMPM__READY_OUT), 0);   /* owned: noted */
    CHECK_INT(empm__conn_give(&c, EMPM__WANT(EMPM__READY_IN)), 1);
    /* not wanted: kept */
    CHECK_INT(empm__conn_offer(&c, EMPM__READY_OUT), 0);
    CHECK_INT(empm__conn_offer(&c, EMPM__READY_IN), 1);    /* wanted: taken */
    CHECK_INT(c.why, EMPM__READY_IN | EMPM__READY_OUT);
    CHECK_INT(c.word, EMPM__OWNED);                        /* all delivered */
    CHECK_INT(empm__conn_offer(&c, EMPM__READY_IN), 0);
    CHECK_INT(empm__conn_give(&c, EMPM__WANT(EMPM__READY_IN)), 0);  /* go on */
    empm__conn_clear(&c, EMPM__READY_IN);
    CHECK_INT(empm__conn_give(&c, EMPM__WANT(EMPM__READY_IN)), 1);
    CHECK_INT(empm__conn_offer(&c, EMPM__READY_RDHUP), 0);
    CHECK_INT(empm__conn_offer(&c, EMPM__READY_HUP), 1);   /* always wanted */
    CHECK(empm__conn_noted(&c, EMPM__READY_RDHUP));        /* sticky */
    CHECK(empm__conn_noted(&c, EMPM__READY_HUP));
}

/* A ticket resumes only the request that it was made for, also when the serial
 * numbers wrap. */
TEST(handover, a_stale_ticket_does_nothing)
{
    empm__conn c;
    uint32_t serial, i;
    memset(&c, 0, sizeof c);
    c.word = EMPM__OWNED;
    c.serial = 0xfffffffe;                       /* across the wrap: never 0 */
    for (i = 0; i < 2000; i++) {                 /* across that of GEN, too */
        empm__conn_next_serial(&c);
        serial = c.serial;
        CHECK(serial != 0);
        if (empm__conn_resume(&c, serial) != 1)
            CHECK_INT(i, -1);
        CHECK_INT(empm__conn_give(&c, EMPM__WANT(EMPM__READY_RESUME)), 0);
        CHECK_INT(c.why & EMPM__READY_RESUME, EMPM__READY_RESUME);
        empm__conn_next_serial(&c);
        if (empm__conn_resume(&c, serial) != 0 || (c.word & EMPM__READY_RESUME))
            CHECK_INT(i, -2);
    }
    CHECK_INT(c.why & EMPM__READY_RESUME, 0);
    CHECK_INT(empm__conn_give(&c, EMPM__WANT(EMPM__READY_RESUME)), 1);
    CHECK_INT(empm__conn_resume(&c, c.serial), 2);         /* it waits: post */
}

/* A slab lends each record to one borrower at a time, and lends nothing when
 * all are out. */
TEST(handover, the_slab_gives_each_record_once)
{
    static unsigned char seen[3000];
    empm__slab sl;
    uint32_t i, k;
    memset(seen, 0, sizeof seen);
    CHECK_INT(empm__slab_init(&sl, 2500, 1), EMPM_OK);
    for (k = 0; k < 2500; k++) {
        i = empm__slab_borrow(&sl);
        CHECK(i < 2500 && !seen[i]);
        seen[i < 2500 ? i : 0] = 1;
    }
    CHECK_INT(empm__slab_borrow(&sl), EMPM__NIL);
    empm__slab_return(&sl, 77);
    CHECK_INT(empm__slab_borrow(&sl), 77);
    CHECK_INT(sl.in_use, 2500);
    empm__slab_free(&sl);
}

/* --- a second descriptor ---------------------------------------------------
 *
 * No request waits for one yet, so the first step of a connection does: its
 * first byte opens it, and from then on it copies what it is told to, with one
 * wait for each EAGAIN, until that ends. Then it answers with how much it was.
 */

static struct second {
    int fd[2];                       /* a pipe */
    int writes;                      /* its side: it fills the pipe, or reads */
    int begun, waits, runs;          /* atomic */
    int one_by_one;                  /* atomic: an event comes alone */
    int got, sticky, again;
} sec;

static enum empm__state sec_step(empm__worker *w, empm__conn *c,
                                 empm__wait *wait)
{
    static char block[4096];
    empm__poller *p = &w->engine->poller;
    const uint32_t ready = sec.writes ? EMPM__READY_AUX_OUT
                                      : EMPM__READY_AUX_IN;
    const int fd = sec.fd[sec.writes];
    char text[20];
    ssize_t n;
    int len;

    add_int(&sec.runs, 1);
    c->why = 0;
    sec.sticky |= empm__conn_noted(c, EMPM__STICKY);
    if (get_int(&sec.one_by_one)) {  /* poll(): an owned one is not looked at */
        nap(2);
        sec.again |= empm__conn_noted(c, ready);
    }
    if (!get_int(&sec.begun)) {
        CHECK_INT(empm__poller_aux_add(p, c, w->index, fd, ready),
                  EMPM_OK);
        set_int(&sec.begun, 1);
    }
    for (;;) {
        empm__conn_clear(c, ready);
        n = sec.writes ? write(fd, block, sizeof block)
                       : read(fd, block, 7);
        if (n <= 0)
            break;
        sec.got += (int)n;
    }
    if (n < 0 && errno == EAGAIN) {
        wait->want = EMPM__WANT(ready);
        wait->deadline_ms = empm__time_after(empm__now_ms(), 60000);
        add_int(&sec.waits, 1);
        return EMPM__HANDSHAKE;
    }
    empm__poller_aux_remove(p, c, fd);
    CHECK(!empm__conn_noted(c, EMPM__READY_AUX));
    len = snprintf(text, sizeof text, "%d.", sec.got);
    CHECK_INT(send(c->fd, text, (size_t)len, MSG_NOSIGNAL), len);
    return EMPM__CLOSED;
}

static int sec_child_start(empm_server *s, void *user)
{
    (void)user;
    s->read_proxy = sec_step;
    return 0;
}

/* Connects, and waits until the step waits. 0: it does not. */
static int sec_up(fixture *f, client *c, int writes)
{
    fx_init(f);
    f->forked = 0;
    f->options = " proxy";           /* so that there is a first step */
    f->cfg.on_child_start = sec_child_start;
    memset(&sec, 0, sizeof sec);
    sec.writes = writes;
    if (!CHECK_INT(empm__fd_pipe(sec.fd, 1), 0)) {
        fx_close_files(f);
        return 0;
    }
    if (!fx_up(f))
        return 0;
    cl_open(c, f);
    cl_puts(c, "x");
    CHECK_SOON(get_int(&sec.waits) > 0, 3000);
    return 1;
}

static void sec_down(fixture *f, client *c)
{
    char byte;

    CHECK(cl_readable(c, PATIENCE) && recv(c->fd, &byte, 1, 0) <= 0);
    cl_close(c);
    fx_down(f);
    close(sec.fd[sec.writes]);
    CHECK_INT(sec.sticky, 0);
    CHECK_INT(sec.again, 0);
}

static int sec_answer(client *c)
{
    char text[20];
    int n = 0;

    while (n < 19 && cl_readable(c, PATIENCE) &&
           recv(c->fd, text + n, 1, 0) == 1 && text[n] != '.')
        n++;
    text[n] = 0;
    return atoi(text);
}

/* A record that waits for its second descriptor is woken by that alone, once
 * for each thing that happens there; its end is no hang-up of the client. */
TEST(handover, the_second_descriptor_wakes)
{
    fixture f;
    client c;
    int i;

    if (!sec_up(&f, &c, 0))
        return;
    set_int(&sec.one_by_one, 1);
    cl_puts(&c, "y");                /* not wanted: kept */
    for (i = 2; i < 6; i++) {
        const int runs = get_int(&sec.runs);
        CHECK_INT(runs, i - 1);
        CHECK_INT(write(sec.fd[1], "12345678", 8), 8);
        CHECK_SOON(get_int(&sec.waits) == i, 3000);
    }
    set_int(&sec.one_by_one, 0);
    CHECK_INT(write(sec.fd[1], "12345678", 8), 8);
    close(sec.fd[1]);                /* data and end may come as one event */
    CHECK_INT(sec_answer(&c), 5 * 8);
    sec_down(&f, &c);
}

/* No event is lost while the owner reads: what comes between its clearing of
 * the bit and its release makes the release fail. */
TEST(handover, the_second_descriptor_loses_nothing)
{
    fixture f;
    client c;
    int i;

    if (!sec_up(&f, &c, 0))
        return;
    for (i = 0; i < 20000; i++)
        if (write(sec.fd[1], "x", 1) != 1)
            nap(1), i--;             /* full */
    close(sec.fd[1]);
    CHECK_INT(sec_answer(&c), 20000);
    sec_down(&f, &c);
}

/* A full second descriptor is waited for, too; one whose reader has gone is
 * ready, and the owner learns it from write(). */
TEST(handover, the_second_descriptor_has_room_again)
{
    static char block[65536];
    fixture f;
    client c;
    ssize_t n;
    int got = 0, runs, answer;

    if (!sec_up(&f, &c, 1))
        return;
    runs = get_int(&sec.runs);
    n = read(sec.fd[0], block, sizeof block);
    CHECK(n > 0);
    CHECK_SOON(get_int(&sec.runs) > runs, 3000);
    got = (int)n;
    CHECK_SOON(get_int(&sec.waits) == get_int(&sec.runs), 3000);
    close(sec.fd[0]);
    answer = sec_answer(&c);
    CHECK(answer > got);
    sec_down(&f, &c);
}

/* ---------------------------------------------------------------------------
 * >>transport -- another transport than plain bytes
 *
 * The seam that TLS hangs on has one user in the header, which neither holds
 * bytes back nor has a handshake. This transport does all that one may do: its
 * records are a length byte and so many bytes, each XOR 0x5a.
 * ------------------------------------------------------------------------- */

enum { XOR_RECORD = 200 };

typedef struct xor_session {
    empm__session is;                /* first: c->session is it */
    unsigned char in[4096];          /* of the socket: from..to is not read */
    size_t        from, to;
    size_t        left;              /* of the record that has been begun */
    unsigned char out[1 + XOR_RECORD];
    size_t        out_len, out_at;   /* a record, and how much of it is sent */
    int           steps;             /* of the handshake */
    unsigned      calls;             /* of recv() */
} xor_session;

static struct { int made, dropped, balked, cut; } g_xor;

static const empm__transport xor_transport;
static empm__session xor_fresh = { &xor_transport };

/* A client's "XOR", which may come in pieces, is answered by "OK". */
static int xor_handshake(empm__worker *w, empm__conn *c)
{
    static const char hello[] = "XOR", ok[] = "OK";
    xor_session *x;
    struct iovec v;
    int64_t wire = 0;
    (void)w;
    if (c->session == &xor_fresh) {
        x = (xor_session *)calloc(1, sizeof *x);
        x->is = xor_fresh;
        c->session = &x->is;
        add_int(&g_xor.made, 1);
    }
    x = (xor_session *)(void *)c->session;
    while (x->steps < 3) {
        char byte;
        const ssize_t r = empm__socket_recv(c, &byte, 1);
        if (r < 0)
            return (int)r;
        if (r == 0 || byte != hello[x->steps++])
            return 0;
    }
    v.iov_base = (void *)(uintptr_t)ok;
    v.iov_len = 2;
    return empm__socket_send(c, &v, 1, 0, &wire) == 2 ? 1 : EMPM__LOST;
}

/* The first call has to write first: nothing waits for that yet, so an event
 * tells at once that the socket has room. */
static ssize_t xor_recv(empm__worker *w, empm__conn *c, void *buf, size_t n)
{
    xor_session *x = (xor_session *)(void *)c->session;
    size_t k = 0;
    (void)w;
    if (x->calls++ == 0) {
        add_int(&g_xor.balked, 1);
        return EMPM__WANTS_OUT;
    }
    while (k < n) {
        if (x->from == x->to) {
            const ssize_t r = empm__socket_recv(c, x->in, sizeof x->in);
            if (r <= 0 && k == 0)
                return r;
            if (r <= 0)
                break;
            x->from = 0;
            x->to = (size_t)r;
        }
        if (x->left == 0)
            x->left = x->in[x->from++];
        else {
            ((unsigned char *)buf)[k++] = x->in[x->from++] ^ 0x5a;
            x->left--;
        }
    }
    if (x->from < x->to)             /* no event will announce these */
        c->flags &= (uint8_t)~EMPM__F_DRAINED;
    return (ssize_t)k;
}

/* A record that has been sent in part stays: its bytes come again. */
static ssize_t xor_send(empm__worker *w, empm__conn *c, const struct iovec *v,
                        int n, int more, int64_t *wire)
{
    xor_session *x = (xor_session *)(void *)c->session;
    size_t all = 0, done = 0;
    int i;
    (void)w;
    for (i = 0; i < n; i++)
        all += v[i].iov_len;
    while (done < all) {
        if (x->out_len == 0) {
            size_t skip = done, k = 0, at;
            for (i = 0; i < n && k < XOR_RECORD; i++)
                for (at = 0; at < v[i].iov_len && k < XOR_RECORD; at++)
                    if (skip > 0)
                        skip--;
                    else
                        x->out[1 + k++] =
                            ((unsigned char *)v[i].iov_base)[at] ^ 0x5a;
            x->out[0] = (unsigned char)k;
            x->out_len = 1 + k;
            x->out_at = 0;
        }
        while (x->out_at < x->out_len) {
            struct iovec rest;
            ssize_t r;
            rest.iov_base = x->out + x->out_at;
            rest.iov_len = x->out_len - x->out_at;
            r = empm__socket_send(c, &rest, 1, more, wire);
            if (r < 0) {
                if (x->out_at > 0)
                    add_int(&g_xor.cut, 1);
                return done > 0 ? (ssize_t)done : r;
            }
            x->out_at += (size_t)r;
        }
        done += x->out_len - 1;
        x->out_len = 0;
    }
    return (ssize_t)done;
}

static ssize_t xor_file(empm__worker *w, empm__conn *c, int fd, int64_t *off,
                        size_t n, int64_t *wire)
{
    char text[50 * XOR_RECORD];
    struct iovec v;
    ssize_t r = pread(fd, text, n < sizeof text ? n : sizeof text, (off_t)*off);
    if (r <= 0)
        return r < 0 ? EMPM__LOST : 0;
    v.iov_base = text;
    v.iov_len = (size_t)r;
    r = xor_send(w, c, &v, 1, 0, wire);
    if (r > 0)
        *off += r;
    return r;
}

static int xor_pending(const empm__conn *c)
{
    const xor_session *x = (const xor_session *)(void *)c->session;
    return x->from < x->to ? 1 : empm__plain_pending(c);
}

static void xor_finish(empm__worker *w, empm__conn *c, int closing)
{
    empm__plain_finish(w, c, closing);
}

static void xor_drop(empm__conn *c)
{
    if (c->session == &xor_fresh)
        return;
    free(c->session);
    add_int(&g_xor.dropped, 1);
}

static const empm__transport xor_transport = {
    "xor", xor_handshake, xor_recv, xor_send, xor_file, xor_pending, xor_finish,
    xor_drop, NULL
};

/* Sends `before` as it is and text in records, all of it in one send(). */
static void xor_say(client *c, const char *before, const char *text)
{
    const size_t n = strlen(text);
    str out = { 0 };
    size_t at, k;
    str_add(&out, before, strlen(before));
    for (at = 0; at < n; at += k) {
        unsigned char record[256];
        size_t i;
        k = n - at < 251 ? n - at : 251;
        record[0] = (unsigned char)k;
        for (i = 0; i < k; i++)
            record[1 + i] = (unsigned char)text[at + i] ^ 0x5a;
        str_add(&out, (char *)record, 1 + k);
    }
    CHECK_INT(cl_send(c, out.p, out.n), 0);
    str_free(&out);
}

/* Decodes what comes into c->body until that ends with `end`, or for 5 s. */
static int xor_hears(client *c, const char *end)
{
    const uint64_t last = now_ms() + 5000;
    const size_t n = strlen(end);
    size_t at = 0, left = 0;
    c->body.n = 0;
    for (;;) {
        while (at < c->in.n) {
            const unsigned char byte = (unsigned char)c->in.p[at++];
            const char plain = (char)(byte ^ 0x5a);
            if (left == 0)
                left = byte;
            else {
                str_add(&c->body, &plain, 1);
                left--;
            }
        }
        str_drop(&c->in, at);
        at = 0;
        if (c->body.n >= n && memcmp(c->body.p + c->body.n - n, end, n) == 0)
            return 1;
        if (cl_fill(c, last) <= 0)
            return 0;
    }
}

/* A transport may shake hands, hold plaintext back that no event announces, ask
 * for the other direction and send a part of a record: no request waits for
 * that, no byte is lost, and every session is dropped once, also those of idle
 * connections that the listener closes. */
TEST(transport, one_that_does_all_it_may)
{
    fixture fx, *f = &fx;
    static char post[120000];
    client c, idle, slow, bad;
    uint64_t began;
    int n;

    if (is_tsan_here())
        SKIP("the endpoint is changed while its server runs");
    memset(&g_xor, 0, sizeof g_xor);
    fx_init(f);
    if (!fx_up(f))
        return;
    f->s->endpoints[0].session = &xor_fresh;

    cl_open(&c, f);
    CHECK_INT(cl_send(&c, "X", 1), 0);
    nap(20);
    CHECK_INT(cl_send(&c, "OR", 2), 0);
    CHECK(cl_fill(&c, now_ms() + 2000) > 0 && memcmp(c.in.p, "OK", 2) == 0);
    str_drop(&c.in, 2);
    for (n = 0; n < 20; n++) {
        context("request %d", n);
        xor_say(&c, "", "GET /hello/you HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK(xor_hears(&c, "\r\n\r\nHello, you!\n"));
        if (n % 5 == 0)
            nap(10);
    }
    /* the request behind a body comes in the body's last record */
    n = snprintf(post, sizeof post, "POST /echo HTTP/1.1\r\nHost: a\r\n"
                 "Content-Length: 100000\r\n\r\n");
    pattern_fill(post + n, 100000, 0);
    n += 100000;
    n += snprintf(post + n, sizeof post - (size_t)n,
                  "GET /hello/next HTTP/1.1\r\nHost: a\r\n\r\n");
    began = now_ms();
    xor_say(&c, "", post);
    CHECK(xor_hears(&c, "\r\n\r\nHello, next!\n"));
    CHECK(c.body.n > 100000);
    CHECK(now_ms() - began < (uint64_t)(2000 * g_slow));

    /* a slow reader: the socket is full again and again */
    CHECK_INT(cl_connect_port(&slow, f->port, 4096), 0);
    xor_say(&slow, "XOR", "GET /big?bytes=1500000 HTTP/1.1\r\nHost: a\r\n"
                          "Connection: close\r\n\r\n");
    CHECK(cl_fill(&slow, now_ms() + 2000) > 0);
    str_drop(&slow.in, 2);
    nap(50);
    CHECK(xor_hears(&slow, "\r\n0\r\n\r\n"));
    CHECK(slow.body.n > 1500000);
    xor_say(&c, "", "GET /file/big.bin HTTP/1.1\r\nHost: a\r\n\r\n"
                "GET /hello/last HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(xor_hears(&c, "\r\n\r\nHello, last!\n"));
    CHECK(c.body.n > 100000);

    cl_open(&bad, f);                    /* no handshake */
    CHECK_INT(cl_send(&bad, "Z", 1), 0);
    CHECK(cl_end(&bad, 2000) == CL_FIN);
    cl_open(&idle, f);                   /* not a byte: no session yet */
    cl_close(&bad);
    cl_close(&slow);
    fx_down(f);
    cl_close(&c);
    cl_close(&idle);
    CHECK_INT(g_xor.made, 3);
    CHECK_INT(g_xor.dropped, g_xor.made);
    CHECK_INT(g_xor.balked, 3);         /* once each, also in LINGER */
    CHECK(g_xor.cut > 0 || g_slow >= 8);     /* there the server is slower */
}

/* ---------------------------------------------------------------------------
 * >>model -- the hand-over, the exchange and the queue, for spin
 *
 * The models prove for every order of steps what tests can only try. `make
 * test-model` takes the Promela between #if 0 and #endif, and runs spin once
 * for each row of the list in its comment: a row "ok" must be free of errors, a
 * row "FAIL" breaks one rule, which must be noticed.
 * ------------------------------------------------------------------------- */

#if 0 /* >>model begins, in Promela */
/*
 * handover.pml: who owns a connection.  A model of >>handover for spin.
 *
 *   spin -a -DTIME handover.pml && gcc -O2 -DSAFETY -DCOLLAPSE pan.c -o pan &&
 *   ./pan -E           (or -DNP and ./pan -E -l; all of it: make test-model)
 *
 * One listener, two workers, one thread that resumes, and the world (network,
 * clock).  Memory is sequentially consistent; each step is one atomic access.
 * A CAS loop whose new value depends only on the old is one step (a failed
 * turn of it has no effect); so is a step with accesses to private fields.
 *
 * Shape, by -D: N records, CONNS connections that come, BYTES that each sends,
 * BUF the size of a read, RESUMES calls with a used ticket.  POLL: the poll()
 * form, else epoll.  SUSPEND: handlers suspend.  RESET: RST and soft errors.
 * AUX: a suspended one waits for a second descriptor, too, on which PIECES come
 * and then the end; NORESUME: and nobody resumes it.  FD: as empm_suspend_fd()
 * has it: the descriptor is registered for one suspension, and fn, which reads
 * one piece, suspends again while there may be more.
 * FORK: a child keeps closed sockets registered.  LAZY: retiring wakes only a
 * listener without a free record.  TIME: clock and wheel; else the deadline is
 * due at any moment, once (NODUE: never).
 *
 * QUEUE: another model, of who listens and who is woken; see there.
 * MOVE: another one, of children that pass connections on.
 *
 * Not here: EPOLLOUT (as IN), STOP and the gate (as RESUME and the inbox).
 *
 * Rules, by number: 1 offer, 2 release, 3 clear before I/O, 4 post, 5 drain the
 * inbox, 6 retire, 7 suspend, 8 resume, 9 the wheel, 10 sleep, 12 poll(), 13 a
 * second descriptor, 14 ... that is the user's.
 *
 * Properties, by name:
 *   P1  never two owners            own[] changes hands only as asserted
 *   P2  no lost wake-up             asserted whenever all is quiet
 *   P3  no use after free           own[], onbox[] asserted at each touch
 *   P4  stale tickets do nothing    live[] asserted at CAS and delivery
 *   P5  all is read, closed, freed  quiet: every record waits or is free;
 *       no livelock                 the system is finite: ANY cycle is one
 *                                   (-DNP, ./pan -l, no fairness needed)
 *   P6  no deadline is missed       quiet: place <= deadline
 *   P7  two sources are two         a second descriptor notes no bit of the
 *                                   client's; quiet: nothing on it is unread
 *
 * -DMUT_X breaks the rule X, to prove that the check can fail:
 *
 *   CLEAR_AFTER_READ        rule 3: clear READY_IN before read()
 *   SHORT_READ_IGNORES_FIN  3: short read is drained only if no...
 *   FIN_CHECK_BEFORE_CLEAR  3: ...RDHUP, seen AFTER the clear
 *   DRAINED_ACROSS_PARK     "drained" is forgotten by a release
 *   RDHUP_NOT_STICKY        1: a take leaves RDHUP set
 *   RELEASE_IGNORES_READY   2: release fails if READY & WANT
 *   OFFER_NO_CAS            1: load and store instead of CAS
 *   NO_RECHECK_BEFORE_SLEEP 10: look again after sleeping = 1
 *   WAKE_CHECK_BEFORE_PUSH  4: publish, then look at sleeping
 *   CLEAR_POSTED_LATE       5: clear POSTED, then look
 *   NEXT_AFTER_CLEAR        5: read next, then clear POSTED
 *   WIPE_POSTED             a new life keeps POSTED (an RMW)
 *   NO_FREE_CHECK           5: ignore posts to a free record
 *   POST_BEFORE_RETIRED     6: set RETIRED, then post
 *   CLOSE_AFTER_POST        6: close the socket, then post
 *   FREE_BY_WORKER          6: the listener alone frees
 *   NO_EVENT_GEN            6: drop events of another generation
 *   NO_WORD_GEN             8: the CAS compares GEN too
 *   RESUME_NOT_CLEARED      7: end of suspension clears RESUME
 *   NO_SERIAL_AT_RETIRE     7: retire ends the suspension
 *   RESUME_NO_POST          8: post if nobody owns it
 *   POST_BEFORE_RELEASE     12: poll(): release, then post
 *   DEADLINE_AFTER_RELEASE  2: deadline first, then release
 *   LATE_PLACE              9: a take pulls place to now + H
 *   OWNED_DEADLINE_READ     9: slot of an owned: now + H, no read
 *   NO_SHORT_POST           9: post if less than H is left
 *   SHORT_POST_TOO_EARLY    9: ...after the release, not before
 *   CLOCK_BEFORE_RELEASE    9: ...by a clock read after it
 *   OWNED_SLOT_STAYS        9: livelock: the due slot must move
 *   HUP_NOT_CLEARED         livelock: a soft error's HUP
 *   WANT_RDHUP_AGAIN        livelock: RDHUP is sticky
 *   PAUSED_TOO_LATE         LAZY: paused is set before sleeping
 *   AUX_CLEAR_AFTER_READ    13: clear AUX before the read
 *   AUX_SHORT_READ          13: wait after EAGAIN only, as nothing is sticky
 *   AUX_UNMARKED            13: its events are marked as its own
 *   AUX_HUP_IS_HUP          13: its end is AUX, not the client's hang-up
 *   AUX_NOT_WANTED          13: release wants AUX, or an event is only kept
 *   AUX_NOT_ARMED           12, 13: poll(): both descriptors are in the set
 *   AUX_ADD_BLIND           14: ADD looks at what is left unread
 *   AUX_NOT_CLEARED         14: livelock: removal forgets what was noted
 *   AUX_REMOVED_LATE        14: remove, then call fn: its close() gives the
 *                           number to another socket, which DEL would hit
 *   NOBODY_LISTENS          QUEUE: who leaves wakes somebody to listen
 *   STANDBY_NOT_WOKEN       QUEUE: the listener's end wakes the standby
 *   EMPTY_FIRST             QUEUE: listen when the batch is taken, not the
 *                           queue
 *   NO_TICK                 QUEUE: who is stuck does not count as running
 *   NO_RING                 MOVE: who stops looking rings
 *   NO_LOOK                 MOVE: who looks again sees what waits
 *   NO_TICK                 MOVE: jobs behind a busy worker are given away
 *   DEATH_UNHEARD           MOVE: a death rings
 *   CLOSE_FIRST             MOVE: send, then close
 *   NO_ROOM                 MOVE: take what a worker has time for
 *
 * What make test-model runs, and what has to come out (FAIL: spin finds it):
 *
 *   ok   safe -DSUSPEND -DNODUE
 *   ok   safe -DSUSPEND -DCONNS=1 -DBYTES=2
 *   ok   safe -DBYTES=2
 *   ok   safe -DRESET
 *   ok   safe -DFORK -DBYTES=2
 *   ok   safe -DN=2 -DBYTES=0
 *   ok   safe -DN=2 -DCONNS=3 -DNODUE
 *   ok   safe -DLAZY -DCONNS=3
 *   ok   safe -DTIME -DCONNS=1 -DTMAX=4
 *   ok   safe -DTIME -DN=2 -DBYTES=0 -DTMAX=3
 *   ok   safe -DPOLL -DBYTES=2
 *   ok   safe -DPOLL -DSUSPEND -DCONNS=1
 *   ok   safe -DPOLL -DTIME -DCONNS=1 -DTMAX=5
 *   ok   live -DRESET -DCONNS=1
 *   ok   live -DSUSPEND -DCONNS=1
 *   ok   live -DN=2 -DNODUE
 *   ok   safe -DAUX -DCONNS=1 -DNODUE -DPIECES=0
 *   ok   safe -DAUX -DNORESUME -DNODUE
 *   ok   safe -DAUX -DNORESUME -DCONNS=1
 *   ok   safe -DAUX -DNORESUME -DCONNS=1 -DPOLL
 *   ok   live -DAUX -DNORESUME -DCONNS=1 -DNODUE
 *   ok   safe -DFD -DCONNS=1 -DNODUE -DPIECES=0
 *   ok   safe -DFD -DNORESUME -DCONNS=1 -DPIECES=2
 *   ok   safe -DFD -DNORESUME -DNODUE
 *   ok   safe -DFD -DNORESUME -DCONNS=1 -DPIECES=2 -DPOLL
 *   ok   live -DFD -DNORESUME -DCONNS=1 -DNODUE
 *   FAIL safe -DFD -DNORESUME -DCONNS=1 -DPIECES=2 -DMUT_AUX_ADD_BLIND
 *   FAIL live -DFD -DNORESUME -DCONNS=1 -DNODUE -DMUT_AUX_NOT_CLEARED
 *   FAIL safe -DFD -DNORESUME -DN=2 -DNODUE -DPIECES=0 -DMUT_AUX_REMOVED_LATE
 *   FAIL safe -DAUX -DNORESUME -DCONNS=1 -DMUT_AUX_CLEAR_AFTER_READ
 *   FAIL safe -DAUX -DNORESUME -DCONNS=1 -DMUT_AUX_SHORT_READ
 *   FAIL safe -DAUX -DNORESUME -DCONNS=1 -DMUT_AUX_UNMARKED
 *   FAIL safe -DAUX -DNORESUME -DCONNS=1 -DMUT_AUX_HUP_IS_HUP
 *   FAIL safe -DAUX -DNORESUME -DCONNS=1 -DMUT_AUX_NOT_WANTED
 *   FAIL safe -DAUX -DNORESUME -DCONNS=1 -DMUT_AUX_NOT_ARMED -DPOLL
 *   FAIL safe -DMUT_CLEAR_AFTER_READ -DBYTES=2
 *   FAIL safe -DMUT_SHORT_READ_IGNORES_FIN
 *   FAIL safe -DMUT_FIN_CHECK_BEFORE_CLEAR
 *   FAIL safe -DMUT_DRAINED_ACROSS_PARK -DSUSPEND
 *   FAIL safe -DMUT_RDHUP_NOT_STICKY
 *   FAIL safe -DMUT_RELEASE_IGNORES_READY
 *   FAIL safe -DMUT_OFFER_NO_CAS
 *   FAIL safe -DMUT_NO_RECHECK_BEFORE_SLEEP
 *   FAIL safe -DMUT_WAKE_CHECK_BEFORE_PUSH
 *   FAIL safe -DMUT_CLEAR_POSTED_LATE -DSUSPEND
 *   FAIL safe -DMUT_NEXT_AFTER_CLEAR -DN=2 -DPOLL
 *   FAIL safe -DMUT_WIPE_POSTED -DPOLL
 *   FAIL safe -DMUT_NO_FREE_CHECK -DPOLL
 *   FAIL safe -DMUT_POST_BEFORE_RETIRED
 *   FAIL safe -DMUT_CLOSE_AFTER_POST
 *   FAIL safe -DMUT_FREE_BY_WORKER
 *   FAIL safe -DMUT_NO_EVENT_GEN -DFORK
 *   ok   safe -DMUT_NO_EVENT_GEN -DBYTES=2
 *   FAIL safe -DMUT_NO_WORD_GEN -DSUSPEND
 *   FAIL safe -DMUT_RESUME_NOT_CLEARED -DSUSPEND
 *   FAIL safe -DMUT_NO_SERIAL_AT_RETIRE -DSUSPEND
 *   FAIL safe -DMUT_RESUME_NO_POST -DSUSPEND
 *   FAIL safe -DMUT_POST_BEFORE_RELEASE -DPOLL
 *   FAIL safe -DMUT_DEADLINE_AFTER_RELEASE -DTIME -DCONNS=1
 *   FAIL safe -DMUT_LATE_PLACE -DTIME -DCONNS=1
 *   FAIL safe -DMUT_NO_SHORT_POST -DTIME -DCONNS=1
 *   FAIL safe -DMUT_SHORT_POST_TOO_EARLY -DTIME -DCONNS=1
 *   FAIL safe -DMUT_CLOCK_BEFORE_RELEASE -DTIME -DCONNS=1
 *   FAIL live -DMUT_OWNED_SLOT_STAYS -DTIME -DCONNS=1
 *   FAIL live -DMUT_HUP_NOT_CLEARED -DRESET
 *   FAIL live -DMUT_WANT_RDHUP_AGAIN -DSUSPEND
 *   FAIL safe -DMUT_PAUSED_TOO_LATE -DLAZY
 *   ok   safe -DQUEUE
 *   ok   safe -DQUEUE -DJOBS=4 -DWORKERS=1
 *   ok   safe -DQUEUE -DJOBS=2 -DWORKERS=3
 *   FAIL safe -DQUEUE -DMUT_NOBODY_LISTENS
 *   FAIL safe -DQUEUE -DMUT_STANDBY_NOT_WOKEN
 *   FAIL safe -DQUEUE -DMUT_NO_TICK
 *   FAIL safe -DQUEUE -DMUT_EMPTY_FIRST
 *   ok   safe -DMOVE -DREQS=2
 *   ok   safe -DMOVE -DREQS=2 -DDEATHS=1
 *   FAIL safe -DMOVE -DMUT_NO_RING
 *   FAIL safe -DMOVE -DMUT_NO_LOOK -DCONNS=3
 *   FAIL safe -DMOVE -DMUT_NO_TICK -DREQS=2
 *   FAIL safe -DMOVE -DMUT_DEATH_UNHEARD -DDEATHS=1
 *   FAIL safe -DMOVE -DMUT_CLOSE_FIRST -DCONNS=3 -DREQS=2
 *   FAIL safe -DMOVE -DMUT_NO_ROOM -DREQS=2
 */
#ifndef N
#define N 1
#endif
#ifndef CONNS
#define CONNS 2
#endif
#ifndef BYTES
#define BYTES 1
#endif
#ifndef BUF
#define BUF 2
#endif
#ifndef RESUMES
#define RESUMES 0
#endif
#ifndef PIECES
#define PIECES 1
#endif
#ifndef TMAX
#define TMAX 6                      /* the end of time */
#endif
#define H    2                      /* the horizon */
#define LONG (H + 2)                /* a deadline beyond it */
#define LAST (N - 1)
#define IF(cond, ...) if :: cond -> __VA_ARGS__ :: else fi

/* ON(X): 1 if X is set by -DX, else 0.  WHEN(X, steps), UNLESS(X, steps). */
#define SECOND(a, b, ...) b
#define SET_1             0,
#define ON_3(x)           SECOND(x 1, 0, 0)
#define ON_2(x)           ON_3(SET_##x)
#define ON(x)             ON_2(x)
#define ONLY_1(...)       __VA_ARGS__
#define ONLY_0(...)
#define BUT_0(...)        __VA_ARGS__
#define BUT_1(...)
#define CAT_2(a, b)       a##b
#define CAT(a, b)         CAT_2(a, b)
#define WHEN(x, ...)      CAT(ONLY_, ON(x))(__VA_ARGS__)
#define UNLESS(x, ...)    CAT(BUT_, ON(x))(__VA_ARGS__)

#ifdef MOVE
/* --------------------------------------------------------------------------
 * Children as one server.  A model of >>exchange: KIDS children of one worker
 * each, CONNS connections that ask REQS times, an exchange with room for ROOM.
 * STALLS handlers never return, DEATHS children die, at any moment.
 *
 *   X1  none is lost        only what a child had died with it
 *   X2  none is doubled     at[] changes as asserted
 *   X3  nobody rests beside work   quiet: no idle worker while one waits in the
 *                           backlog, in the exchange or behind another worker
 *   X4  no ping-pong        a moved one is served before it moves again
 *
 * The kernel: an arrival wakes one that waits and is registered, or is noted by
 * all that are registered and do not wait (EPOLLEXCLUSIVE); registering looks.
 * -------------------------------------------------------------------------- */
#ifndef KIDS
#define KIDS 2
#endif
#ifndef REQS
#define REQS 1
#endif
#ifndef ROOM
#define ROOM 1
#endif
#ifndef STALLS
#define STALLS 1
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#define NOT_YET  (KIDS + 1)         /* at[]: 1 to KIDS: that child has it */
#define BACKLOG  (KIDS + 2)
#define EXCHANGE (KIDS + 3)
#define DONE     (KIDS + 4)
#define LOST     (KIDS + 5)

chan backlog = [CONNS] of { byte };
chan exchange = [ROOM] of { byte };
byte at[CONNS], asks[CONNS];
bool moved[CONNS], busy[CONNS];     /* busy: queued or served */
bool alive[KIDS + 1], idle[KIDS + 1], paused[KIDS + 1], listens[KIDS + 1];
bool waits[KIDS + 1], ready[2 * KIDS + 2], bell[KIDS + 1];
bool told[KIDS + 1];
chan queue[KIDS + 1] = [CONNS] of { byte };
byte stalls, deaths, came, dying;

inline arrive(x)                    /* the kernel; in an atomic */
{
    if
    :: listens[1] && waits[1] -> ready[x + 1] = 1
    :: listens[2] && waits[2] -> ready[x + 2] = 1
    :: KIDS > 2 && listens[KIDS] && waits[KIDS] -> ready[x + KIDS] = 1
    :: else ->
        ready[x + 1] = listens[1]; ready[x + 2] = listens[2];
        IF(KIDS > 2, ready[x + KIDS] = listens[KIDS])
    fi
}

inline ring()                       /* everybody looks */
{
    d_step {
        k = 1;
        do
        :: k <= KIDS -> bell[k] = alive[k]; k++
        :: else -> break
        od;
        k = 0
    }
}

#define anybody_open(me) \
    ((me != 1 && alive[1] && !paused[1]) || \
     (me != 2 && alive[2] && !paused[2]) || \
     (KIDS > 2 && me != KIDS && alive[KIDS] && !paused[KIDS]))
#define anybody_idle(me) \
    ((me != 1 && alive[1] && idle[1]) || (me != 2 && alive[2] && idle[2]) || \
     (KIDS > 2 && me != KIDS && alive[KIDS] && idle[KIDS]))

#define room(me) (idle[me] && len(queue[me]) == 0)

#define asks_again(c) (at[c] <= KIDS && at[c] > 0 && !busy[c] && asks[c] > 0)
inline event(c_) { busy[c_] = 1; queue[at[c_]] ! c_ }

inline take(from, c_at)             /* accept() or recvmsg() */
{
    from ? c; assert(at[c] == c_at); at[c] = me; queue[me] ! c
}

proctype Listener(byte me)
{
    byte c, k, n;
    do
    :: !alive[me] -> goto dead
    :: d_step { alive[me] && (ready[me] || ready[KIDS + 1 + me] || bell[me] ||
        told[me]) ->
        waits[me] = 0;
        IF(bell[me], bell[me] = 0; ready[me] = listens[me];
           ready[KIDS + 1 + me] = listens[me]) }
        if
        :: d_step { told[me] -> told[me] = 0; paused[me] = 0 }
            d_step { alive[me] -> listens[me] = 1;
                ready[me] = (len(backlog) > 0 && !ON(MUT_NO_LOOK));
                ready[KIDS + 1 + me] = (len(exchange) > 0 && !ON(MUT_NO_LOOK)) }
        :: else
        fi;
        do
        :: d_step { alive[me] && (room(me) || ON(MUT_NO_ROOM)) &&
            ready[KIDS + 1 + me] && len(exchange) > 0 ->
            take(exchange, EXCHANGE); moved[c] = 1; busy[c] = 1 }
        :: d_step { alive[me] && room(me) && ready[me] && len(backlog) > 0 ->
            take(backlog, BACKLOG); busy[c] = 1 }
        :: else -> break
        od;
        skip; d_step { IF(len(backlog) == 0, ready[me] = 0);
                 IF(len(exchange) == 0, ready[KIDS + 1 + me] = 0) }
        if                          /* nobody here has time: the gate closes */
        :: d_step { alive[me] && !paused[me] && !idle[me] -> paused[me] = 1 }
            d_step { listens[me] = 0; ready[me] = 0; ready[KIDS + 1 + me] = 0 }
            if
            :: d_step { alive[me] && !ON(MUT_NO_RING) && anybody_open(me) ->
                ring() }
            :: else
            fi
        :: else
        fi;
        skip; d_step { waits[me] = alive[me] }
    :: d_step { alive[me] && !ON(MUT_NO_TICK) && !idle[me] &&
               anybody_idle(me) &&
        len(queue[me]) > 0 && (len(exchange) < ROOM || ON(MUT_CLOSE_FIRST)) ->
        waits[me] = 0;
        queue[me] ? c;
        IF(ON(MUT_CLOSE_FIRST), at[c] = LOST) }
        if
        :: atomic { alive[me] && len(exchange) < ROOM ->
            assert(!moved[c]);                                  /* X4 */
            exchange ! c; at[c] = EXCHANGE; arrive(KIDS + 1) }
        :: d_step { alive[me] && len(exchange) == ROOM -> queue[me] !! c }
        :: !alive[me] -> goto dead
        fi;
        skip; d_step { waits[me] = alive[me] }
    od;
dead:
    skip
}

proctype Worker(byte me)
{
    byte c;
    do
    :: !alive[me] -> break
    :: d_step { alive[me] && idle[me] && len(queue[me]) > 0 ->
        queue[me] ? c; idle[me] = 0; assert(at[c] == me) }          /* X2 */
        if
        :: d_step { stalls < STALLS -> stalls++ } break
        :: skip
        fi;
        skip; d_step {
            IF(alive[me], asks[c]--; busy[c] = 0; moved[c] = 0;
               IF(asks[c] == 0, at[c] = DONE);
               idle[me] = 1; told[me] = told[me] | paused[me]) }
    od
}

inline die(x)
{
    d_step { deaths++; alive[x] = 0; idle[x] = 0; listens[x] = 0; waits[x] = 0;
        ready[x] = 0; ready[KIDS + 1 + x] = 0; bell[x] = 0; told[x] = 0;
        do :: len(queue[x]) > 0 -> queue[x] ? c :: else -> break od;
        c = 0;
        do
        :: c < CONNS -> IF(at[c] == x, at[c] = LOST; busy[c] = 0); c++
        :: else -> break
        od; c = 0 }
    IF(!ON(MUT_DEATH_UNHEARD), ring())
}

#define nothing_waits (len(backlog) == 0 && len(exchange) == 0)
#define no_job_waits (len(queue[1]) + len(queue[2]) + len(queue[KIDS]) == 0)

init
{
    byte c, k, n;
    d_step {
        do
        :: c < CONNS -> at[c] = NOT_YET; asks[c] = REQS; c++
        :: else -> break
        od;
        k = 1;
        do
        :: k <= KIDS -> alive[k] = 1; idle[k] = 1; listens[k] = 1; waits[k] =
        1; k++
        :: else -> break
        od; k = 0; c = 0 }
    atomic {
        k = 1;
        do
        :: k <= KIDS -> run Listener(k); run Worker(k); k++
        :: else -> break
        od; k = 0 }
    do
    :: atomic { came < CONNS -> at[came] = BACKLOG; backlog ! came; came++;
        arrive(0) }
    :: d_step { asks_again(0) -> event(0) }
    :: d_step { asks_again(1) -> event(1) }
    :: d_step { asks_again(CONNS - 1) -> event(CONNS - 1) }
    :: deaths < DEATHS && alive[1] -> die(1)
    :: deaths < DEATHS && alive[KIDS] -> die(KIDS)
    :: came == CONNS && timeout ->
        assert(!anybody_idle(0) || nothing_waits);                  /* X3 */
        assert(!anybody_idle(0) || no_job_waits);
        c = 0;
        do
        :: c < CONNS -> assert(at[c] != LOST || deaths > 0); c++    /* X1 */
        :: else -> break
        od;
        break
    od
}

#elif defined(QUEUE)
/* --------------------------------------------------------------------------
 * Who listens, who is woken.  A model of >>queue: JOBS events come, WORKERS
 * workers and the standby deal with them, handlers are quick, or known to be
 * slow, or slow by surprise; a slow one may never end. A critical section is
 * one step, the epoll set is a counter, `tick` is the standby's millisecond.
 *
 *   Q1  no job is lost        quiet: nothing waits while a worker is free
 *   Q2  somebody listens      quiet: and it is not a worker in a handler
 *   Q3  rest is rest          quiet: the standby sleeps without limit, or
 *       listens
 *   Q4  the queue may be full all the time: still somebody listens in between
 * -------------------------------------------------------------------------- */
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef JOBS
#define JOBS 3
#endif
#define EARLY   1                   /* ticks that come at any time */
#define TICKS   6                   /* ticks that come when all else is quiet */
#define NOBODY  0                   /* else: 1 to WORKERS, or STANDBY */
#define STANDBY (WORKERS + 1)
#define T_AWAKE 0
#define T_DOZES 1
#define T_SLEEPS 2

byte events, came, queued, listening = STANDBY, state = T_AWAKE;
byte idle, searching, running, stuck, ticks, early, batch, waited;
bool popped, is_idle[STANDBY + 1], seeks[STANDBY + 1], runs[STANDBY + 1];
bool woken[STANDBY + 1];

#define NO_ONE_RUNS (running + searching + idle == 0)

inline unlock_queue(most)           /* empm__queue_settle(); in a d_step */
{
    need = 0;
    IF(running == 0 || most > 1, need = (queued < most -> queued : most));
    IF(running == 0 && listening == NOBODY && need == 0 &&
       !ON(MUT_NOBODY_LISTENS), need = 1);
    k = 1;
    do
    :: k <= WORKERS ->
        IF(is_idle[k] && searching < need,
           is_idle[k] = 0; idle--; seeks[k] = 1; searching++; woken[k] = 1);
        k++
    :: else -> break
    od;
    IF(listening == NOBODY && state != T_AWAKE &&
       ((state == T_SLEEPS && !ON(MUT_STANDBY_NOT_WOKEN)) || NO_ONE_RUNS),
       state = T_AWAKE; woken[STANDBY] = 1);
    k = 0; need = 0
}

inline stop_running(who)
{
    IF(runs[who], runs[who] = 0; running--)
}

inline round(me)                    /* empm__listener_run() */
{
    d_step { (events > 0 || (me != STANDBY && queued > 0)) ->
        queued = queued + events; events = 0; batch = queued; waited = 0;
        IF(me != STANDBY, seeks[me] = 1; searching++);
        listening = NOBODY;
        unlock_queue(1) }
}

proctype Worker(byte me)
{
    byte got, k, need;
look:
    skip; d_step { stop_running(me);
        IF(seeks[me], seeks[me] = 0; searching--);
        if
        :: listening == NOBODY && (batch == 0 || queued == 0) &&
           !(ON(MUT_EMPTY_FIRST) && queued > 0) -> listening = me; got = 2
        :: else ->
            if
            :: queued > 0 -> queued--; popped = 1; got = 1; runs[me] = 1;
                running++;
                IF(batch > 0, batch--);
                IF(events > 0 && listening == NOBODY, waited++);
                assert(waited <= JOBS + WORKERS)            /* Q4 */
            :: else -> is_idle[me] = 1; idle++; got = 0
            fi
        fi;
        unlock_queue(1) }
    if
    :: got == 0 -> d_step { woken[me] -> woken[me] = 0 }
    :: got == 2 -> round(me)
    :: got == 1 ->
        if
        :: skip                     /* quick */
        :: d_step { (queued > 0 || listening == NOBODY) ->     /* turn over */
            queued++; unlock_queue(1) }
        :: goto stall               /* slow by surprise */
        :: skip ->                  /* known to be slow */
            d_step { stop_running(me);
                unlock_queue((running == 0 -> 4 : 1)) }
            if :: skip :: goto stall fi
        fi
    fi;
    goto look;
stall:
    stuck++;
    false
}

proctype Standby()
{
    byte quiet, k, need;
    do
    :: d_step {
        IF(listening == NOBODY && NO_ONE_RUNS, listening = STANDBY);
        quiet = 2;
        IF(listening != STANDBY,
           quiet = (listening != NOBODY && !popped);
           popped = 0;
           state = (quiet -> T_SLEEPS : T_DOZES);
           unlock_queue(1)) }
        if
        :: quiet == 2 -> round(STANDBY)
        :: else ->
            if
            :: d_step { woken[STANDBY] -> woken[STANDBY] = 0;
                state = T_AWAKE }
            :: quiet == 0 && early < EARLY -> early++; goto tick
            :: quiet == 0 && timeout && ticks < TICKS -> ticks++;
tick:           skip; d_step { woken[STANDBY] = 0; state = T_AWAKE;
                    IF(!popped && listening == NOBODY && !ON(MUT_NO_TICK),
                       k = 1;
                       do
                       :: k <= WORKERS -> stop_running(k); k++
                       :: else -> break
                       od; k = 0) }
            fi
        fi
    od
}

init
{
    byte n;
    atomic {
        n = 1;
        do :: n <= WORKERS -> run Worker(n); n++ :: else -> break od;
        run Standby()
    }
    do
    :: came < JOBS -> atomic { came++; events++ }
    :: came == JOBS && timeout && (state != T_DOZES || ticks == TICKS) ->
        assert(events == 0);                                /* Q1, Q2 */
        assert(queued == 0 || stuck == WORKERS);            /* Q1 */
        assert(listening != NOBODY);                        /* Q2 */
        assert(state == T_SLEEPS || listening == STANDBY);  /* Q3 */
        break
    od
}
#else

/* The word.  WANT_x is READY_x << 5; TIMEOUT and HUP are always wanted. */
#ifdef FD
#define AUX     1
#endif
#ifdef AUX
#define SUSPEND 1
#define WORD    int
#define R_AUX   32768
#define W_AUX   (ON(MUT_AUX_NOT_WANTED) -> 0 : 1048576)
#else
#define WORD    short
#define R_AUX   0
#define W_AUX   0
#endif
#define OWNED   1
#define POSTED  2
#define RETIRED 4
#define R_IN    8
#define R_RDHUP 16
#define R_RES   32
#define R_HUP   64
#define R_TMO   128
#define READY   (248 | R_AUX)
#define W_IN    256
#define W_RDHUP 512
#define W_RES   1024
#define GENS    30720               /* four bits; serial stays below 16 */
#define gen(s)  ((ON(MUT_NO_WORD_GEN) -> 0 : s) * 2048)
#define STICKY  (ON(MUT_RDHUP_NOT_STICKY) -> R_HUP : R_RDHUP | R_HUP)
#define wanted(w) (((w) & (R_TMO | R_HUP)) || \
                   ((w) & ((w) >> 5) & (R_IN | R_RDHUP | R_RES | R_AUX)))

/* The records: what many touch, the owner's fields, the listener's fields. */
WORD w[N]; byte serial[N], next[N], dl[N], head; bool sleeping, efd, paused;
WORD why[N]; byte st[N];
byte gen32[N], place[N]; bool isfree[N] = 1;
#define FRESH 0                     /* st: the handler may suspend */
#define SUSP  1                     /* has suspended */
#define DONE  2                     /* has been resumed */
chan queue = [N] of { byte };
chan batch = [3 * N] of { byte, byte, WORD };       /* record, gen32, bits */

/* The world: sockets, ready list (POLL: armed events), what is due, clock. */
byte rx[N], sent[N], fin[N], err[N], ep[N], tmo[N], zombie[N], ticket[N];
bool open[N], zhot[N];
byte came, backlog, now;            /* fin: 1 FIN, 2 RST */
#ifdef AUX
byte arx[N], asent[N]; bool aopen[N], afin[N], aep[N];  /* the second one */
bool areg[N], unreg[N];             /* registered; the client's: no more */
#define amask(c) (arx[c] || afin[c])
#define ahot(c)  (aep[c] && (!ON(POLL) || amask(c)))
#define P7(c) (own[c] != WAIT || st[c] != SUSP || !amask(c))
#else
#define ahot(c) 0
#define P7(c) 1
#endif

/* Ghosts: the owner; on the inbox; serial of the live suspension; a resume of
 * it was OK; the listener is in epoll_wait(); calls and posts under way. */
#define FREE   0                    /* 1, 2: that worker */
#define WAIT   3
#define QUEUED 4
#define LIS    5
#define DEAD   6
byte own[N], live[N], posting; bool onbox[N], rok[N], lblock, rbusy;

#define mask(c) (((rx[c] || fin[c]) * R_IN) | ((fin[c] > 0) * R_RDHUP) | \
                 ((fin[c] == 2 || err[c] == 1) * R_HUP))
#define hot(c) (ON(POLL) -> mask(c) & ep[c] : ep[c])
#ifdef AUX
#define edge(c) ep[c] = (ON(POLL) -> ep[c] : !unreg[c])
#define aedge(c) aep[c] = aep[c] || areg[c]
#else
#define edge(c) ep[c] = (ON(POLL) -> ep[c] : 1)
#endif
#define due(c, t) (ON(TIME) -> !isfree[c] && place[c] <= t : tmo[c] == 1)
/* After a release: does a post follow, may one follow (the clock decides)? */
#define POST_FOLLOWS (ON(POLL) && !ON(MUT_POST_BEFORE_RELEASE))
#define POST_MAY (POST_FOLLOWS || \
                  (ON(TIME) && !ON(MUT_SHORT_POST_TOO_EARLY)))

#define all_in_use (!isfree[0] && !isfree[LAST])
#define acceptable (backlog && !all_in_use)
#define WAKE (efd || hot(0) || hot(LAST) || zhot[0] || zhot[LAST] || \
              ahot(0) || ahot(LAST) || \
              due(0, now) || due(LAST, now) || acceptable)
#define rests(c) (own[c] == FREE || own[c] == WAIT || own[c] == DEAD)
#define QUIET (lblock && !WAKE && !posting && !rbusy && rests(0) && rests(LAST))

#define lazy(c) (ON(LAZY) && own[c] == DEAD && !(backlog && paused))
#define P2(c) (own[c] != WAIT || (!wanted(w[c]) && fin[c] != 2 && !rok[c] && \
               !((w[c] & W_IN) && mask(c)) && !((w[c] & W_RDHUP) && fin[c])))
#define P5(c) (((own[c] == FREE || own[c] == WAIT) && !onbox[c] && \
               !(w[c] & POSTED)) || lazy(c))
#define P6(c) (own[c] != WAIT || !ON(TIME) || place[c] <= dl[c])
#define check                                                     \
    assert(!QUIET || (P2(0) && P2(LAST) && (ON(LAZY) || !head))); \
    assert(!QUIET || (P5(0) && P5(LAST)));                        \
    assert(!QUIET || (P6(0) && P6(LAST)));                        \
    assert(!QUIET || (P7(0) && P7(LAST)))

inline wake_if_sleeping(lazily, done)
{
    if
    :: sleeping && (paused || !(lazily)) ->
        d_step { efd = 1; posting = posting - done }
    :: d_step { !(sleeping && (paused || !(lazily))) ->
        posting = posting - done }
    fi
}

inline post(c, lazily, announced)   /* rule 4: anybody, at any time */
{
    d_step {
        old = w[c] & POSTED; w[c] = w[c] | POSTED;
        posting = posting + !old - announced
    }
    if
    :: old -> old = 0
    :: else ->
        WHEN(MUT_WAKE_CHECK_BEFORE_PUSH, wake_if_sleeping(lazily, 0);)
        do
        :: d_step { old = head; next[c] = old }
            if
            :: d_step { head == old -> head = c + 1; old = 0;
                        assert(!onbox[c]); onbox[c] = 1 } break     /* P3 */
            :: else
            fi
        od;
        WHEN(MUT_WAKE_CHECK_BEFORE_PUSH, posting--)
        UNLESS(MUT_WAKE_CHECK_BEFORE_PUSH, wake_if_sleeping(lazily, 1))
    fi
}

inline new_serial(c)                /* rule 7: a suspension begins or ends */
{
    d_step { assert(own[c] == me); serial[c]++ }            /* P1 P3 */
    d_step { assert(own[c] == me);
        w[c] = (w[c] & ~(GENS | (ON(MUT_RESUME_NOT_CLEARED) -> 0 : R_RES))) |
               gen(serial[c]);
        live[c] = 0; rok[c] = 0 }
}

#ifdef AUX
inline close_aux(c)                 /* rule 13: the owner; in a d_step */
{
    aopen[c] = 0; arx[c] = 0; asent[c] = 0; afin[c] = 0; aep[c] = 0; areg[c] = 0
}

inline watch_aux(c)                 /* rule 14: the owner */
{
    d_step { assert(own[c] == me && !areg[c]); aopen[c] = 1;
        areg[c] = !ON(POLL);
        aep[c] = areg[c] && amask(c) && !ON(MUT_AUX_ADD_BLIND) }
}

inline unwatch_aux(c)
{
    d_step { assert(own[c] == me);
        areg[c] = 0; aep[c] = (ON(POLL) -> aep[c] : 0) }
    UNLESS(MUT_AUX_NOT_CLEARED, w[c] = w[c] & ~R_AUX)
}
#endif

inline close_fd(c)
{
    d_step { assert(own[c] == me);                          /* P1 P3 */
        open[c] = 0; rx[c] = 0; fin[c] = 0; sent[c] = 0; err[c] = 0;
        ep[c] = 0; tmo[c] = 0; st[c] = 0;
        WHEN(AUX, assert(!ON(FD) || !areg[c]); close_aux(c); unreg[c] = 0;)
        zombie[c] = (ON(FORK) -> gen32[c] + 1 : 0) }
}

inline retire(c)                    /* rule 6: the owner */
{
    UNLESS(MUT_CLOSE_AFTER_POST, close_fd(c);)
    UNLESS(MUT_NO_SERIAL_AT_RETIRE, new_serial(c);)
    WHEN(MUT_POST_BEFORE_RETIRED, post(c, 0, 0);)
    d_step { assert(own[c] == me); own[c] = DEAD; w[c] = w[c] | RETIRED;
        live[c] = 0; rok[c] = 0; posting++ }
    WHEN(MUT_FREE_BY_WORKER,
       d_step { own[c] = FREE; isfree[c] = 1; gen32[c]++ };)
    WHEN(MUT_POST_BEFORE_RETIRED, posting--)
    UNLESS(MUT_POST_BEFORE_RETIRED, post(c, ON(LAZY), 1))
    WHEN(MUT_CLOSE_AFTER_POST, ; close_fd(c))
}

inline offer(c, bits)               /* rule 1: the listener alone */
{
    WHEN(MUT_OFFER_NO_CAS, v = w[c];)
    d_step {
        v = (ON(MUT_OFFER_NO_CAS) -> v : w[c]) | (bits);
        if
        :: (v & OWNED) || !wanted(v) -> w[c] = v; v = 0     /* NOTED */
        :: else ->                                          /* TAKEN */
            w[c] = (v & (POSTED | RETIRED | GENS | STICKY)) | OWNED;
            v = v & READY; why[c] = v;
            assert(own[c] == WAIT); own[c] = LIS;           /* P1 P3 */
            assert(!(v & R_RES) || live[c]);                /* P4 */
            assert(!(v & R_HUP) || ON(RESET));              /* P7 */
            ep[c] = (ON(POLL) -> 0 : ep[c]);
            WHEN(AUX, aep[c] = (ON(POLL) -> 0 : aep[c]);)
            IF(ON(TIME) && place[c] > lnow + H && !ON(MUT_LATE_PLACE),
               place[c] = lnow + H)                         /* rule 9 */
        fi
    }
    if
    :: v -> v = 0; d_step { own[c] = QUEUED; queue ! c }
    :: (v & R_TMO) && !(ON(FD) && st[c] == SUSP) ->
        v = 0; retire(c)            /* the listener closes it itself */
    :: !v
    fi
}

active proctype Listener()
{
    byte c, h, g, old, lnow; WORD v; byte me = LIS;

loop:                                                       /* rule 5 */
    atomic { h = head; head = 0 }
    do
    :: h == 0 -> break
    :: else ->
        d_step { c = h - 1; v = w[c]; onbox[c] = 0;
            h = (ON(MUT_NEXT_AFTER_CLEAR) -> h : next[c]);
            w[c] = (ON(MUT_CLEAR_POSTED_LATE) -> v : v & ~POSTED) }
        WHEN(MUT_NEXT_AFTER_CLEAR, h = next[c];)
        if
        :: isfree[c] && !ON(MUT_NO_FREE_CHECK)
        :: (!isfree[c] || ON(MUT_NO_FREE_CHECK)) && (v & RETIRED) ->
            d_step { assert(own[c] == DEAD);                /* P3: once */
                own[c] = FREE; isfree[c] = 1; gen32[c]++;
                place[c] = 0; dl[c] = 0 }
        :: else ->
            WHEN(TIME, IF(dl[c] < place[c], place[c] = dl[c]);)
            offer(c, 0);
            WHEN(POLL, d_step { IF(!(w[c] & OWNED), assert(own[c] == WAIT);
                ep[c] = ((w[c] >> 5) & (R_IN | R_RDHUP)) | R_HUP;
                WHEN(AUX, aep[c] = ((w[c] >> 5) & R_AUX) &&
                                   !ON(MUT_AUX_NOT_ARMED))) })
        fi;
        WHEN(MUT_CLEAR_POSTED_LATE, w[c] = w[c] & ~POSTED;)
        d_step { v = 0; c = 0 }
    od;

    UNLESS(MUT_PAUSED_TOO_LATE, WHEN(LAZY, paused = all_in_use;))
    sleeping = 1;                                           /* rule 10 */
    if
    :: !ON(MUT_NO_RECHECK_BEFORE_SLEEP) && head -> sleeping = 0; goto loop
    :: d_step { ON(MUT_NO_RECHECK_BEFORE_SLEEP) || !head -> lblock = 1 }
    fi;
    WHEN(MUT_PAUSED_TOO_LATE, paused = all_in_use;)
    d_step { WAKE -> lblock = 0; lnow = now }               /* epoll_wait() */
    do                              /* gathers its events one by one */
    :: c < N -> d_step {
        IF(hot(c), v = mask(c) & (ON(POLL) -> ep[c] : 255);
            ep[c] = (ON(POLL) -> ep[c] : 0);
            err[c] = (err[c] == 1 -> 2 : err[c]);
            IF(v, batch ! c, gen32[c], v));
        WHEN(AUX, IF(ahot(c), aep[c] = 0;
            v = (ON(MUT_AUX_UNMARKED) -> R_IN : R_AUX);
            IF(ON(MUT_AUX_HUP_IS_HUP) && afin[c], v = R_IN | R_HUP);
            batch ! c, gen32[c], v);)
        IF(zhot[c], batch ! c, zombie[c] - 1, R_IN | R_RDHUP | R_HUP;
            zhot[c] = 0; zombie[c] = 0);
        v = 0; c++ }
    :: else -> break
    od;
    atomic { sleeping = 0; c = 0 }
    efd = 0;
    do
    :: batch ? c, g, v ->
        IF(g == gen32[c] || ON(MUT_NO_EVENT_GEN),
           assert(own[c] != FREE && g == gen32[c]);         /* P3 */
           offer(c, v));
        d_step { g = 0; c = 0; v = 0 }
    :: acceptable -> d_step {
        c = (isfree[0] -> 0 : LAST); backlog--;
        assert(own[c] == FREE); own[c] = WAIT; isfree[c] = 0; open[c] = 1;
        w[c] = (w[c] & (GENS | (ON(MUT_WIPE_POSTED) -> 0 : POSTED))) | W_IN;
        dl[c] = (ON(TIME) -> lnow + LONG : 0); place[c] = dl[c];
        ep[c] = (ON(POLL) -> R_IN | R_HUP : 0); c = 0 }
    :: due(0, lnow) || due(LAST, lnow) -> d_step {          /* rule 9 */
        c = (due(0, lnow) -> 0 : LAST); v = (w[c] & OWNED);
        if
        :: !ON(TIME) -> tmo[c] = 2; v = (v || isfree[c] -> 0 : R_TMO)
        :: ON(TIME) && v -> v = 0;
            place[c] = (ON(MUT_OWNED_SLOT_STAYS) -> place[c] :
                        (ON(MUT_OWNED_DEADLINE_READ) && dl[c] > lnow ->
                         dl[c] : lnow + H))
        :: ON(TIME) && !v && dl[c] <= lnow -> v = R_TMO
        :: else -> place[c] = dl[c]
        fi }
        IF(v, offer(c, R_TMO));
        c = 0
    :: len(batch) == 0 && !acceptable && !due(0, lnow) && !due(LAST, lnow) ->
        break
    od;
    goto loop
}

proctype Worker(byte me)
{
    byte c, n, old, t, d; WORD want, clr;

sleep:
    atomic { c = 0; n = 0; t = 0; d = 0; want = 0; clr = 0 }
    atomic { queue ? c; assert(own[c] == QUEUED); own[c] = me;      /* P1 */
        WHEN(AUX, t = (why[c] & R_AUX) != 0;)
        n = why[c] & 255; why[c] = 0 }
    if
    :: st[c] == SUSP -> goto woken
    :: st[c] != SUSP && (n & R_TMO) -> goto closing
    :: else -> t = 0
    fi;

reading:                                                    /* rule 3 */
    want = 0;
    WHEN(MUT_FIN_CHECK_BEFORE_CLEAR, want = w[c] & (R_RDHUP | R_HUP);)
    UNLESS(MUT_CLEAR_AFTER_READ, w[c] = w[c] & ~(R_IN | clr);)
    d_step { assert(own[c] == me && open[c]);               /* P1 P3 */
        n = (fin[c] == 2 -> 0 : (rx[c] > BUF -> BUF : rx[c]));
        rx[c] = rx[c] - n;
        t = (fin[c] == 2 || (!n && fin[c])) }
    WHEN(MUT_CLEAR_AFTER_READ, w[c] = w[c] & ~(R_IN | clr);)
    clr = 0;
    if
    :: t -> t = 0; goto closing
    :: n == 0 && !t ->              /* EAGAIN: the next time doubt HUP too */
        clr = (ON(MUT_HUP_NOT_CLEARED) -> 0 : R_HUP); want = W_IN; goto park
    :: n == BUF -> goto reading
    :: n == BUF -> d_step { own[c] = QUEUED; queue ! c } goto sleep /* yield */
    WHEN(SUSPEND, :: n && st[c] == FRESH -> goto suspend)
    :: n && n < BUF ->              /* short: drained, if no FIN is noted */
        UNLESS(MUT_FIN_CHECK_BEFORE_CLEAR, want = w[c] & (R_RDHUP | R_HUP);)
        if
        :: want && !ON(MUT_SHORT_READ_IGNORES_FIN) -> goto reading
        :: else -> want = W_IN; goto park
        fi
    fi;

suspend:                                                    /* rule 7 */
    new_serial(c);
    d_step { st[c] = SUSP; live[c] = serial[c]; ticket[c] = serial[c] }
#ifdef FD
watching:
    watch_aux(c);
#elif defined(AUX)
    d_step { aopen[c] = 1; areg[c] = !ON(POLL); aep[c] = areg[c] } /* looks */
#endif
suspended:
    want = W_RES | W_AUX |
           (w[c] & R_RDHUP && !ON(MUT_WANT_RDHUP_AGAIN) -> 0 : W_RDHUP);

park:                                                       /* rules 2, 9 */
    WHEN(MUT_POST_BEFORE_RELEASE, post(c, 0, 0);)
    n = 0;
#ifdef TIME
    t = now;
    if :: d = t + 1 :: d = t + H :: d = t + LONG fi;
    UNLESS(MUT_DEADLINE_AFTER_RELEASE,
           d_step { assert(own[c] == me); dl[c] = d };)
    WHEN(MUT_SHORT_POST_TOO_EARLY, IF(d < t + H, post(c, 0, 0));)
#endif
    d_step { assert(own[c] == me);                          /* P1 P3 */
        n = !wanted(w[c] | want) || ON(MUT_RELEASE_IGNORES_READY);
        IF(n, w[c] = (w[c] & ~OWNED) | want; own[c] = WAIT;
           posting = posting + POST_MAY) }
    if
    :: !n && st[c] == SUSP -> WHEN(MUT_WANT_RDHUP_AGAIN, goto park;)
        goto woken
    :: !n && st[c] != SUSP -> goto reading
    :: else
    fi;
    WHEN(MUT_DEADLINE_AFTER_RELEASE,
         d_step { assert(own[c] == WAIT); dl[c] = d };)     /* P3 */
#if POST_MAY
    WHEN(TIME, d_step {
        t = (ON(MUT_CLOCK_BEFORE_RELEASE) -> t : now);
        n = POST_FOLLOWS || (d < t + H && !ON(MUT_NO_SHORT_POST));
        posting = posting - !n };)
    IF(n, post(c, 0, 1));                                   /* rules 9, 12 */
#endif
    goto sleep;

woken:
#ifdef AUX
    d = ((n | w[c]) & (R_RES | R_HUP | R_TMO)) != 0;    /* it ends anyway */
    n = 0;
#ifdef FD
    t = t || (w[c] & R_AUX) != 0;
    UNLESS(MUT_AUX_REMOVED_LATE, unwatch_aux(c);)           /* rule 14 */
    if
    :: !d && !t -> goto watching    /* told that the client is half-closed */
    :: else
    fi;
    new_serial(c);
    d_step { assert(own[c] == me && aopen[c]);              /* P1 P3 */
        n = (arx[c] > 0); arx[c] = arx[c] - n; t = (!n && afin[c]) }
    if
    :: !t && !d -> n = 0;
        WHEN(MUT_AUX_REMOVED_LATE, unwatch_aux(c);)
        goto suspend
    :: n || t || d -> n = 0; t = 0; d = 0;      /* enough, the end, a reason */
        d_step { IF(ON(MUT_AUX_REMOVED_LATE) && open[LAST - c],
                    unreg[LAST - c] = 1);
            close_aux(c) }
    fi;
    st[c] = DONE;
    goto reading;
#endif
aux_reading:
    skip;                                                   /* rule 13 */
    UNLESS(MUT_AUX_CLEAR_AFTER_READ, w[c] = w[c] & ~R_AUX;)
    d_step { assert(own[c] == me && aopen[c]);              /* P1 P3 */
        n = arx[c]; arx[c] = 0; t = (!n && afin[c]) }
    WHEN(MUT_AUX_CLEAR_AFTER_READ, w[c] = w[c] & ~R_AUX;)
    if
    :: n && !ON(MUT_AUX_SHORT_READ) -> goto aux_reading
    :: !t && !(n && !ON(MUT_AUX_SHORT_READ)) && !d -> n = 0; goto suspended
    :: else -> n = 0; t = 0; d = 0; d_step { close_aux(c) }
    fi;
#endif

    /* resumed, timed out or gone, or all of AUX is read: run fn */
    new_serial(c);
    st[c] = DONE;
    WHEN(MUT_DRAINED_ACROSS_PARK, want = W_IN; goto park;)
    goto reading;

closing:
    retire(c);
    goto sleep
}

proctype Resumer()                  /* rule 8 */
{
    byte c, s, old, calls; WORD v;

next_call:                          /* with a new ticket, or again with it */
    if
    :: d_step { (ticket[0] || ticket[LAST]) -> check; rbusy = 1;
        c = (ticket[0] -> 0 : LAST); s = ticket[c]; ticket[c] = 0 }
    :: d_step { s && calls < RESUMES -> check; rbusy = 1; calls++ }
    fi;
again:
    v = w[c];
    IF((v & GENS) != gen(s), goto gone);
    IF(serial[c] != s, goto gone);
    if
    :: d_step { w[c] == v -> w[c] = v | R_RES; rok[c] = 1;
        assert(live[c] == s) }                              /* P4 */
    :: else -> goto again
    fi;
    IF(!(v & OWNED) && !ON(MUT_RESUME_NO_POST), post(c, 0, 0));
gone:
    atomic { v = 0; rbusy = 0; IF(calls == RESUMES, c = 0; s = 0) }
    goto next_call
}

proctype World(byte c)              /* all that happens from outside */
{
    do
    :: d_step { c == 0 && came < CONNS -> check; came++; backlog++ }
    :: d_step { ON(TIME) && c == 0 && now < TMAX -> check; now++ }
    :: d_step { !ON(TIME) && !ON(NODUE) && open[c] && !tmo[c] -> check;
        tmo[c] = 1 }
    :: d_step { open[c] && !fin[c] && sent[c] < BYTES -> check;
        rx[c]++; sent[c]++; edge(c) }
    :: d_step { open[c] && !fin[c] -> check; fin[c] = 1; edge(c) }
#ifdef AUX
    :: d_step { aopen[c] && !afin[c] && asent[c] < PIECES -> check;
        arx[c]++; asent[c]++; aedge(c) }
    :: d_step { aopen[c] && !afin[c] -> check; afin[c] = 1; aedge(c) }
#endif
    :: d_step { ON(RESET) && open[c] && fin[c] < 2 -> check; fin[c] = 2;
        edge(c) }
    :: d_step { ON(RESET) && open[c] && !err[c] -> check; err[c] = 1; edge(c) }
    :: d_step { zombie[c] && !zhot[c] -> check; zhot[c] = 1 }
    :: atomic { c == 0 && timeout -> assert(QUIET); check } break   /* P2 P5 */
    od
}

init
{
    atomic { run Worker(1); run Worker(2); run World(0);
        IF(N > 1, run World(1));
        WHEN(SUSPEND, UNLESS(NORESUME, run Resumer();))
    }
}
#endif /* MOVE, QUEUE */
#endif /* >>model end */

/* ---------------------------------------------------------------------------
 * >>wheel -- against the naive truth, across the wrap of the clock
 * ------------------------------------------------------------------------- */

#define WHEEL_N 500

typedef struct wheel_rig {
    empm__wheel wheel;
    empm__slab  slab;
    uint32_t    due[WHEEL_N];           /* what was asked for; NEVER: off */
    uint32_t    seed;
} wheel_rig;

/* `n` records, none of which is in the wheel. */
static void rig_init(wheel_rig *r, uint32_t n, uint32_t now)
{
    empm__slab_init(&r->slab, n, 1);
    while (n-- > 0)
        empm__slab_conn(&r->slab, empm__slab_borrow(&r->slab))->place =
            EMPM__NEVER;
    empm__wheel_init(&r->wheel, now);
}

static uint32_t rig_random(wheel_rig *r, uint32_t below)
{
    r->seed = r->seed * 1664525u + 1013904223u;
    return (r->seed >> 8) % below;
}

/* A deadline is due neither before its time nor more than one slot after it,
 * also when the clock wraps and when the machine was suspended. */
TEST(wheel, never_early_never_late_across_the_wrap)
{
    wheel_rig *r = (wheel_rig *)calloc(1, sizeof *r);
    uint32_t now = 0xffffffffu - 150000, step, i, found, fired = 0;
    const uint32_t ring = EMPM__SLOTS * EMPM__SLOT_MS;

    r->seed = 1;
    rig_init(r, WHEEL_N, now);
    for (step = 0; step < 20000; step++) {
        int wait;
        now += rig_random(r, 40);
        if (step % 5000 == 4999)
            now += ring + rig_random(r, 1000);   /* a suspended machine */
        empm__wheel_advance(&r->wheel, &r->slab, now);
        while ((found = empm__wheel_due(&r->wheel, &r->slab)) != EMPM__NIL) {
            CHECK(r->due[found] != EMPM__NEVER);
            CHECK(empm__time_until(r->due[found], now) <= 0); /* not early */
            r->due[found] = EMPM__NEVER;
            fired++;
        }
        for (i = 0; i < 5; i++) {
            const uint32_t k = rig_random(r, WHEEL_N);
            const uint32_t ms = rig_random(r, 3) ? 16 + rig_random(r, 3000)
                                                 : 16 + rig_random(r, 60000);
            if (rig_random(r, 4) == 0) {
                empm__wheel_remove(&r->wheel, &r->slab, k);
                r->due[k] = EMPM__NEVER;
            } else {
                empm__wheel_move(&r->wheel, &r->slab, k,
                                 empm__time_after(now, ms));
                r->due[k] = empm__time_after(now, ms);
            }
        }
        wait = empm__wheel_wait(&r->wheel, now);
        for (i = 0; i < WHEEL_N; i++)
            if (r->due[i] != EMPM__NEVER) {
                const int32_t left = empm__time_until(r->due[i], now);
                CHECK(left > -(int32_t)EMPM__SLOT_MS);       /* not late */
                CHECK(wait >= 0 && wait <= left + (int)EMPM__SLOT_MS);
            }
    }
    CHECK(fired > 5000);
    for (i = 0; i < WHEEL_N; i++)
        empm__wheel_remove(&r->wheel, &r->slab, i);
    CHECK_INT(empm__wheel_wait(&r->wheel, now), -1);         /* at rest */
    empm__slab_free(&r->slab);
    free(r);
}

/* A deadline beyond one turn of the wheel is looked at once per turn, and is
 * met. */
TEST(wheel, a_wait_longer_than_the_ring_is_looked_at_and_goes_on)
{
    wheel_rig *r = (wheel_rig *)calloc(1, sizeof *r);
    uint32_t now = 1000, at = empm__time_after(now, 200000), looks = 0, i = 0;

    rig_init(r, 1, now);
    empm__wheel_move(&r->wheel, &r->slab, 0, at);
    while (empm__time_until(at, now) > 0) {
        now += (uint32_t)empm__wheel_wait(&r->wheel, now);
        empm__wheel_advance(&r->wheel, &r->slab, now);
        i = empm__wheel_due(&r->wheel, &r->slab);
        CHECK_INT(i, 0);
        CHECK_INT(empm__wheel_due(&r->wheel, &r->slab), EMPM__NIL);
        if (empm__time_until(at, now) > 0)
            empm__wheel_move(&r->wheel, &r->slab, 0, at);
        if (++looks > 10)
            break;
    }
    CHECK_INT(looks, 4);                         /* 200 s by rings of 65.5 s */
    CHECK(empm__time_until(at, now) > -32);
    empm__slab_free(&r->slab);
    free(r);
}

/* After a long sleep, a record that is put back with a far deadline is not due
 * again in the same look. */
TEST(wheel, what_is_put_back_far_away_is_not_due_again)
{
    wheel_rig *r = (wheel_rig *)calloc(1, sizeof *r);
    const uint32_t ring = EMPM__SLOTS * EMPM__SLOT_MS;
    uint32_t now = 1000, i, seen;

    rig_init(r, 10, now);
    for (i = 0; i < 10; i++)
        empm__wheel_move(&r->wheel, &r->slab, i, now + 100 + i * 6000);
    now += 3 * ring + 7;
    empm__wheel_advance(&r->wheel, &r->slab, now);
    for (seen = 0; (i = empm__wheel_due(&r->wheel, &r->slab)) != EMPM__NIL &&
                   seen < 100; seen++)
        empm__wheel_move(&r->wheel, &r->slab, i, now + 10 * ring);
    CHECK_INT(seen, 10);
    /* weeks at rest: the clock has moved by more than half its range */
    for (i = 0; i < 9; i++)
        empm__wheel_remove(&r->wheel, &r->slab, i);
    empm__wheel_advance(&r->wheel, &r->slab, now + 0x90000000u);
    CHECK_INT(empm__wheel_due(&r->wheel, &r->slab), 9);
    CHECK_INT(empm__wheel_due(&r->wheel, &r->slab), EMPM__NIL);
    empm__slab_free(&r->slab);
    free(r);
}

/* ---------------------------------------------------------------------------
 * >>queue -- jobs and sleepers
 * ------------------------------------------------------------------------- */

enum { QUEUE_JOBS = 20000, QUEUE_THREADS = 8 };

typedef struct queue_rig {
    empm__queue   q;
    empm__slab    slab;
    empm__sleeper sleepers[QUEUE_THREADS];
    empm__score_child score;
    uint32_t      done[64];                      /* atomic, per record */
    uint32_t      total;                         /* atomic */
} queue_rig;

typedef struct queue_thread {
    queue_rig    *rig;
    uint32_t      number;
} queue_thread;

static void queue_no_gate(void *arg) { (void)arg; }

static void *queue_worker(void *arg)
{
    queue_thread *t = (queue_thread *)arg;
    uint32_t i;
    while ((i = empm__queue_pop(&t->rig->q, t->number, queue_no_gate,
                                queue_no_gate, NULL)) != EMPM__NIL) {
        __atomic_fetch_add(&t->rig->done[i], 1u, __ATOMIC_RELEASE);
        __atomic_fetch_add(&t->rig->total, 1u, __ATOMIC_RELEASE);
    }
    return NULL;
}

/* Each pushed job runs exactly once; afterwards all workers sleep and none is
 * counted as searching. */
TEST(queue, every_job_runs_once_and_the_queue_rests)
{
    queue_rig *r = (queue_rig *)calloc(1, sizeof *r);
    queue_thread t[QUEUE_THREADS];
    pthread_t id[QUEUE_THREADS];
    uint32_t i, pushed[64], sum = 0;
    uint64_t until = empm__now_us() + 10000000u;
    memset(t, 0, sizeof t);
    memset(pushed, 0, sizeof pushed);
    empm__slab_init(&r->slab, 64, 1);
    for (i = 0; i < 64; i++)
        empm__slab_borrow(&r->slab);
    empm__queue_init(&r->q, &r->slab, r->sleepers, QUEUE_THREADS, 2, &r->score);
    for (i = 0; i < QUEUE_THREADS; i++) {
        t[i].rig = r;
        t[i].number = i;
        pthread_create(&id[i], NULL, queue_worker, &t[i]);
    }
    for (i = 0; i < QUEUE_JOBS; i++) {
        const uint32_t k = i % 64;
        /* a record is in the queue at most once: wait until its last is done */
        while (__atomic_load_n(&r->done[k], __ATOMIC_ACQUIRE) != pushed[k])
            sched_yield();
        pushed[k]++;
        empm__queue_push(&r->q, k);
    }
    while (__atomic_load_n(&r->total, __ATOMIC_ACQUIRE) != QUEUE_JOBS &&
           empm__now_us() < until)
        sched_yield();
    CHECK_INT(__atomic_load_n(&r->total, __ATOMIC_ACQUIRE), QUEUE_JOBS);
    for (;;) {                       /* all asleep, nobody still "searching" */
        uint32_t idle, searching;
        pthread_mutex_lock(&r->q.lock);
        idle = r->q.idle_count;
        searching = r->q.searching;
        pthread_mutex_unlock(&r->q.lock);
        if ((idle == QUEUE_THREADS && searching == 0) ||
            empm__now_us() > until) {
            CHECK_INT(idle, QUEUE_THREADS);
            CHECK_INT(searching, 0);
            break;
        }
        sched_yield();
    }
    empm__queue_close(&r->q);
    for (i = 0; i < QUEUE_THREADS; i++)
        pthread_join(id[i], NULL);
    for (i = 0; i < 64; i++)
        sum += r->done[i];
    CHECK_INT(sum, QUEUE_JOBS);
    empm__slab_free(&r->slab);
    pthread_mutex_destroy(&r->q.lock);
    free(r);
}

/* ---------------------------------------------------------------------------
 * >>route -- Go 1.22's patterns
 * ------------------------------------------------------------------------- */

static char r_a[] = "a", r_b[] = "b", r_c[] = "c", r_d[] = "d", r_e[] = "e",
            r_f[] = "f", r_g[] = "g";

/* The most specific pattern serves a request, and {names} get the decoded part
 * of the path. */
TEST(route, most_specific_wins)
{
    static const empm_route table[] = {
        EMPM_ROUTE("GET /r/{x...}",     h_route, r_a),
        EMPM_ROUTE("GET /r/{x}",        h_route, r_b),
        EMPM_ROUTE("GET /r/one",        h_route, r_c),
        EMPM_ROUTE("POST /r/one",       h_route, r_d),
        EMPM_ROUTE("GET /r/{x}/two",    h_route, r_e),
        EMPM_ROUTE("GET /r/{x}/{y}/z",  h_route, r_f),
        EMPM_ROUTE("GET /q/{$}",        h_route, r_g),
        EMPM_ROUTE("GET /t/",           h_route, r_a),
        EMPM_ROUTE("GET /u",            h_route, r_b),
        EMPM_ROUTES_END
    };
    static const struct { const char *ask, *want; int status; } rows[] = {
        { "GET /r/one",        "c x=- y=-",           200 },
        { "POST /r/one",       "d x=- y=-",           200 },
        { "GET /r/other",      "b x=other y=-",       200 },
        { "GET /r/%6fne",      "c x=- y=-",           200 },
        { "GET /r/a%2Fb",      "b x=a/b y=-",         200 },
        { "GET /r/a+b",        "b x=a+b y=-",         200 },
        { "GET /r/%25",        "b x=% y=-",           200 },
        { "GET /r/k/two",      "e x=k y=-",           200 },
        { "GET /r/k/v/z",      "f x=k y=v",           200 },
        { "GET /r/k/v/w",      "a x=k/v/w y=-",       200 },
        { "GET /r/k%2Fv/w",    "a x=k%2Fv/w y=-",     200 },
        { "GET /r/k%20v/w",    "a x=k v/w y=-",       200 },
        { "GET /r/",           "a x= y=-",            200 },
        { "GET /q/",           "g x=- y=-",           200 },
        { "GET /q/x",          NULL,                  404 },
        { "GET /t/",           "a x=- y=-",           200 },
        { "GET /t/x/y",        "a x=- y=-",           200 },
        { "GET /t/?q=/x",      "a x=- y=-",           200 },
        { "GET /u",            "b x=- y=-",           200 },
        { "GET /u/",           NULL,                  404 },
        { "GET /U",            NULL,                  404 },
        { "GET /",             NULL,                  404 },
        { "POST /r/other",     NULL,                  405 },
        { "GET /t",            NULL,                  0 /* a redirect */ }
    };
    fixture f;
    client c;

    fx_init(&f);
    f.cfg.routes = table;
    if (!fx_up(&f))
        return;
    EACH(rows, i) {
        int status;
        context("%s", rows[i].ask);
        cl_open(&c, &f);
        cl_printf(&c, "%s HTTP/1.1\r\nHost: a\r\n\r\n", rows[i].ask);
        status = cl_reply(&c);
        if (rows[i].status != 0)
            CHECK_INT(status, rows[i].status);
        else
            CHECK(status == 301 || status == 308 || status == 307);
        if (rows[i].want != NULL)
            CHECK_STR(c.body.p, rows[i].want);
        cl_close(&c);
    }
    fx_down(&f);
}

/* The redirect to a folder is a whole path of this host: it holds no Host
 * (CVE-2019-16645) and begins with neither "//" nor "/\\". */
LIVE(route, slash_redirect_is_a_path_of_ours)
{
    static const empm_route table[] = {
        EMPM_ROUTE("/tree/{$}",       h_hello, NULL),
        EMPM_ROUTE("/{user}/box/{$}", h_hello, NULL),
        EMPM_ROUTE("/a/b/{$}",        h_hello, NULL),
        EMPM_ROUTE("/{name}/{$}",     h_hello, NULL),
        EMPM_ROUTES_END
    };
    static const struct { const char *line; int status; const char *to; }
    rows[] = {
        { "GET /tree",                  301, "/tree/" },
        { "HEAD /tree",                 301, "/tree/" },
        { "POST /tree",                 308, "/tree/" },
        { "GET /tree?a=b&c",            301, "/tree/?a=b&c" },
        { "GET /tree?a=//x\\y:%20[1]", 301, "/tree/?a=//x\\y:%20[1]" },
        { "GET /tree?",                 301, "/tree/" },
        { "GET /tree?\xc3\xa9",         301, "/tree/?%C3%A9" },
        { "GET //tree",                 301, "/tree/" },
        { "GET /x/..//\\evil.example", 301, "/%5Cevil.example/" },
        { "GET http://evil/tree?q",     301, "/tree/?q" },
        { "GET /a/b",                   301, "/a/b/" },
        { "GET /me/box?x",              301, "/me/box/?x" },
        { "GET /%6De/box",              301, "/me/box/" },
        { "GET /m%C3%A9/box",           301, "/m%C3%A9/box/" },
        { "GET /a%2fb/box",             301, "/a%2Fb/box/" },
        { "GET /a%20b%25+c/box",        301, "/a%20b%25+c/box/" },
        { "GET /a%3Fb%23/box",          301, "/a%3Fb%23/box/" },
        { "GET /javascript:x",          301, "/javascript:x/" },
        { "GET /\\evil.example",      301, "/%5Cevil.example/" },
        { "GET /%5cevil.example",       301, "/%5Cevil.example/" },
        { "GET /%2fevil.example",       301, "/%2Fevil.example/" },
        { "GET /%0d%0aX:%20y",          301, "/%0D%0AX:%20y/" }
    };
    static const char *const never[] = {
        "//evil.example", "//evil.example/box", "/%2f/evil.example",
        "///evil.example", "//tree", "/\\/evil.example", "//%5cevil.example"
    };
    fixture f;
    client c;

    fx_init(&f);
    f.cfg.routes = table;
    if (!fx_up(&f))
        return;
    EACH(rows, i) {
        char raw[300];
        context("%s", rows[i].line);
        snprintf(raw, sizeof raw, "%s HTTP/1.1\r\nHost: evil\r\n"
                 "Connection: close\r\n\r\n", rows[i].line);
        cl_open(&c, &f);
        cl_puts(&c, raw);
        CHECK_INT(cl_reply_with(&c, rows[i].line[0] == 'H'), rows[i].status);
        CHECK_STR(cl_header(&c, "Location"), rows[i].to);
        cl_close(&c);
    }
    EACH(never, i) {
        const char *to;
        context("%s", never[i]);
        cl_open(&c, &f);
        cl_get(&c, never[i]);
        to = cl_header(&c, "Location");
        CHECK(to == NULL || (to[0] == '/' && to[1] != '/' && to[1] != '\\'));
        cl_close(&c);
    }
    fx_down(&f);
}

static int route_rc(const char *a, const char *b)
{
    empm_route table[3];
    const empm_route end[] = { EMPM_ROUTES_END };
    fixture f;
    int rc;

    memset(table, 0, sizeof table);
    table[0].pattern = a;
    table[0].handler = h_hello;
    table[0].limit_body = -1;
    table[0].kind = EMPM__ROUTE_HANDLER;
    table[1] = table[0];
    table[1].pattern = b;
    if (b == NULL)
        table[1] = end[0];
    table[2] = end[0];
    fx_init(&f);
    f.cfg.routes = table;
    rc = empm_start(&f.cfg, &f.s);
    if (rc == EMPM_OK)
        fx_down(&f);
    else
        fx_close_files(&f);
    return rc;
}

/* Two patterns of which none is more specific, and a pattern that is not well
 * formed, end the start. */
TEST(route, conflicts_are_found_at_start)
{
    static const struct { const char *a, *b; int rc; } rows[] = {
        { "GET /a/{x}",    "GET /a/{y}",       EMPM_EINVAL },
        { "GET /a",        "GET /a",           EMPM_EINVAL },
        { "GET /{x}/b",    "GET /a/{y}",       EMPM_EINVAL },
        { "GET /a/{x...}", "GET /a/",          EMPM_EINVAL },
        { "/a/b",          "GET /a/{x}",       EMPM_EINVAL },
        { "GET /a/{x}",    "POST /a/{y}",      EMPM_OK },
        { "GET /a/{x}",    "GET /a/b",         EMPM_OK },
        { "GET /a/{x}",    "/a/{y}",           EMPM_OK },
        { "GET /a/",       "GET /a/{$}",       EMPM_OK },
        { "GET /a/",       "GET /a",           EMPM_OK },
        { "GET /",         "GET /{x}",         EMPM_OK },
        { "GET a",         NULL,               EMPM_EINVAL },
        { "GET /{",        NULL,               EMPM_EINVAL },
        { "GET /{}",       NULL,               EMPM_EINVAL },
        { "GET /{x}y",     NULL,               EMPM_EINVAL },
        { "GET /{x...}/y", NULL,               EMPM_EINVAL },
        { "GET /{$}/y",    NULL,               EMPM_EINVAL },
        { "GET /{...}",    NULL,               EMPM_EINVAL },
        { "GET /{x..}",    NULL,               EMPM_EINVAL },
        { "GET /{.}",      NULL,               EMPM_EINVAL },
        { "GET /{a_b-1}",  NULL,               EMPM_OK },
        { "GET /{x...}",   NULL,               EMPM_OK },
        { "CONNECT /x",    NULL,               EMPM_EINVAL },
        { NULL,            NULL,               EMPM_EINVAL },
        { "GET /{x}/{x}",  NULL,               EMPM_EINVAL },
        { "G T /x",        NULL,               EMPM_EINVAL },
        { "",              NULL,               EMPM_EINVAL },
        { "GET",           NULL,               EMPM_EINVAL }
    };

    EACH(rows, i) {
        context("%s | %s", rows[i].a ? rows[i].a : "NULL", rows[i].b
                ? rows[i].b : "-");
        CHECK_INT(route_rc(rows[i].a, rows[i].b), rows[i].rc);
    }
}

/* on_head may refuse a request before a byte of its body is read and before
 * 100 Continue. */
SERVED(route, on_head_comes_before_the_body, NULL)
{
    /* refused without 100, without a byte of the body */
    CHECK_INT(cl_ask(c, "POST /private HTTP/1.1\r\nHost: a\r\n"
                     "Expect: 100-continue\r\nContent-Length: 100000\r\n\r\n"),
              401);
    CHECK_STR(cl_header(c, "WWW-Authenticate"), "Basic realm=\"test\"");
    CHECK_INT(cl_ask(c, "POST /private HTTP/1.1\r\nHost: a\r\n"
                     "Content-Length: 100000\r\n\r\n"), 401);
    CHECK_INT(c->closes, 1);
    CHECK_FIN(c);
    cl_close(c);
    CHECK_INT(get_int(&shm->heads), 2);
    CHECK_INT(get_int(&shm->hits), 0);
    CHECK_INT(cl_ask(c, "POST /private HTTP/1.1\r\nHost: a\r\n"
                  "Authorization: x\r\nContent-Length: 5\r\n\r\nhello"), 200);
    check_in_step(c);
    cl_close(c);
    CHECK_INT(get_int(&shm->heads), 3);
    CHECK_INT(get_int(&shm->hits), 1);
}

/* A route's own limits hold: the size of a body (413), its workers at a time
 * (503), and its deadline. */
SERVED(route, limits_of_a_route, NULL)
{
    client a = client_of(f), b = client_of(f);
    str s = STR_EMPTY;

    str_addf(&s, "POST /sum-100 HTTP/1.1\r\nHost: a\r\nContent-Length: "
             "101\r\n\r\n");
    str_fill(&s, 'x', 101);
    CHECK_INT(cl_ask_n(c, s.p, s.n), 413);
    cl_close(c);
    s.n = 0;
    str_addf(&s, "POST /sum-100 HTTP/1.1\r\nHost: a\r\nContent-Length: "
             "100\r\n\r\n");
    str_fill(&s, 'x', 100);
    CHECK_INT(cl_ask_n(c, s.p, s.n), 200);
    cl_close(c);
    str_free(&s);

    /* max_workers 1: the second is 503 while the first runs, not after it */
    cl_puts(&a, "GET /one?n=2&ms=1500 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_int(&shm->meeting) == 1, 3000);
    CHECK_INT(cl_get(&b, "/one?n=2"), 503);
    cl_close(&b);
    add_int(&shm->meeting, 1);
    CHECK_INT(cl_reply(&a), 200);
    CHECK_INT(cl_get(&a, "/one?n=1"), 200);
    cl_close(&a);
    CHECK_INT(cl_ask(c, "GET /deadline HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    CHECK(get_int(&shm->rc[0]) & EMPM_STOP_DEADLINE);
}

/* max_requests counts requests that are still uploaded and suspended ones, and
 * a request that is given up counts no more. */
SERVED(route, max_requests_counts_uploads_and_suspended_ones, NULL)
{
    client a[3];
    str s = STR_EMPTY;
    int i;

    put_post(&s, "/few", 20000, 0, "");
    for (i = 0; i < 2; i++) {
        cl_open(&a[i], f);
        cl_send(&a[i], s.p, s.n - 1);
    }
    nap(SCALED(50));
    /* two are on their way, though none has a worker */
    CHECK_INT(cl_ask_n(c, s.p, s.n), 503);
    CHECK_STR(cl_header(c, "Retry-After"), "1");
    cl_close(c);
    CHECK_INT(get_status(f, "/hello"), 200);
    cl_send(&a[0], s.p + s.n - 1, 1);
    CHECK_INT(cl_reply(&a[0]), 200);
    check_in_step(&a[0]);            /* its end is over for sure */
    CHECK_INT(cl_ask_n(c, s.p, s.n), 200);
    cl_close(c);
    cl_close(&a[1]);                 /* one that is given up counts no more */
    cl_close(&a[0]);
    nap(SCALED(50));
    for (i = 0; i < 2; i++) {
        cl_open(&a[i], f);
        cl_send(&a[i], s.p, s.n - 1);
    }
    nap(SCALED(50));
    for (i = 0; i < 2; i++) {
        cl_send(&a[i], s.p + s.n - 1, 1);
        CHECK_INT(cl_reply(&a[i]), 200);
        cl_close(&a[i]);
    }
    /* a suspended one has no worker either */
    cl_open(&a[0], f);
    cl_puts(&a[0], "GET /few?slot=7 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_ticket(7) != 0, 3000);
    CHECK_INT(get_status(f, "/few"), 503);
    CHECK_INT(get_status(f, "/unpark?slot=7"), 200);
    CHECK_INT(cl_reply(&a[0]), 200);
    check_in_step(&a[0]);
    CHECK_INT(get_status(f, "/few?ms=1"), 200);
    cl_close(&a[0]);
    str_free(&s);
}

static int route_handler(empm_request *req, void *user)
{
    (void)req;
    (void)user;
    return 200;
}

/* Which of the patterns serves "METHOD /path"? -1: none. */
static int route_for(const char *const *patterns, const char *request)
{
    empm_route table[16];
    empm__routes t;
    empm__chars chars;
    empm__report rep;
    empm__path path;
    char method[16], target[256], decoded[257];
    int n = 0, found = -2;
    memset(&rep, 0, sizeof rep);
    empm__chars_init(&chars);
    for (; patterns[n] != NULL; n++) {
        const empm_route row = EMPM_ROUTE(NULL, route_handler, NULL);
        table[n] = row;
        table[n].pattern = patterns[n];
    }
    {
        const empm_route end = EMPM_ROUTES_END;
        table[n] = end;
    }
    sscanf(request, "%15s %255s", method, target);
    if (empm__routes_init(&t, table, &chars, &rep) == EMPM_OK &&
        empm__path_split(&path, target, strlen(target), decoded) == 0) {
        empm__route *r = empm__route_search(&t, 0, &path, 0, method, NULL);
        found = r == NULL ? -1 : (int)(r - t.list);
    }
    empm__routes_free(&t);
    return found;
}

/* The more specific of two patterns wins whatever their order in the table, as
 * in Go 1.22. */
TEST(route, the_most_specific_pattern_wins)
{
    static const char *const p[] = {
        "/", "/a/", "GET /a/b", "POST /a/{x}", "/a/b/{$}", "GET /f/{rest...}",
        "GET /f/x/{y}", "/f/x/lit", "HEAD /h", "GET /h", "/h", NULL
    };
    static const struct { const char *request; int row; } cases[] = {
        { "GET /", 0 }, { "GET /nowhere/at/all", 0 }, { "POST /nowhere", 0 },
        { "GET /a", 0 }, { "GET /a/", 1 }, { "PUT /a/z/z", 1 },
        { "GET /a/b", 2 }, { "HEAD /a/b", 2 }, { "POST /a/b", 3 },
        { "POST /a/%62", 3 }, { "GET /a/%62", 2 }, { "PUT /a/b", 1 },
        { "GET /a/b/", 4 }, { "GET /a/b/c", 1 }, { "GET /f/", 5 },
        { "GET /f/1/2/3", 5 }, { "GET /f/x/1", 6 }, { "GET /f/x/", 5 },
        { "GET /a%2Fb", 0 }, { "HEAD /h", 8 }, { "GET /h", 9 }, { "PUT /h", 10 }
    };
    static const char *const ok[] = {
        "/", "/a/", "GET /a/b", "POST /a/{x}", "/a/b/{$}", "GET /f/{rest...}",
        "GET /f/x/{y}", "HEAD /h", "GET /h", "/h", NULL
    };
    /* "/f/x/lit" of any method crosses "GET /f/x/{y}": refused */
    CHECK_INT(route_for(p, "GET /"), -2);
    EACH(cases, i) {
        int row = cases[i].row > 7 ? cases[i].row - 1 : cases[i].row;
        int got = route_for(ok, cases[i].request);
        if (got != row) {
            CHECK_STR(cases[i].request, "served by the row below");
            CHECK_INT(got, row);
        }
    }
}

static char *guarded(size_t n);              /* in >>head */
static void guarded_free(char *p, size_t n);

/* Dot segments and double slashes are removed before a path is matched (RFC
 * 3986 5.2.4). */
TEST(route, paths_are_made_normal_before_matching)
{
    static const struct { const char *in, *path; int segments,
                         status; } cases[] = {
        { "/", "/", 1, 0 }, { "/a", "/a", 1, 0 }, { "/a/", "/a/", 2, 0 },
        { "//", "/", 1, 0 }, { "///a", "/a", 1, 0 }, { "/a//b", "/a/b", 2, 0 },
        { "/a//", "/a/", 2, 0 }, { "/.", "/", 1, 0 }, { "/./", "/", 1, 0 },
        { "/./a", "/a", 1, 0 }, { "/a/.", "/a/", 2, 0 }, { "/a/..", "/", 1, 0 },
        { "/a/../", "/", 1, 0 }, { "/a/../b", "/b", 1, 0 },
        { "/a/b/../../c", "/c", 1, 0 }, { "/a/b/..", "/a/", 2, 0 },
        { "/a/./b/../c//d/.", "/a/c/d/", 4, 0 }, { "/a/%2e%2E/b", "/b", 1, 0 },
        { "/a/.%2e/%2e/b", "/b", 1, 0 }, { "/a//../b", "/b", 1, 0 },
        { "/...", "/...", 1, 0 }, { "/..a", "/..a", 1, 0 }, { "/.a", "/.a", 1,
                                                             0 },
        { "/a/%2F/..", "/a/", 2, 0 }, { "/..%2f..", "/..%2f..", 1, 0 },
        { "/a%20b/../%41", "/%41", 1, 0 }, { "/\xc3\xa9", "/\xc3\xa9", 1, 0 },
        { "/..", NULL, 0, 400 }, { "/../a", NULL, 0, 400 },
        { "/%2e%2e/a", NULL, 0, 400 }, { "/a/../../b", NULL, 0, 400 },
        { "//..", NULL, 0, 400 }, { "/./..", NULL, 0, 400 },
        { "/a/%/..", NULL, 0, 400 }, { "/%00/../a", NULL, 0, 400 }
    };
    EACH(cases, i) {
        const size_t n = strlen(cases[i].in);
        char *path = guarded(n + 1), *to = guarded(n + 1);
        empm__path p;
        memcpy(path, cases[i].in, n + 1);
        context("%s", cases[i].in);
        CHECK_INT(empm__path_split(&p, path, n, to), cases[i].status);
        if (cases[i].path != NULL) {
            CHECK_STR(path, cases[i].path);
            CHECK_INT(p.n, cases[i].segments);
        }
        guarded_free(path, n + 1);
        guarded_free(to, n + 1);
    }
}

/* empm_target() is the text that the client has sent; empm_path() is the path
 * that found the route. */
SERVED(route, handlers_see_the_path_that_was_matched, NULL)
{
    CHECK_INT(cl_ask(c, "GET /a/..//dump/./b%2Fc?q=/../x#f HTTP/1.1\r\n"
                     "Host: a\r\n\r\n"), 200);
    CHECK(strstr(c->body.p, "target=/a/..//dump/./b%2Fc?q=/../x\n") != NULL);
    CHECK(strstr(c->body.p, "path=/dump/b%2Fc\n") != NULL);
    CHECK(strstr(c->body.p, "query=q=/../x\n") != NULL);
    check_in_step(c);
    /* no method in the pattern: all of them, 501 is for those nobody takes */
    CHECK_INT(cl_ask(c, "BREW /dump/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    CHECK(strstr(c->body.p, "method=BREW\n") != NULL);
    CHECK_INT(cl_ask(c, "BREW /hello HTTP/1.1\r\nHost: a\r\n\r\n"), 501);
    CHECK_INT(cl_ask(c, "BREW /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"), 501);
    CHECK_INT(cl_ask(c, "CONNECT /dump/x HTTP/1.1\r\nHost: a\r\n\r\n"), 501);
    /* RFC 9112 3.2.4: a proxy's OPTIONS for all of a server */
    CHECK_INT(cl_ask(c, "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    CHECK(has_word(cl_header(c, "Allow"), "PUT"));
}

/* The table of routes refuses patterns that overlap, and patterns that mean
 * nothing. */
TEST(route, conflicts_and_nonsense_are_refused_at_start)
{
    static const char *const bad[][3] = {
        { "/a/{x}", "/{y}/b", NULL }, { "/a", "/a", NULL },
        { "GET /{a}", "GET /{b}", NULL }, { "/x/{a}/", "/{b}/y/", NULL },
        { "/{x...}", "/", NULL }, { "a", NULL, NULL }, { "/{}", NULL, NULL },
        { "/{x}{y}", NULL, NULL }, { "/a{x}", NULL, NULL },
        { "/{x...}/b", NULL, NULL }, { "/{$}/b", NULL, NULL },
        { "/{x}/{x}", NULL, NULL }, { "/a//b", NULL, NULL },
        { "G@T /", NULL, NULL }, { " /", NULL, NULL }, { "", NULL, NULL },
        { "/a/{x}", "GET /a/b", "/a/b" }
    };
    static const char *const good[][3] = {
        { "/a/{x}", "/a/b", NULL }, { "GET /a/{x}", "POST /{y}/b", NULL },
        { "/", "/{$}", NULL }, { "/a/", "/a/{x}", NULL },
        { "/a/{x}", "/a/{x}/", NULL }, { "GET /x", "/x", "HEAD /x" }
    };
    EACH(bad, i) {
        const char *p[4];
        memcpy(p, bad[i], sizeof bad[i]);
        p[3] = NULL;
        /* "GET /a/b" is inside both: no conflict */
        if (i == 16)
            continue;
        if (route_for(p, "GET /") != -2)
            CHECK_STR(bad[i][0], "refused");
    }
    EACH(good, i) {
        const char *p[4];
        memcpy(p, good[i], sizeof good[i]);
        p[3] = NULL;
        if (route_for(p, "GET /") == -2)
            CHECK_STR(good[i][0], "accepted");
    }
}

/* ---------------------------------------------------------------------------
 * >>peer -- addresses, and how many connections each has
 * ------------------------------------------------------------------------- */

static void peer_of(empm__peer *p, const char *text)
{
    if (strcmp(text, "unix:") == 0)
        empm__peer_set(p, EMPM__PEER_UNIX, NULL, 0);
    else
        CHECK(empm__proxy_address_parse(p, 0, text, strlen(text)));
}

static const char *peer_text(const empm__peer *p)
{
    static char text[96];

    return empm__peer_text(p, 0, text, sizeof text);
}

/* An IPv4 address is one peer, and so is a whole /64 of IPv6, as a customer
 * has one. */
TEST(peer, who_counts_as_one)
{
    static const struct { const char *a, *b; int same; } rows[] = {
        { "192.0.2.1", "192.0.2.1", 1 }, { "192.0.2.1", "192.0.2.2", 0 },
        { "192.0.2.1", "::ffff:192.0.2.1", 1 }, { "2001:db8::1", "2001:db8::2",
                                                 1 },
        { "2001:db8::1", "2001:db8:0:0:ffff::", 1 },
        { "2001:db8::1", "2001:db8:0:1::1", 0 }, { "::1", "0.0.0.0", 0 },
        { "::1", "::", 1 }, { "::c000:201:0:0:0:1", "192.0.2.1", 0 }
    };

    EACH(rows, i) {
        empm__peer a, b;
        context("%s %s", rows[i].a, rows[i].b);
        peer_of(&a, rows[i].a);
        peer_of(&b, rows[i].b);
        CHECK_INT(empm__counts_key(&a) == empm__counts_key(&b), rows[i].same);
    }
}

/* The table of peers counts as a plain array of counters does, in whatever
 * order connections come and go. */
TEST(peer, counts_against_the_naive_truth)
{
    enum { PEERS = 40, MOST = 64 };
    empm__counts t;
    empm__peer p[PEERS], nobody;
    int open[PEERS], all = 0, i, step;
    uint32_t seed = 1;

    memset(&t, 0, sizeof t);
    memset(open, 0, sizeof open);
    CHECK_INT(empm__counts_init(&t, MOST), EMPM_OK);
    empm__peer_set(&nobody, EMPM__PEER_UNIX, NULL, 0);
    for (i = 0; i < PEERS; i++) {
        unsigned char addr[16];
        memset(addr, 0, sizeof addr);
        addr[i % 2 ? 7 : 3] = (unsigned char)(i / 2);
        empm__peer_set(&p[i], i % 2 ? EMPM__PEER_IPV6 : EMPM__PEER_IPV4, addr,
                       1);
    }
    for (step = 0; step < 200000; step++) {
        seed = seed * 1664525u + 1013904223u;
        i = (int)(seed >> 8) % PEERS;
        if (seed >> 31 && all < MOST) {
            if (!CHECK_INT(empm__counts_add(&t, &p[i], 3), open[i] < 3))
                break;
            all += open[i] < 3;
            open[i] += open[i] < 3;
        } else if (open[i] > 0) {
            empm__counts_drop(&t, &p[i]);
            open[i]--;
            all--;
        }
        if (step % 1000 == 0) {      /* another table: another order */
            int k, found = 0;
            for (k = 0; k < PEERS; k++)
                if (!CHECK_INT(t.slots[empm__counts_find(
                        &t, empm__counts_key(&p[k]))].open, open[k]))
                    return;
            for (k = 0; k <= (int)t.mask; k++)
                found += (int)t.slots[k].open;
            CHECK_INT(found, all);
        }
        CHECK(empm__counts_add(&t, &nobody, 0));
        empm__counts_drop(&t, &nobody);
    }
    empm__counts_free(&t);
}

/* Connects from another address of the loopback network. */
static int connect_from(client *c, const fixture *f, const char *from)
{
    struct sockaddr_in a;

    cl_init(c);
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    inet_pton(AF_INET, from, &a.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || bind(c->fd, (struct sockaddr *)&a, sizeof a) != 0)
        return -1;
    a.sin_port = htons((uint16_t)f->port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(c->fd, (struct sockaddr *)&a, sizeof a);
}

/* A peer that has MaxConnectionsPerPeer connections gets no more until one of
 * them ends; other peers notice nothing. */
SERVED(peer, nobody_takes_more_than_a_share,
       LONG_TIMES "MaxConnectionsPerPeer 4")
{
    client cs[4], d, over[50];
    int i;

    for (i = 0; i < 4; i++) {
        cl_open(&cs[i], f);
        check_in_step(&cs[i]);
    }
    for (i = 0; i < 50; i++)             /* over it: closed, no word, no spin */
        cl_open(&over[i], f);
    for (i = 0; i < 50; i++) {
        CHECK_INT(cl_end(&over[i], PATIENCE), CL_FIN);
        cl_close(&over[i]);
    }
    if (!f->forked)                       /* the FIN comes before the count */
        CHECK_SOON(empm__load(&f->s->engine.score->refused) == 50, 8000);
    CHECK_SOON(fx_log_lines(f, "EMPM5306: 127.0.0.1 ") == 1, 8000);
    if (CHECK_INT(connect_from(&d, f, "127.0.0.2"), 0))
        check_in_step(&d);               /* somebody else is not affected */
    for (i = 0; i < 4; i++)
        check_in_step(&cs[i]);
    cl_close(&cs[2]);                     /* what is closed may come again */
    for (i = 0; i < 2000; i++) {
        int ok;
        cl_open(&cs[2], f);
        ok = cl_get(&cs[2], "/hello") == 200;
        if (ok)
            break;
        cl_close(&cs[2]);
        nap(1);
    }
    check_in_step(&cs[2]);
    cl_close_all(cs, 4);
    cl_close(&d);
}

/* A client with one connection at a time never has two, however late the server
 * closes the last one. */
SERVED(peer, what_the_client_has_left_does_not_count,
       LONG_TIMES "MaxConnectionsPerPeer 1")
{
    static const char *const requests[] = {
        "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"
    };
    int i, answered = 0;

    for (i = 0; i < 150; i++) {
        cl_puts(c, requests[i % 3]);
        answered += cl_reply(c) > 0;
        if (i % 3 == 0)
            cl_drain(c, PATIENCE);
        cl_close(c);
    }
    CHECK_INT(answered, 150);
    CHECK(!fx_log_has(f, "EMPM5306"));
}

/* One that is closed gives its place before one that is kept alive has to. */
SERVED(peer, what_is_closed_makes_room_first,
       LONG_TIMES "MaxOpenConnections 2")
{
    client kept;
    int i;

    cl_open(&kept, f);
    check_in_step(&kept);
    for (i = 0; i < 10; i++) {
        CHECK_INT(cl_get(c, "/hello"), 200);
        cl_close(c);
        nap(SCALED(10));
    }
    check_in_step(&kept);
    CHECK(!fx_log_has(f, "EMPM5009"));
    cl_close(&kept);
}

/* However a connection ends, its peer's count goes back. */
SERVED_HERE(peer, every_end_of_a_connection_returns_its_place,
            "MaxConnectionsPerPeer 50; KeepAliveTimeout 30ms; "
            "RequestReadTimeout header=30ms")
{
    int i;

    for (i = 0; i < 200; i++) {
        if (i % 20 == 0)                 /* not all at a time */
            CHECK_SOON(empm__load(&f->s->engine.score->connections) < 20, 3000);
        cl_open(c, f);
        switch (i % 5) {
        case 0: cl_get(c, "/hello");                        break;
        case 1: cl_puts(c, "GET /h");                       break;
        case 2: cl_puts(c, "nonsense\r\n\r\n");             break;
        case 3: cl_get(c, "/hello"); cl_reset(c);          break;
        }
        if (i % 5 != 3 && i % 2)
            cl_drain(c, PATIENCE);
        cl_close(c);
    }
    CHECK_SOON(empm__load(&f->s->engine.score->connections) == 0, 5000);
    CHECK_INT(empm__load(&f->s->engine.score->refused), 0);
}

/* ---------------------------------------------------------------------------
 * >>proxy -- headers, lists of the trusted, who the client is
 * ------------------------------------------------------------------------- */

static int connect_unix(client *c, const char *path);

#define SIG "\r\n\r\n\0\r\nQUIT\n"
#define V4  "\xc0\0\2\1\xc6\x33\x64\7\x12\x67\0\x50"
#define A6  "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0"
#define V6  A6 "\1" A6 "\2\x12\x67\0\x50"
#define M4  "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\1" A6 "\2\x12\x67\0\x50"
#define X54 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define U216 X54 X54 X54 X54

typedef struct proxy_row {
    const char *what, *in;
    size_t      len;
    long        want;               /* the header's length; -1: bad; 0: more */
    const char *peer;               /* "": it names none */
} proxy_row;

#define PROXY(what, in, want, peer) { what, in, sizeof in - 1, want, peer }
static const proxy_row proxy_rows[] = {
    PROXY("v1", "PROXY TCP4 192.0.2.1 198.51.100.7 4711 80\r\nGET", 43,
          "192.0.2.1:4711"),
    PROXY("v1 IPv6", "PROXY TCP6 2001:db8::1 ::1 4711 80\r\n", 36,
          "[2001:db8::1]:4711"),
    PROXY("v1 mapped", "PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 80\r\n", 41,
          "192.0.2.1:4711"),
    PROXY("v1 longest", "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
          "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", 104,
          "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
    PROXY("v1 port 0", "PROXY TCP4 1.2.3.4 5.6.7.8 0 0\r\n", 32, "1.2.3.4:0"),
    PROXY("v1 UNKNOWN", "PROXY UNKNOWN\r\n", 15, ""),
    PROXY("v1 UNKNOWN with a rest", "PROXY UNKNOWN a:b whatever 1 2 3 4\r\n",
          36, ""),
    PROXY("v1 UNKNOWN of 107", "PROXY "
          "UNKNOWN " X54 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", 107, ""),
    PROXY("v1 of 108", "PROXY UNKNOWN " X54 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
          "xxxxxxxxx\r\n", -1, ""),
    PROXY("v1 no end", "PROXY UNKNOWN " X54 X54 X54, -1, ""),
    PROXY("v1 cut", "PROXY TCP4 192.0.2.1 198.51.100.7 4711 80\r", 0, ""),
    PROXY("v1 bare LF", "PROXY TCP4 192.0.2.1 198.51.100.7 4711 80\n", -1, ""),
    PROXY("v1 bare CR", "PROXY TCP4 192.0.2.1 198.51.100.7 4711 80\rX", -1, ""),
    PROXY("v1 CR CR LF", "PROXY UNKNOWN\r\r\n", -1, ""),
    PROXY("v1 NUL", "PROXY TCP4 192.0.2.1\0 198.51.100.7 4711 80\r\n", -1, ""),
    PROXY("v1 two spaces", "PROXY TCP4  192.0.2.1 198.51.100.7 4711 80\r\n", -1,
          ""),
    PROXY("v1 space at the end", "PROXY TCP4 1.2.3.4 5.6.7.8 4711 80 \r\n", -1,
          ""),
    PROXY("v1 tab", "PROXY TCP4 1.2.3.4\t5.6.7.8 4711 80\r\n", -1, ""),
    PROXY("v1 too few", "PROXY TCP4 1.2.3.4 5.6.7.8 4711\r\n", -1, ""),
    PROXY("v1 too many", "PROXY TCP4 1.2.3.4 5.6.7.8 4711 80 1\r\n", -1, ""),
    PROXY("v1 nothing", "PROXY \r\n", -1, ""),
    PROXY("v1 no family", "PROXY TCP5 1.2.3.4 5.6.7.8 4711 80\r\n", -1, ""),
    PROXY("v1 lower case", "proxy TCP4 1.2.3.4 5.6.7.8 4711 80\r\n", -1, ""),
    PROXY("v1 UDP", "PROXY UDP4 1.2.3.4 5.6.7.8 4711 80\r\n", -1, ""),
    PROXY("v1 UNKNOWNS", "PROXY UNKNOWNS\r\n", -1, ""),
    PROXY("v1 wrong family", "PROXY TCP4 2001:db8::1 ::1 4711 80\r\n", -1, ""),
    PROXY("v1 wrong family 6", "PROXY TCP6 1.2.3.4 5.6.7.8 4711 80\r\n", -1,
          ""),
    PROXY("v1 mixed", "PROXY TCP4 1.2.3.4 ::1 4711 80\r\n", -1, ""),
    PROXY("v1 short address", "PROXY TCP4 1.2.3 5.6.7.8 4711 80\r\n", -1, ""),
    PROXY("v1 octal", "PROXY TCP4 01.2.3.4 5.6.7.8 4711 80\r\n", -1, ""),
    PROXY("v1 256", "PROXY TCP4 1.2.3.256 5.6.7.8 4711 80\r\n", -1, ""),
    PROXY("v1 scope", "PROXY TCP6 fe80::1%lo ::1 4711 80\r\n", -1, ""),
    PROXY("v1 brackets", "PROXY TCP6 [::1] [::1] 4711 80\r\n", -1, ""),
    PROXY("v1 host", "PROXY TCP4 localhost 5.6.7.8 4711 80\r\n", -1, ""),
    PROXY("v1 port", "PROXY TCP4 1.2.3.4 5.6.7.8 65536 80\r\n", -1, ""),
    PROXY("v1 port 2", "PROXY TCP4 1.2.3.4 5.6.7.8 4711 99999999\r\n", -1, ""),
    PROXY("v1 port -", "PROXY TCP4 1.2.3.4 5.6.7.8 -1 80\r\n", -1, ""),
    PROXY("v1 port 080", "PROXY TCP4 1.2.3.4 5.6.7.8 4711 080\r\n", -1, ""),
    PROXY("v1 no port", "PROXY TCP4 1.2.3.4 5.6.7.8  80\r\n", -1, ""),
    PROXY("PUT", "PUT / HTTP/1.1\r\n\r\n", -1, ""),
    PROXY("GET", "GET / HTTP/1.1\r\n\r\n", -1, ""),
    PROXY("TLS", "\x16\3\1\2\0\1\0\1", -1, ""),
    PROXY("CRLF", "\r\nGET / HTTP/1.1\r\n\r\n", -1, ""),

    PROXY("v2", SIG "\x21\x11\0\x0c" V4 "GET", 28, "192.0.2.1:4711"),
    PROXY("v2 IPv6", SIG "\x21\x21\0\x24" V6, 52, "[2001:db8::1]:4711"),
    PROXY("v2 mapped", SIG "\x21\x21\0\x24" M4, 52, "192.0.2.1:4711"),
    PROXY("v2 DGRAM", SIG "\x21\x12\0\x0c" V4, 28, "192.0.2.1:4711"),
    PROXY("v2 unix", SIG "\x21\x31\0\xd8" U216, 232, "unix:"),
    PROXY("v2 TLV", SIG "\x21\x11\0\x11" V4 "\4\0\2ab", 33, "192.0.2.1:4711"),
    PROXY("v2 TLVs still to come", SIG "\x21\x11\xff\xff" V4 "\4", 65551,
          "192.0.2.1:4711"),
    PROXY("v2 LOCAL", SIG "\x20\0\0\0", 16, ""),
    PROXY("v2 LOCAL with an address", SIG "\x20\x11\0\x0c" V4, 28, ""),
    PROXY("v2 LOCAL with anything", SIG "\x20\xff\0\3abc", 19, ""),
    PROXY("v2 UNSPEC", SIG "\x21\0\0\0", 16, ""),
    PROXY("v2 UNSPEC with TLVs", SIG "\x21\0\0\5\4\0\2ab", 21, ""),
    PROXY("v2 UNSPEC protocol", SIG "\x21\x10\0\x0c" V4, 28, ""),
    PROXY("v2 UNSPEC family", SIG "\x21\1\0\0", 16, ""),
    PROXY("v2 cut", SIG "\x21\x11\0\x0c" "\xc0\0\2\1\xc6\x33\x64\7\x12\x67\0",
          0, ""),
    PROXY("v2 cut length", SIG "\x21\x11\0", 0, ""),
    PROXY("v2 too short", SIG "\x21\x11\0\x0b" V4, -1, ""),
    PROXY("v2 no address", SIG "\x21\x11\0\0" V4, -1, ""),
    PROXY("v2 too short for IPv6", SIG "\x21\x21\0\x0c" V4, -1, ""),
    PROXY("v2 too short for IPv6 by one", SIG "\x21\x21\0\x23" V6, -1, ""),
    PROXY("v2 too short for unix", SIG "\x21\x31\0\xd7" U216, -1, ""),
    PROXY("v2 family", SIG "\x21\x41\0\x0c" V4, -1, ""),
    PROXY("v2 protocol", SIG "\x21\x13\0\x0c" V4, -1, ""),
    PROXY("v2 version 1", SIG "\x11\x11\0\x0c" V4, -1, ""),
    PROXY("v2 version 3", SIG "\x31\x11\0\x0c" V4, -1, ""),
    PROXY("v2 command", SIG "\x22\x11\0\x0c" V4, -1, ""),
    PROXY("v2 signature", "\r\n\r\n\0\r\nQUIT\r" "\x21\x11\0\x0c" V4, -1, "")
};
#define PROXY_ROWS (sizeof proxy_rows / sizeof proxy_rows[0])

/* The verdict on in[0..n), its last byte before a page that nobody may
 * touch. */
static long proxy_verdict(const char *in, size_t n, empm__peer *p)
{
    char *m = guarded(n);
    long r;

    memcpy(m, in, n);
    memset(p, 0, sizeof *p);
    r = empm__proxy_parse(p, m, n);
    guarded_free(m, n);
    return r;
}

/* What is decided of a part stays decided; returns the verdict on all of it. */
static long proxy_every_part(const char *in, size_t n, empm__peer *p)
{
    long r, first = 0;
    size_t k;

    for (k = 1; k <= n; k++) {
        r = proxy_verdict(in, k, p);
        if (first == 0)
            first = r;
        if (r != first) {
            fail(__FILE__, __LINE__, "%ld at %lu, %ld before", r,
                 (unsigned long)k, first);
            break;
        }
        if (r <= 0 && p->family != EMPM__PEER_UNASKED)
            fail(__FILE__, __LINE__, "a peer of a header that is not there");
    }
    return first;
}

/* Both versions of the PROXY header follow their specification. Every prefix
 * of a header asks for more, so that each cut is tested. */
TEST(proxy, grammar)
{
    char text[96];
    empm__peer p;
    size_t i;

    for (i = 0; i < PROXY_ROWS; i++) {
        const proxy_row *r = &proxy_rows[i];
        context("%s", r->what);
        CHECK_INT(proxy_every_part(r->in, r->len, &p), r->want);
        if (r->want > 0 && r->peer[0] != 0)
            CHECK_STR(empm__peer_text(&p, 1, text, sizeof text), r->peer);
        else
            CHECK_INT(p.family, EMPM__PEER_UNASKED);
        CHECK_INT(p.proxied,
                  r->want <= 0 || strstr(r->what, "LOCAL") ? EMPM__PROXIED_NOT
                  : r->peer[0] == 0 || strcmp(r->peer, "unix:") == 0
                      ? EMPM__PROXIED_NAMELESS : EMPM__PROXIED);
    }
}

/* A header may name no address, or a unix socket of the proxy's machine.
 * Neither is one of our proxies, and X-Forwarded-For of neither is believed. */
TEST(proxy, nameless_peers_are_not_trusted)
{
    static const char *const with[] = {
        "PROXY UNKNOWN\r\n", SIG "\x21\0\0\0", SIG "\x21\x31\0\xd8" U216,
        SIG "\x20\0\0\0"               /* LOCAL: the proxy itself */
    };
    static const size_t bytes[] = { 15, 16, 232, 16 };
    empm__net local;
    empm__nets nets;

    nets.list = &local;
    nets.n = 1;
    CHECK(empm__proxy_net_parse(&local, "127.0.0.1", 9));
    EACH(with, i) {
        static const unsigned char lo[4] = { 127, 0, 0, 1 };
        empm__peer p;
        context("%lu", (unsigned long)i);
        empm__peer_set(&p, EMPM__PEER_IPV4, lo, 80);
        CHECK(empm__proxy_trusts(&nets, &p));
        CHECK_INT(empm__proxy_parse(&p, with[i], bytes[i]), (long)bytes[i]);
        CHECK_INT(empm__proxy_trusts(&nets, &p), i == 3);
    }
}

/* No mutation of a header makes the parser read a byte beyond it. */
TEST(proxy, mutations)
{
    uint32_t seed = 12345;
    int round;

    for (round = 0; round < 3000; round++) {
        const proxy_row *r = &proxy_rows[(unsigned)round % PROXY_ROWS];
        char in[300];
        empm__peer p;
        size_t n = r->len, k, times;
        long got;
        memcpy(in, r->in, n);
        for (times = 1 + (unsigned)round / 7 % 3; times > 0; times--) {
            seed = seed * 1664525u + 1013904223u;
            k = (seed >> 8) % n;
            switch (seed >> 30) {
            case 0: in[k] = (char)(seed >> 16);              break;
            case 1: in[k] = (char)(in[k] ^ 1 << seed / 65536 % 8); break;
            case 2: n = k + 1;                               break;
            case 3: memmove(in + k, in + k + 1, n - k - 1);
                    n -= n > 1;                              break;
            }
        }
        context("%s, round %d", r->what, round);
        got = round % 10 == 0 ? proxy_every_part(in, n, &p)
                              : proxy_verdict(in, n, &p);
        CHECK_IN(got, -1, 65551);
        if (got > 0 && in[0] == 'P')
            CHECK(got <= 107 && (size_t)got <= n && in[got - 1] == '\n');
        if (got > 0 && p.family != EMPM__PEER_UNASKED)
            CHECK(p.proxied);
    }
}

/* RemoteIPTrustedProxy takes addresses and networks of both families; a text
 * that is no network ends the start. */
TEST(proxy, networks)
{
    static const struct { const char *list, *in, *out; } good[] = {
        { "192.0.2.1", "192.0.2.1", "192.0.2.2" },
        { "10.0.0.0/8", "10.255.0.1", "11.0.0.0" },
        { "10.1.2.3/8", "10.9.9.9", "9.0.0.0" },
        { "10.0.0.0/255.0.0.0", "10.9.9.9", "11.0.0.0" },
        { "192.0.2.64/255.255.255.192", "192.0.2.127", "192.0.2.128" },
        { "0.0.0.0/0.0.0.0", "8.8.8.8", "2001:db8::1" },
        { "192.0.2.128/25", "192.0.2.129", "192.0.2.127" },
        { "192.0.2.64/26", "192.0.2.127", "192.0.2.128" },
        { "0.0.0.0/0", "8.8.8.8", "2001:db8::1" },
        { "::/0", "2001:db8::1", "8.8.8.8" },
        { "2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1" },
        { "2001:db8::1", "2001:db8::1", "2001:db8::2" },
        { "::ffff:10.0.0.0/104", "10.1.1.1", "11.1.1.1" },
        { "::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2" },
        { " 192.0.2.1,\t2001:db8::/32 , 10.0.0.0/8 ", "10.1.1.1", "192.0.2.2" },
        { "", "unix:", "192.0.2.1" }
    };
    static const char *const bad[] = {
        "a", "192.0.2", "192.0.2.1/33", "192.0.2.1/", "192.0.2.1/-1", "::1/129",
        "192.0.2.1/8x", "192.0.2.1:80", "[::1]", "::ffff:10.0.0.0/95",
        "192.0.2.0/255.0.255.0", "192.0.2.0/::", "10.0.0.0/8 x", "/8",
        "192.0.2.0/24/8"
    };

    EACH(good, i) {
        empm_config cfg = empm_defaults();
        empm__report rep;
        empm__nets t;
        empm__peer p;
        context("%s", good[i].list);
        memset(&rep, 0, sizeof rep);
        cfg.remote_ip_trusted_proxy[0] = good[i].list;
        CHECK_INT(empm__proxy_nets_init(&t, &cfg, &rep), EMPM_OK);
        CHECK_INT(rep.errors, 0);
        peer_of(&p, good[i].in);
        CHECK(empm__proxy_trusts(&t, &p));
        peer_of(&p, good[i].out);
        CHECK(!empm__proxy_trusts(&t, &p));
        empm__proxy_nets_free(&t);
    }
    EACH(bad, i) {
        fixture f;
        context("%s", bad[i]);
        fx_init(&f);
        f.cfg.remote_ip_trusted_proxy[0] = bad[i];
        CHECK_INT(empm_start(&f.cfg, &f.s), EMPM_EINVAL);
        CHECK(fx_log_has(&f, "EMPM5301: RemoteIPTrustedProxy "));
        fx_close_files(&f);
    }
    {
        fixture f;
        context("RemoteIPHeader");
        fx_init(&f);
        f.cfg.remote_ip_header = "X Forwarded";
        CHECK_INT(empm_start(&f.cfg, &f.s), EMPM_EINVAL);
        CHECK(fx_log_has(&f, "EMPM5302: "));
        fx_close_files(&f);
    }
}

/* The field is followed from the right, as far as the addresses are trusted;
 * an element that is no address ends the walk. */
TEST(proxy, forwarded_for)
{
    static const struct { const char *peer, *value, *client; } rows[] = {
        { "10.0.0.1", "192.0.2.1", "192.0.2.1" },
        { "192.0.2.9", "192.0.2.1", "192.0.2.9" },       /* anybody */
        { "10.0.0.1", "192.0.2.1, 192.0.2.2", "192.0.2.2" },  /* forged left */
        { "10.0.0.1", "192.0.2.1, 10.0.0.3,10.0.0.2", "192.0.2.1" },
        { "10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3" },
        { "10.0.0.1", "2001:db8::1, 10.0.0.2", "2001:db8::1" },
        { "10.0.0.1", "  192.0.2.1\t,\t10.0.0.2  ", "192.0.2.1" },
        { "10.0.0.1", "192.0.2.1,, ,10.0.0.2,", "192.0.2.1" },
        { "10.0.0.1", "192.0.2.1:4711", "192.0.2.1" },
        { "10.0.0.1", "[2001:db8::1]", "2001:db8::1" },
        { "10.0.0.1", "[2001:db8::1]:80", "2001:db8::1" },
        { "10.0.0.1", "::ffff:192.0.2.1", "192.0.2.1" },
        { "10.0.0.1", "192.0.2.1, ::ffff:10.0.0.2", "192.0.2.1" },
        { "10.0.0.1", "192.0.2.1, unknown", "10.0.0.1" },
        { "10.0.0.1", "192.0.2.1, x, 10.0.0.2", "10.0.0.2" },
        { "10.0.0.1", "192.0.2.1, unix:", "10.0.0.1" },
        { "10.0.0.1", "192.0.2.256", "10.0.0.1" },
        { "10.0.0.1", "192.0.2.1:", "10.0.0.1" },
        { "10.0.0.1", "192.0.2.1:65536", "10.0.0.1" },
        { "10.0.0.1", "[192.0.2.1]", "10.0.0.1" },
        { "10.0.0.1", "[2001:db8::1", "10.0.0.1" },
        { "10.0.0.1", "[2001:db8::1]80", "10.0.0.1" },
        { "10.0.0.1", "[]", "10.0.0.1" },
        { "10.0.0.1", "[", "10.0.0.1" },
        { "10.0.0.1", ":", "10.0.0.1" },
        { "10.0.0.1", "\"192.0.2.1\"", "10.0.0.1" },
        { "10.0.0.1", "\"192.0.2.1, 192.0.2.2", "192.0.2.2" }, /* hides none */
        { "10.0.0.1", "192.0.2.1 192.0.2.2", "10.0.0.1" },
        { "10.0.0.1", "1111111111111111111111111111111111111111111111111111",
          "10.0.0.1" },
        { "10.0.0.1", "", "10.0.0.1" },
        { "10.0.0.1", ",", "10.0.0.1" },
        { "unix:", "192.0.2.1", "192.0.2.1" },
        { "2001:db8:1::1", "192.0.2.1", "192.0.2.1" }
    };
    empm_config cfg = empm_defaults();
    empm__report rep;
    empm__nets t;

    memset(&rep, 0, sizeof rep);
    cfg.remote_ip_trusted_proxy[0] = "10.0.0.0/8";
    cfg.remote_ip_trusted_proxy[1] = "2001:db8:1::/48";
    CHECK_INT(empm__proxy_nets_init(&t, &cfg, &rep), EMPM_OK);
    EACH(rows, i) {
        empm__peer p;
        context("%s: %s", rows[i].peer, rows[i].value);
        peer_of(&p, rows[i].peer);
        empm__proxy_follow(&t, &p, rows[i].value);
        CHECK_STR(peer_text(&p), rows[i].client);
    }
    empm__proxy_nets_free(&t);
}

/* Who asks? "peer client", the peer's port replaced by P if it is the
 * socket's. */
static const char *who(client *c, const char *fields)
{
    static char text[200];
    char *at;

    cl_printf(c, "GET /who HTTP/1.1\r\nHost: a\r\n%s\r\n", fields);
    if (cl_reply(c) != 200)
        return "no answer";
    snprintf(text, sizeof text, "%s", c->body.p);
    if (strncmp(text, "127.0.0.1:", 10) == 0 &&
        (at = strchr(text, ' ')) != NULL)
        memmove(text + 10, at, strlen(at) + 1);
    return text;
}

/* The field of a trusted peer names the client for its own request only; the
 * field of any other peer is ignored. */
LIVE(proxy, forwarded_for_over_the_wire)
{
    int trusted;

    for (trusted = 0; trusted < 2; trusted++) {
        fixture f;
        client c;
        fx_init(&f);
        f.cfg.remote_ip_header = "X-Forwarded-For";
        if (trusted)
            f.cfg.remote_ip_trusted_proxy[0] = "127.0.0.0/8 10.0.0.0/8";
        if (!fx_up(&f))
            return;
        cl_open(&c, &f);
        CHECK_STR(who(&c, ""), "127.0.0.1: 127.0.0.1");
        CHECK_STR(who(&c, "X-Forwarded-For: 192.0.2.1\r\n"),
                  trusted ? "127.0.0.1: 192.0.2.1" : "127.0.0.1: 127.0.0.1");
        CHECK_STR(who(&c, "x-FORWARDED-for: 192.0.2.7, 192.0.2.1\r\n"
                      "X-Other: 192.0.2.8\r\nX-Forwarded-For: 10.0.0.1,\r\n"),
                  trusted ? "127.0.0.1: 192.0.2.1" : "127.0.0.1: 127.0.0.1");
        CHECK_STR(who(&c, "X-Forwarded-For: 192.0.2.1\r\n"
                      "X-Forwarded-For: what?\r\n"), "127.0.0.1: 127.0.0.1");
        CHECK_STR(who(&c, ""), "127.0.0.1: 127.0.0.1");
        cl_close(&c);
        fx_down(&f);
    }
}

#define P1 "PROXY TCP4 192.0.2.1 198.51.100.7 4711 80\r\n"
#define WHO "GET /who HTTP/1.1\r\nHost: a\r\n\r\n"

#define SERVED_PROXY(section, name, settings)                                 \
    SERVED_WITH(section, name, T_LIVE,                                        \
                fx_init(f); f->options = " proxy", settings)

/* A PROXY header names the client of all requests of its connection, wherever
 * it is cut; a second header is a bad request. LOCAL and UNKNOWN keep the
 * peer's own address. */
SERVED_PROXY(proxy, header_then_requests, NULL)
{
    static const char v2[] = SIG "\x21\x21\0\x24" V6 WHO WHO;
    size_t cut;
    int i;

    cl_open(c, f);                    /* all of it in one segment */
    cl_puts(c, P1 WHO WHO);
    for (i = 0; i < 2; i++) {
        CHECK_INT(cl_reply(c), 200);
        CHECK_STR(c->body.p, "192.0.2.1:4711 192.0.2.1");
    }
    CHECK_STR(who(c, ""), "192.0.2.1:4711 192.0.2.1");
    cl_puts(c, P1);                    /* only once, and only first */
    CHECK_INT(cl_reply(c), 400);
    cl_close(c);
    for (cut = 0; cut + 1 < sizeof v2; cut++)
        cl_send(c, v2 + cut, 1);
    for (i = 0; i < 2; i++) {
        CHECK_INT(cl_reply(c), 200);
        CHECK_STR(c->body.p, "[2001:db8::1]:4711 2001:db8::1");
    }
    cl_close(c);
    for (cut = 1; cut < 56; cut++) {    /* at every point of the header */
        context("cut at %lu", (unsigned long)cut);
        cl_send(c, v2, cut);
        cl_readable(c, 1);
        cl_send(c, v2 + cut, sizeof v2 - 1 - cut);
        CHECK_INT(cl_reply(c), 200);
        CHECK_STR(c->body.p, "[2001:db8::1]:4711 2001:db8::1");
        cl_close(c);
    }
    no_context();
    /* LOCAL, UNSPEC: a balancer's own checks */
    cl_send(c, SIG "\x20\0\0\0" , 16);
    CHECK_STR(who(c, ""), "127.0.0.1: 127.0.0.1");
    cl_close(c);
    cl_send(c, SIG "\x21\0\0\5\4\0\2ab", 21);
    CHECK_STR(who(c, ""), "127.0.0.1: 127.0.0.1");
    cl_close(c);
    cl_puts(c, "PROXY UNKNOWN\r\n");
    CHECK_STR(who(c, ""), "127.0.0.1: 127.0.0.1");
    cl_close(c);
    cl_send(c, SIG "\x21\x31\0\xd8" U216, 232);
    CHECK_STR(who(c, ""), "unix: unix:");
}

/* A header with more TLVs than a buffer holds is skipped as it comes. */
SERVED_PROXY(proxy, long_tlvs, NULL)
{
    static const size_t sizes[] = { 5000, 6000, 60000, 65535 - 12 };
    size_t k;
    str s = STR_EMPTY;

    cl_open(c, f);                    /* the log believes no half a header */
    cl_send(c, SIG "\x21\x11\0\x11" V4, 28);
    nap(5);
    cl_shut(c);
    CHECK_IN(cl_drain(c, PATIENCE), CL_FIN, CL_RESET);
    CHECK_INT(fx_log_lines(f, "] EMPM5304: "), 1);
    cl_close(c);
    EACH(sizes, i) {
        const unsigned len = (unsigned)sizes[i] + 12;
        char head[16];
        context("%lu", (unsigned long)sizes[i]);
        memcpy(head, SIG "\x21\x11", 14);
        head[14] = (char)(len >> 8);
        head[15] = (char)len;
        s.n = 0;
        str_add(&s, head, 16);
        str_add(&s, V4, 12);
        str_fill(&s, 'G', sizes[i]);
        str_addf(&s, WHO WHO);
        for (k = 0; k < 2; k++) {
            size_t at = 0;
            cl_open(c, f);
            if (k == 1)                 /* in pieces, with pauses */
                for (; at + 20000 < s.n; at += 20000) {
                    cl_send(c, s.p + at, 20000);
                    nap(2);
                }
            cl_send(c, s.p + at, s.n - at);
            CHECK_INT(cl_reply(c), 200);
            CHECK_STR(c->body.p, "192.0.2.1:4711 192.0.2.1");
            CHECK_INT(cl_reply(c), 200);
            CHECK_STR(who(c, ""), "192.0.2.1:4711 192.0.2.1");
            cl_close(c);
        }
    }
    str_free(&s);
}

/* A proxy listener closes a connection without a good PROXY header and sends
 * not a byte. */
SERVED_PROXY(proxy, without_a_header_no_answer, NULL)
{
    static const char *const in[] = {
        "GET /who HTTP/1.1\r\nHost: a\r\n\r\n", "PROXY\r\n", "PROXY TCP4 x\r\n",
        "\r\n\r\nGET", "x"
    };
    size_t i;

    for (i = 0; i < 20; i++) {
        cl_puts(c, in[i % 5]);
        CHECK_IN(cl_drain(c, PATIENCE), CL_FIN, CL_RESET);
        CHECK_INT(c->in.n, 0);
        cl_close(c);
    }
    cl_open(c, f);                    /* cut, and no more to come */
    cl_puts(c, "PROXY TCP4 192.0.2.1 ");
    cl_shut(c);
    CHECK_FIN(c);
    cl_close(c);
    /* somebody looks whether we are there */
    cl_open(c, f);
    cl_shut(c);
    CHECK_FIN(c);
    cl_close(c);
    CHECK_INT(fx_log_lines(f, "[client 127.0.0.1:"), 10);
    CHECK(fx_log_has(f, "] EMPM5304: on Listen "));
    if (!f->forked) {
        uint32_t refused = 0;
        int k;
        for (k = 0; k < f->s->engine.nworkers; k++)
            refused += empm__load(
                &f->s->engine.workers[k].score->proxy_refused);
        CHECK_INT(refused, 21);
    }
}

/* A PROXY header that comes slowly, or not at all, holds no worker and ends
 * with the header timeout. */
SERVED_PROXY(proxy, a_slow_header_holds_no_worker_and_ends_in_time,
             LONG_TIMES "ThreadsPerChild 1; RequestReadTimeout header=600ms")
{
    client cs[20], d;
    uint64_t t0;
    int i, round;

    t0 = now_ms();
    for (i = 0; i < 20; i++)
        cl_open(&cs[i], f);             /* c[0] to c[9] never send a byte */
    for (round = 0; round < 5; round++) {
        for (i = 10; i < 20; i++)
            cl_send(&cs[i], P1 + round, 1);
        cl_open(&d, f);
        cl_puts(&d, P1);
        CHECK_STR(who(&d, ""), "192.0.2.1:4711 192.0.2.1");
        cl_close(&d);
        nap(20);
    }
    CHECK(now_ms() - t0 < 600);
    for (i = 0; i < 20; i++) {
        CHECK_IN(cl_drain(&cs[i], PATIENCE), CL_FIN, CL_RESET);
        CHECK_INT(cs[i].in.n, 0);
        CHECK_IN(now_ms() - t0, 580, 600 + SCALED(700));
        cl_close(&cs[i]);
    }
    cl_open(&d, f);
    cl_puts(&d, P1);
    CHECK_STR(who(&d, ""), "192.0.2.1:4711 192.0.2.1");
    cl_close(&d);
}

/* A PROXY header of an untrusted peer closes the connection; X-Forwarded-For
 * is then read as from the address that the header names. */
LIVE(proxy, only_from_trusted_peers)
{
    fixture f;
    client c;
    int trusted;

    for (trusted = 0; trusted < 2; trusted++) {
        fx_init(&f);
        f.options = " proxy";
        f.cfg.remote_ip_header = "X-Forwarded-For";
        f.cfg.remote_ip_trusted_proxy[0] = trusted ? "127.0.0.1, 10.0.0.0/8"
                                                   : "127.0.0.2/32 10.0.0.0/8";
        if (!fx_up(&f))
            return;
        cl_open(&c, &f);
        cl_puts(&c, P1 WHO);
        if (trusted) {
            CHECK_INT(cl_reply(&c), 200);
            CHECK_STR(c.body.p, "192.0.2.1:4711 192.0.2.1");
            /* the field is the client's own word now */
            CHECK_STR(who(&c, "X-Forwarded-For: 203.0.113.9\r\n"),
                      "192.0.2.1:4711 192.0.2.1");
            cl_close(&c);
            /* two proxies, the first by its field */
            cl_open(&c, &f);
            cl_puts(&c, "PROXY TCP4 10.0.0.1 198.51.100.7 4711 80\r\n");
            CHECK_STR(who(&c, "X-Forwarded-For: 203.0.113.9\r\n"),
                      "10.0.0.1:4711 203.0.113.9");
        } else {
            CHECK_IN(cl_drain(&c, PATIENCE), CL_FIN, CL_RESET);
            CHECK_INT(c.in.n, 0);
            CHECK(fx_log_has(&f, "[client 127.0.0.1:"));
            CHECK(fx_log_has(&f, "] EMPM5305: "));
        }
        cl_close(&c);
        fx_down(&f);
    }
}

/* MaxConnectionsPerPeer does not limit trusted proxies, nor proxies on a unix
 * socket. */
TEST(proxy, a_proxy_may_have_many_connections)
{
    fixture f;
    client c[6];
    char path[300], listen[340];
    int i, by_unix;

    fx_init(&f);
    f.options = " proxy";
    snprintf(listen, sizeof listen, "unix:%s proxy",
             tmp_path(path, sizeof path, "p.sock"));
    f.cfg.listen[1] = listen;
    f.cfg.remote_ip_trusted_proxy[0] = "127.0.0.1";
    f.cfg.max_connections_per_peer = 2;
    if (!fx_up(&f))
        return;
    for (by_unix = 0; by_unix < 2; by_unix++) {
        for (i = 0; i < 6; i++) {        /* a unix socket is always trusted */
            if (by_unix)
                CHECK_INT(connect_unix(&c[i], path), 0);
            else
                cl_open(&c[i], &f);
            cl_puts(&c[i], P1);
            CHECK_STR(who(&c[i], ""), "192.0.2.1:4711 192.0.2.1");
        }
        cl_close_all(c, 6);
    }
    CHECK_INT(empm__load(&f.s->engine.score->refused), 0);
    fx_down(&f);
}

/* A connection that owes its PROXY header is closed in time even while all
 * workers are busy. */
SERVED_WITH(proxy, the_listener_closes_those_without_a_byte, T_PLAIN,
            fx_init(f); f->options = " proxy",
            LONG_TIMES "ThreadsPerChild 1; RequestReadTimeout header=400ms")
{
    client d = client_of(f);

    cl_open(c, f);
    CHECK_SOON(empm__load(&f->s->engine.score->connections) == 1, 2000);
    cl_puts(&d, P1 "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_int(&shm->at_gate) == 1, 2000);
    CHECK_INT(cl_end(c, PATIENCE), CL_FIN);     /* no worker is free */
    set_int(&shm->gate, 1);
    CHECK_INT(cl_reply(&d), 200);
    cl_close(&d);
}

/* A stop closes the connections that still owe their PROXY header. */
SERVED_WITH(proxy, a_stop_ends_those_who_wait, T_PLAIN,
            fx_init(f); f->options = " proxy", LONG_TIMES "StopTimeout 300ms")
{
    client d = client_of(f);
    uint64_t t0;

    cl_open(c, f);
    cl_puts(&d, "PROXY TCP4 ");
    CHECK_SOON(empm__load(&f->s->engine.score->connections) == 2, 2000);
    nap(10);
    t0 = now_ms();
    empm_stop(f->s);
    CHECK_INT(cl_end(c, AT_ONCE), CL_FIN);
    CHECK_IN(cl_end(&d, PATIENCE), CL_FIN, CL_RESET);
    CHECK_IN(now_ms() - t0, 0, 300 + SCALED(700));
    cl_close(&d);
}

/* ---------------------------------------------------------------------------
 * >>memory -- none per request; none is no catastrophe
 * ------------------------------------------------------------------------- */

/* One round of requests of each kind; how many allocations it needed. */
static int allocations_of(const fixture *f, int kind)
{
    client c;
    int i, before;

    cl_open(&c, f);
    before = get_int(&a_calls);
    for (i = 0; i < 200; i++) {
        if (kind == 0) {
            CHECK_INT(cl_get(&c, "/hello/again"), 200);
        } else if (kind == 1) {
            cl_puts(&c, CL("5"));
            CHECK_INT(cl_reply(&c), 200);
        } else if (kind == 2) {
            CHECK_INT(cl_get(&c, "/big?bytes=30000"), 200);
        } else {
            CHECK_INT(get_status(f, "/hello"), 200);    /* a new connection */
        }
    }
    i = get_int(&a_calls) - before;
    cl_close(&c);
    return i;
}

/* Once the pools are filled, requests and connections allocate nothing. */
SERVED_HERE(memory, steady_state_allocates_nothing, "MaxKeepAliveRequests 0")
{
    static const char *const kinds[] = { "GET", "POST", "30 kB",
                                        "connections" };
    int kind, round, needed;

    /* the first rounds fill the pools; on a busy machine, where workers overlap
     * as they do not otherwise, a later one may still find a new maximum */
    for (kind = 0; kind < 4; kind++) {
        context("%s", kinds[kind]);
        needed = 1;
        for (round = 0; round < 8 && needed != 0; round++)
            needed = allocations_of(f, kind);
        CHECK_INT(needed, 0);
    }
}

/* A start in which any one allocation fails returns EMPM_ENOMEM and leaves
 * nothing behind, or serves. */
TEST(memory, start_survives_each_failing_allocation)
{
    int k, refused = 0;

    for (k = 1; k < 500; k++) {
        fixture f;
        int rc, hit;
        context("allocation %d", k);
        fx_init(&f);
        f.cfg.remote_ip_trusted_proxy[0] = "192.0.2.0/24";
        f.cfg.max_connections_per_peer = 100;
        set_int(&a_fail_at, k);
        rc = empm_start(&f.cfg, &f.s);
        hit = get_int(&a_fail_at) <= 0;
        set_int(&a_fail_at, 0);
        if (rc == EMPM_OK) {
            f.port = empm_port(f.s, 0);
            CHECK_INT(get_status(&f, "/hello"), 200);
            fx_down(&f);
        } else {
            CHECK_INT(rc, EMPM_ENOMEM);
            CHECK(f.s == NULL);
            refused++;
            fx_close_files(&f);
        }
        CHECK_INT(get_int(&a_live), 0);
        if (!hit || get_int(&g_failures) > 5)
            break;
    }
    no_context();
    CHECK(k < 500);
    CHECK(refused > 0);
}

/* One of everything; what comes back does not matter, that it ends does. */
static void battery(fixture *f)
{
    static const char *const asks[] = {
        GET1 "\r\n" GET1 "Connection: close\r\n\r\n",
        CL("5"),
        CHUNK "5;a=b\r\nhello\r\n0\r\nX-Trailer: y\r\n\r\n",
        "POST /dump/x?q=1 HTTP/1.1\r\nHost: a\r\nCookie: c=d\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        "Content-Length: 3\r\n\r\nf=g",
        "GET /big?bytes=300000 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /produce?bytes=100000 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /park?slot=1&ms=5 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /events?n=2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /file/big.bin HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /alloc HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /headers HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /server-status HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /count?slot=2 HTTP/1.1\r\nHost: a\r\nContent-Length: "
        "3\r\n\r\nabc", "GET /hello\r\n\r\n"
    };
    size_t i;
    str s;

    memset(&s, 0, sizeof s);
    put_post(&s, "/sum-any", 200000, 0, "");
    for (i = 0; i <= sizeof asks / sizeof asks[0]; i++) {
        client c;
        if (cl_open(&c, f) != 0)
            break;
        if (i == sizeof asks / sizeof asks[0])
            cl_send(&c, s.p, s.n);
        else
            cl_puts(&c, asks[i]);
        cl_shut(&c);
        if (cl_drain(&c, SCALED(3000)) == CL_TIMEOUT)
            fail(__FILE__, __LINE__, "no end: %.60s", i < 15 ? asks[i]
                                                             : "post");
        cl_close(&c);
    }
    str_free(&s);
}

static void fail_each_allocation(int step, int max)
{
    int k;

    for (k = 1; k < max; k += step) {
        fixture f;
        int hit, failures = get_int(&g_failures);
        context("allocation %d", k);
        fx_init(&f);
        f.cfg.threads_per_child = 2;
        f.cfg.max_mem_free = 1;     /* so that there is more that can fail */
        if (!fx_up(&f))
            return;
        set_int(&a_fail_at, k);
        battery(&f);
        hit = get_int(&a_fail_at) <= 0;
        set_int(&a_fail_at, 0);
        CHECK_INT(get_status(&f, "/hello"), 200);
        CHECK_INT(get_status(&f, "/big?bytes=100000"), 200);
        fx_down(&f);
        CHECK_INT(get_int(&a_live), 0);
        if (!hit || get_int(&g_failures) > failures + 5)
            break;
    }
    no_context();
}

/* Any one allocation that fails under a request costs that request at most. */
TEST(memory, requests_survive_failing_allocations)
{
    fail_each_allocation(5, 200);
}

/* Each single allocation that fails under a request costs that request at
 * most. */
LONG(memory, requests_survive_each_failing_allocation)
{
    fail_each_allocation(1, 2000);
}

/* ---------------------------------------------------------------------------
 * >>tls -- HTTPS, with a client that BearSSL makes
 *
 * The client's engine is BearSSL's, its socket is ours: what it would send can
 * be cut, held back, changed and repeated. The certificates last a century.
 * ------------------------------------------------------------------------- */

#ifdef EVENTMPM_TLS_BEARSSL

static const char pem_ec[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBpTCCAUugAwIBAgIUNqsg80Bp9bgtMqDf7OP7qqw+kXEwCgYIKoZIzj0EAwIw\n"
    "FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyOTA1NTkwNloYDzIxMjYxMTA1\n"
    "MDU1OTA2WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO\n"
    "PQMBBwNCAATyBHqxbo2dWcU76zf/1wdfWtWgXu/Ci8+UrVTqrN1Aa4BSxpbf752R\n"
    "c/zq02uDSaSYMfejURVIsRuo58UZtZIso3kwdzAdBgNVHQ4EFgQU/KeFipXmpxOt\n"
    "zUDnp9rpUSt+75IwHwYDVR0jBBgwFoAU/KeFipXmpxOtzUDnp9rpUSt+75IwDwYD\n"
    "VR0TAQH/BAUwAwEB/zAkBgNVHREEHTAbgglsb2NhbGhvc3SCDiouZXhhbXBsZS50\n"
    "ZXN0MAoGCCqGSM49BAMCA0gAMEUCIQDpFTijQVZ5RfTLbXR6rwH1NErhg/e8/INE\n"
    "GU0t6uB5QAIgei/4bN2NWHo6qnnvlO2pxsrC8JAjAiK+CphPPzC2h9o=\n"
    "-----END CERTIFICATE-----\n";

static const char pem_ec_key[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg4SOXG5XdjCX+akeO\n"
    "DSpfsyJIzXTO6ZYrBg3v7ZUrEIShRANCAATyBHqxbo2dWcU76zf/1wdfWtWgXu/C\n"
    "i8+UrVTqrN1Aa4BSxpbf752Rc/zq02uDSaSYMfejURVIsRuo58UZtZIs\n"
    "-----END PRIVATE KEY-----\n";

static const char pem_rsa[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIDLTCCAhWgAwIBAgIUbYpwCpp40EWYVfJhomdAt4GMrIQwDQYJKoZIhvcNAQEL\n"
    "BQAwFDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyOTA1NTkwN1oYDzIxMjYx\n"
    "MTA1MDU1OTA3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwggEiMA0GCSqGSIb3DQEB\n"
    "AQUAA4IBDwAwggEKAoIBAQCMz7ndQuJDqCsTQZDot6BRTD5ZFaX6O8k0s4B4honJ\n"
    "k7d8e4cNcLHrMbdi72Os1/8cPsPhAL6cA9gnfZHtr2z6KlLPK2c6j4iGB0R+LioU\n"
    "jbkTz8GcvlGr1nrQIqZpxpttr9aIcNuYDVVJWvajsjPgjo724ov2+VhskhKjst48\n"
    "ixmTVnKBGQjTux4mS6IJhy5SZ2yi8phU2iZ28+aX6gdpC5Te4EkgUg/JUw0pqTRM\n"
    "ByG4KjGaD2G2Xy/FiwQs1LwwyxGiMhylK2O3KSFmm7wVaP8prc3fXlhF27BmnvgD\n"
    "GcGFMFE/j//eaCvnfJLhPt3XvDwRd5fGf1IgZDhDTRKpAgMBAAGjdTBzMB0GA1Ud\n"
    "DgQWBBQS8Z69w8PHRSEiNhf7TH70e/qqijAfBgNVHSMEGDAWgBQS8Z69w8PHRSEi\n"
    "Nhf7TH70e/qqijAPBgNVHRMBAf8EBTADAQH/MCAGA1UdEQQZMBeCCm90aGVyLnRl\n"
    "c3SCCWxvY2FsaG9zdDANBgkqhkiG9w0BAQsFAAOCAQEAQWaPZhytBB8uftVdYsDB\n"
    "iW/9pyY1aMA15OTijgcaAzkO/DozqK+RuM/6HSF2wWY2RAtvxOemT1VeGvB2PVoN\n"
    "z6UQgk2tAu90XLYkX+pAuIXZKQC7/hbRvQscbN0YZhVhnUj+JyCPZG+A69bN/P7e\n"
    "rbymyfMROMmaqueuBrjHHPOKpCUZ3zGtB56eWMVHQ0/rsd5RX38sz73ih1nBVRpg\n"
    "HgNh/rUInLUOtO01DhiewTOaXGryzwA2+/c6+WPvRv7aprHOwOdN1wKVoBb/N3Px\n"
    "iC9ohcJUB9ae07OXnoyroZszD0ES65ndHRx9IJ+OtOG8u62qfqqXXj11E8+3MW7g\n"
    "ow==\n"
    "-----END CERTIFICATE-----\n";

static const char pem_rsa_key[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCMz7ndQuJDqCsT\n"
    "QZDot6BRTD5ZFaX6O8k0s4B4honJk7d8e4cNcLHrMbdi72Os1/8cPsPhAL6cA9gn\n"
    "fZHtr2z6KlLPK2c6j4iGB0R+LioUjbkTz8GcvlGr1nrQIqZpxpttr9aIcNuYDVVJ\n"
    "WvajsjPgjo724ov2+VhskhKjst48ixmTVnKBGQjTux4mS6IJhy5SZ2yi8phU2iZ2\n"
    "8+aX6gdpC5Te4EkgUg/JUw0pqTRMByG4KjGaD2G2Xy/FiwQs1LwwyxGiMhylK2O3\n"
    "KSFmm7wVaP8prc3fXlhF27BmnvgDGcGFMFE/j//eaCvnfJLhPt3XvDwRd5fGf1Ig\n"
    "ZDhDTRKpAgMBAAECggEAEp5W05hH5a1DQNEPEY5SHt3Hcq0HnL4x/QttBcK4TlR/\n"
    "UvDcax0HEXOp7WV81vpaa4grC0G3claZyqLyXCyxaqSU/XqeNCKNaTdlyY9eFgil\n"
    "O6bhUVHi56c85u9l9J+Dpq203qaZipHcwI3MBdoGvP7sjV1oJ1hR5k0sNMPuWa/S\n"
    "jkYuPl4WGF8AJoh+R4KGv/uPxswfGROMN1j9xgDhsdggiIUcTAw9FvNUZZ5NpP9D\n"
    "+vmFKiPBO3WHAMDGUrXffdHBwEHT+/c+brgHPvqbwPushREQLx+LA3cXi0pCeIYM\n"
    "DEiJLx4WIF0+SVVckc8dOclV4mGTWKfIvOgKtk3zeQKBgQDECk/+SfqH1hPf0air\n"
    "gTWK9b0o7T4gXTE6qF0yAfZYbqd9OUkNfbLr6yimPCTV5+ZwddTTDqDrflWe8c/H\n"
    "H9YEywLpAKaexDG1JReFXMYxm/TR06gGxE+8C5IigGjnxelxCXrkTOGmJ3y/BUMy\n"
    "QkNrpOa2YIL5rrmMTCRYdZFoVQKBgQC34RHIcHsXSgwWARJQYr8k71G/aHvpp9i9\n"
    "3yBXDfaljCEMpxfZ8tBD3xk+Dq/zaLll395WthBIxrwEmHnQgyTop2cu/zyEhGW4\n"
    "u/nUMsjFjn17ncsg7IkpvFhEIqGa35F2a7WAGgnSR1d464LHSm0jnl3ilL5ivDtA\n"
    "XZG7mprlBQKBgQCYrzt8X1v8HfUetml7Ikh0cU6hqJ1hkZO9DtJ/F14ppA1ZD5vh\n"
    "IQyQiHgBeQhrfZFR98QJmfQlViETiVx9x0LmOsOKfBJJx567aic2nHpUuxXjssjE\n"
    "dHNxj0WDD6YlFlTp0Cth0qtQwKJ9GHkslMVz+lwioWqBUt968PbB2tekfQKBgF3J\n"
    "g3t7u5zGXOHATCoKI7pgAo8haMplnQxDSUh9y8bmcVj1xRmaWpWzrjlT3nTFfoKy\n"
    "q8IIfMfR7cZeSwuKSIIOGHgFIUXqDcQqxKNx/6ucIO6zLg8t9kv+T/r4uvq2e4gu\n"
    "KdYb8dR6JOh9HygtEvuu4+4UtgLARWxwDUvl8IlNAoGAUI5WuwMrDqdAWuTLHWId\n"
    "TbZnPkohkar+ICeBuxBXJmOINrxKSawcKnZ6c0+cAgEbmulWvqj3/eV651gMGxNk\n"
    "HLxLdMNiDpPtri400E7Q3rwFD8WO8pPhc28eWu6GgKSvPyp9ZlIgvu4Bh2kzfkYu\n"
    "C53dNICk6lz97fnFatEhvDU=\n"
    "-----END PRIVATE KEY-----\n";

/* Any certificate is good; its key is taken from it. */
typedef struct tls_any {
    const br_x509_class    *is;          /* first */
    br_x509_decoder_context decoder;
    int                     certs;
} tls_any;

static void any_start_chain(const br_x509_class **ctx, const char *name)
{
    (void)name;
    ((tls_any *)(void *)(uintptr_t)ctx)->certs = 0;
}

static void any_start_cert(const br_x509_class **ctx, uint32_t n)
{
    tls_any *any = (tls_any *)(void *)(uintptr_t)ctx;
    (void)n;
    if (any->certs++ == 0)
        br_x509_decoder_init(&any->decoder, NULL, NULL);
}

static void any_append(const br_x509_class **ctx, const unsigned char *p,
                       size_t n)
{
    tls_any *any = (tls_any *)(void *)(uintptr_t)ctx;
    if (any->certs == 1)
        br_x509_decoder_push(&any->decoder, p, n);
}

static void any_end_cert(const br_x509_class **ctx)
{
    (void)ctx;
}

static unsigned any_end_chain(const br_x509_class **ctx)
{
    (void)ctx;
    return 0;
}

static const br_x509_pkey *any_get_pkey(const br_x509_class *const *ctx,
                                        unsigned *usages)
{
    tls_any *any = (tls_any *)(void *)(uintptr_t)ctx;
    if (usages != NULL)
        *usages = BR_KEYTYPE_KEYX | BR_KEYTYPE_SIGN;
    return br_x509_decoder_get_pkey(&any->decoder);
}

static const br_x509_class any_class = {
    sizeof(tls_any), any_start_chain, any_start_cert, any_append, any_end_cert,
    any_end_chain, any_get_pkey
};

typedef struct tls_client {
    client                  c;           /* its socket */
    br_ssl_client_context   ssl;
    br_x509_minimal_context unused;
    tls_any                 any;
    unsigned char           buffer[BR_SSL_BUFSIZE_BIDI];
    str                     plain;       /* what has been decrypted */
    size_t                  piece;       /* of a send(); 0: all at once */
    size_t                  longest;     /* record that has come */
    size_t                  header_n, left;   /* of the record that comes now */
    unsigned char           header[5];
} tls_client;

static const char *const only_http1[] = { "http/1.1" };

static void tl_init(tls_client *t, const fixture *f)
{
    memset(t, 0, sizeof *t);
    t->c = client_of(f);
    br_ssl_client_init_full(&t->ssl, &t->unused, NULL, 0);
    t->any.is = &any_class;
    br_ssl_engine_set_x509(&t->ssl.eng, &t->any.is);
    br_ssl_engine_set_versions(&t->ssl.eng, BR_TLS12, BR_TLS12);
    br_ssl_engine_set_buffer(&t->ssl.eng, t->buffer, sizeof t->buffer, 1);
    br_ssl_engine_set_protocol_names(
        &t->ssl.eng, (const char **)(uintptr_t)only_http1, 1);
}

static void tl_close(tls_client *t)
{
    cl_close(&t->c);
    str_free(&t->plain);
}

/* Sends all records that the engine has. */
static int tl_push(tls_client *t)
{
    br_ssl_engine_context *eng = &t->ssl.eng;
    size_t n;
    unsigned char *p;
    while ((p = br_ssl_engine_sendrec_buf(eng, &n)) != NULL) {
        if (t->piece != 0 && n > t->piece)
            n = t->piece;
        if (cl_send(&t->c, p, n) != 0)
            return 0;
        br_ssl_engine_sendrec_ack(eng, n);
    }
    return 1;
}

/* Notes how long the records are that come. */
static void tl_measure(tls_client *t, const unsigned char *p, size_t n)
{
    while (n-- > 0)
        if (t->left > 0) {
            t->left--;
            p++;
        } else {
            t->header[t->header_n++] = *p++;
            if (t->header_n == 5) {
                t->left = (size_t)t->header[3] << 8 | t->header[4];
                t->longest = t->left > t->longest ? t->left : t->longest;
                t->header_n = 0;
            }
        }
}

/* Runs until the engine can send data (`ready`), or until the plaintext ends
 * with `end`. 0: the connection is over, or 5 s are. */
static int tl_run(tls_client *t, int ready, const char *end)
{
    br_ssl_engine_context *eng = &t->ssl.eng;
    const uint64_t last = now_ms() + 5000u * (unsigned)g_slow;
    const size_t k = end != NULL ? strlen(end) : 0;
    size_t n;
    unsigned char *p;
    for (;;) {
        const unsigned state = br_ssl_engine_current_state(eng);
        if (!tl_push(t) || (state & BR_SSL_CLOSED))
            return 0;
        while ((p = br_ssl_engine_recvapp_buf(eng, &n)) != NULL) {
            str_add(&t->plain, (char *)p, n);
            br_ssl_engine_recvapp_ack(eng, n);
        }
        if (ready && (br_ssl_engine_current_state(eng) & BR_SSL_SENDAPP))
            return 1;
        if (end != NULL && t->plain.n >= k &&
            memcmp(t->plain.p + t->plain.n - k, end, k) == 0)
            return 1;
        p = br_ssl_engine_recvrec_buf(eng, &n);
        if (p == NULL)
            continue;
        if (t->c.in.n == 0 && cl_fill(&t->c, last) <= 0)
            return 0;
        n = n < t->c.in.n ? n : t->c.in.n;
        tl_measure(t, (const unsigned char *)t->c.in.p, n);
        memcpy(p, t->c.in.p, n);
        str_drop(&t->c.in, n);
        br_ssl_engine_recvrec_ack(eng, n);
    }
}

/* A handshake, or the resumption of the session that the engine has. */
static int tl_open(tls_client *t, const char *name, int resume)
{
    return br_ssl_client_reset(&t->ssl, name, resume) && tl_run(t, 1, NULL);
}

/* Another connection of the same client. */
static void tl_again(tls_client *t)
{
    const int port = t->c.port;
    cl_close(&t->c);
    t->c.port = port;
    t->plain.n = t->header_n = t->left = 0;
    br_ssl_engine_set_buffer(&t->ssl.eng, t->buffer, sizeof t->buffer, 1);
}

/* Encrypts text, in one record if it fits there. */
static void tl_send(tls_client *t, const char *text, size_t len)
{
    while (len > 0) {
        size_t n;
        unsigned char *p = br_ssl_engine_sendapp_buf(&t->ssl.eng, &n);
        if (p == NULL) {
            if (!tl_push(t) || br_ssl_engine_sendapp_buf(&t->ssl.eng, &n) ==
                                   NULL)
                return;
            continue;
        }
        n = n < len ? n : len;
        memcpy(p, text, n);
        br_ssl_engine_sendapp_ack(&t->ssl.eng, n);
        text += n;
        len -= n;
    }
    br_ssl_engine_flush(&t->ssl.eng, 0);
}

static void tl_say(tls_client *t, const char *text)
{
    tl_send(t, text, strlen(text));
}

/* Asks for a path; 1: it has been answered with `end` at the end. */
static int tl_get(tls_client *t, const char *path, const char *end)
{
    char text[300];
    const int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: a\r\n"
                           "\r\n", path);
    t->plain.n = 0;
    tl_send(t, text, (size_t)n);
    return tl_run(t, 0, end);
}

/* The certificates in files of our own. */
static int tls_files(void)
{
    static const struct { const char *name, *text; } files[] = {
        { "ec.pem", pem_ec }, { "ec.key", pem_ec_key }, { "rsa.pem", pem_rsa },
        { "rsa.key", pem_rsa_key }
    };
    char path[512];
    size_t i;
    for (i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", g_tmp, files[i].name);
        if (write_file(path, files[i].text, strlen(files[i].text)) != 0)
            return -1;
    }
    return 0;
}

static void tls_prepare(fixture *f)
{
    static char text[4][300];
    const char *const names[] = { "ec.pem", "ec.key", "rsa.pem", "rsa.key" };
    int i;
    CHECK_INT(tls_files(), 0);
    fx_init(f);
    f->options = " tls";
    for (i = 0; i < 4; i++) {
        snprintf(text[i], sizeof text[i], "%s/%s", g_tmp, names[i]);
        (i % 2 ? f->cfg.ssl_certificate_key_file
               : f->cfg.ssl_certificate_file)[i / 2] = text[i];
    }
}

#define SERVED_TLS(section, name, settings) \
    SERVED_WITH(section, name, T_LIVE, tls_prepare(f), settings)

/* A client whose protocols do not have ours is refused with alert 120, in a
 * full handshake and when it resumes a session. BearSSL alone would write
 * beyond an array in the second case. */
SERVED_TLS(tls, other_protocols_are_refused_also_when_resuming, NULL)
{
    static const char *foreign[] = { "foo", "h2" };
    tls_client t;
    tl_init(&t, f);
    CHECK(tl_open(&t, "localhost", 0));
    CHECK(tl_get(&t, "/hello/you", "\r\n\r\nHello, you!\n"));
    tl_again(&t);
    br_ssl_engine_set_protocol_names(&t.ssl.eng, foreign, 2);
    CHECK(!tl_open(&t, "localhost", 1));
    CHECK_INT(br_ssl_engine_last_error(&t.ssl.eng), BR_ERR_RECV_FATAL_ALERT +
                                                        120);
    tl_again(&t);
    CHECK(!tl_open(&t, "localhost", 0));
    CHECK_INT(br_ssl_engine_last_error(&t.ssl.eng), BR_ERR_RECV_FATAL_ALERT +
                                                        120);
    tl_again(&t);
    br_ssl_engine_set_protocol_names(&t.ssl.eng, NULL, 0);
    CHECK(tl_open(&t, "localhost", 0));   /* none at all: as it pleases us */
    CHECK(tl_get(&t, "/hello/you", "\r\n\r\nHello, you!\n"));
    tl_close(&t);
}

/* A session is resumed by any child, after a reset, too, and for the name that
 * it was made with only. */
SERVED_TLS(tls, a_session_is_resumed_for_its_name_only, NULL)
{
    br_ssl_session_parameters first, p;
    tls_client t;
    int i;
    tl_init(&t, f);
    CHECK(tl_open(&t, "localhost", 0));
    br_ssl_engine_get_session_parameters(&t.ssl.eng, &first);
    CHECK_INT(first.session_id_len, 32);
    CHECK(tl_get(&t, "/tls", "https on TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305 "
                             "localhost Initial"));
    for (i = 0; i < 8; i++) {
        context("time %d", i);
        tl_again(&t);
        CHECK(tl_open(&t, "localhost", 1));
        CHECK(tl_get(&t, "/hello/you", "\r\n\r\nHello, you!\n"));
        br_ssl_engine_get_session_parameters(&t.ssl.eng, &p);
        CHECK(memcmp(p.master_secret, first.master_secret, 48) == 0);
    }
    CHECK(tl_get(&t, "/tls", " Resumed"));
    tl_again(&t);
    CHECK(tl_open(&t, "www.example.test", 1));
    br_ssl_engine_get_session_parameters(&t.ssl.eng, &p);
    CHECK(memcmp(p.master_secret, first.master_secret, 48) != 0);
    tl_close(&t);
}

/* A session that is older than SSLSessionCacheTimeout makes a new one. */
SERVED_TLS(tls, an_old_session_is_not_resumed, "SSLSessionCacheTimeout 1")
{
    br_ssl_session_parameters first, p;
    tls_client t;
    tl_init(&t, f);
    CHECK(tl_open(&t, "localhost", 0));
    br_ssl_engine_get_session_parameters(&t.ssl.eng, &first);
    nap(1100);
    tl_again(&t);
    CHECK(tl_open(&t, "localhost", 1));
    br_ssl_engine_get_session_parameters(&t.ssl.eng, &p);
    CHECK(memcmp(p.master_secret, first.master_secret, 48) != 0);
    tl_close(&t);
}

/* Every suite works with the certificate of its kind; the name that the client
 * asks for decides between certificates. */
SERVED_TLS(tls, suites_and_names_choose_the_certificate, NULL)
{
    static const struct { uint16_t suite; const char *name; int kind; } rows[] =
    {
        { 0xc02b, "localhost", BR_KEYTYPE_EC },
        { 0xc02c, "localhost", BR_KEYTYPE_EC },
        { 0xcca9, "localhost", BR_KEYTYPE_EC },
        { 0xc02f, "localhost", BR_KEYTYPE_RSA },
        { 0xc030, "localhost", BR_KEYTYPE_RSA },
        { 0xcca8, "localhost", BR_KEYTYPE_RSA },
        { 0xc02f, "OTHER.test", BR_KEYTYPE_RSA },
        { 0, "other.test", BR_KEYTYPE_RSA },
        { 0, "www.example.test", BR_KEYTYPE_EC },
        { 0, "unknown.test", BR_KEYTYPE_EC },
        { 0xc02b, "other.test", 0 },           /* none of this kind has it */
        { 0xc02f, "www.example.test", 0 },
        { 0x009c, "localhost", 0 },            /* no forward secrecy */
        { 0xc009, "localhost", 0 }             /* CBC */
    };
    int i;
    EACH(rows, i) {
        tls_client t;
        context("row %d, suite %04x, %s", i, rows[i].suite, rows[i].name);
        tl_init(&t, f);
        if (rows[i].suite != 0)
            br_ssl_engine_set_suites(&t.ssl.eng, &rows[i].suite, 1);
        if (!CHECK_INT(tl_open(&t, rows[i].name, 0), rows[i].kind != 0) ||
            rows[i].kind == 0) {
            tl_close(&t);
            continue;
        }
        CHECK_INT(br_x509_decoder_get_pkey(&t.any.decoder)->key_type,
                  rows[i].kind);
        CHECK(tl_get(&t, "/hello/you", "\r\n\r\nHello, you!\n"));
        tl_close(&t);
    }
}

/* A handshake may come byte by byte, with a pause at each; so may requests. */
SERVED_TLS(tls, one_byte_at_a_time, NULL)
{
    tls_client t;
    tl_init(&t, f);
    t.piece = 1;
    CHECK(tl_open(&t, "localhost", 0));
    CHECK(tl_get(&t, "/hello/you", "\r\n\r\nHello, you!\n"));
    CHECK(tl_get(&t, "/hello/me", "\r\n\r\nHello, me!\n"));
    tl_close(&t);
}

/* Behind a PROXY header comes the handshake, maybe in the same packet; requests
 * show the client that the header names. */
SERVED_WITH(tls, a_proxy_header_comes_first, T_LIVE,
            (tls_prepare(f), f->options = " proxy tls"), NULL)
{
    int i;
    for (i = 0; i < 3; i++) {
        static const char head[] =
            "PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n";
        tls_client t;
        size_t n, k = sizeof head - 1;
        unsigned char *p;
        str all = STR_EMPTY;
        context("row %d", i);
        tl_init(&t, f);
        CHECK(br_ssl_client_reset(&t.ssl, "localhost", 0));
        p = br_ssl_engine_sendrec_buf(&t.ssl.eng, &n);
        str_add(&all, head, k);
        str_add(&all, p, n);
        br_ssl_engine_sendrec_ack(&t.ssl.eng, n);
        /* alone, with half the hello, with all of it */
        k += i == 0 ? 0 : i == 1 ? n / 2 : n;
        cl_send(&t.c, all.p, k);
        nap(30);
        if (k < all.n)
            cl_send(&t.c, all.p + k, all.n - k);
        CHECK(tl_run(&t, 1, NULL));
        CHECK(tl_get(&t, "/who", "192.0.2.1:4711 192.0.2.1"));
        str_free(&all);
        tl_close(&t);
    }
}

/* Records and requests need not agree: two requests in one record, two records
 * in one packet, a body whose last record holds the next request. None waits
 * for an event that does not come. */
SERVED_TLS(tls, requests_and_records_need_not_agree, NULL)
{
    static char post[90000];
    tls_client t;
    str two = STR_EMPTY;
    uint64_t began;
    int n;
    tl_init(&t, f);
    CHECK(tl_open(&t, "localhost", 0));
    tl_say(&t, "GET /hello/a HTTP/1.1\r\nHost: a\r\n\r\n"
               "GET /hello/b HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(tl_run(&t, 0, "Hello, b!\n"));
    CHECK(strstr(t.plain.p, "Hello, a!\n") != NULL);
    for (n = 0; n < 2; n++) {                 /* two records, one packet */
        size_t k;
        unsigned char *p;
        tl_say(&t, n == 0 ? "GET /hello/c HTTP/1.1\r\nHost: a\r\n\r\n"
                          : "GET /hello/d HTTP/1.1\r\nHost: a\r\n\r\n");
        while ((p = br_ssl_engine_sendrec_buf(&t.ssl.eng, &k)) != NULL) {
            str_add(&two, (char *)p, k);
            br_ssl_engine_sendrec_ack(&t.ssl.eng, k);
        }
    }
    cl_send(&t.c, two.p, two.n);
    CHECK(tl_run(&t, 0, "Hello, d!\n"));
    n = snprintf(post, sizeof post, "POST /echo HTTP/1.1\r\nHost: a\r\n"
                 "Content-Length: 80000\r\n\r\n");
    pattern_fill(post + n, 80000, 0);
    n += 80000;
    n += snprintf(post + n, sizeof post - (size_t)n,
                  "GET /hello/e HTTP/1.1\r\nHost: a\r\n\r\n");
    began = now_ms();
    tl_send(&t, post, (size_t)n);
    CHECK(tl_run(&t, 0, "Hello, e!\n"));
    CHECK(t.plain.n > 80000);
    CHECK(now_ms() - began < 3000u * (unsigned)g_slow);
    str_free(&two);
    tl_close(&t);
}

/* A long answer, also of a file, reaches a slow reader whole, in records that
 * are no longer than TLS allows or the client has asked for. */
SERVED_TLS(tls, long_answers_and_fragment_lengths, NULL)
{
    tls_client t;
    tl_init(&t, f);
    t.c.fd = -1;
    CHECK_INT(cl_connect_port(&t.c, f->port, 4096), 0);
    CHECK(tl_open(&t, "localhost", 0));
    CHECK(tl_get(&t, "/big?bytes=1500000", "\r\n0\r\n\r\n"));
    CHECK(t.plain.n > 1500000);
    CHECK_IN(t.longest, 15000, 16384 + 24);
    CHECK(tl_get(&t, "/file/big.bin", ""));
    tl_close(&t);

    tl_init(&t, f);                      /* a small buffer asks for 1,024 */
    br_ssl_engine_set_buffer(&t.ssl.eng, t.buffer, 1024 + 325 + 100, 0);
    CHECK(tl_open(&t, "localhost", 0));
    t.longest = 0;
    CHECK(tl_get(&t, "/big?bytes=100000", "\r\n0\r\n\r\n"));
    CHECK(t.plain.n > 100000);
    CHECK_IN(t.longest, 1000, 1024 + 24);
    tl_close(&t);
}

/* A client that says close_notify has sent its last: its answer comes, with our
 * close_notify, and the connection is over. */
SERVED_TLS(tls, close_notify_is_like_a_fin, NULL)
{
    tls_client t;
    size_t k;
    unsigned char *p;
    tl_init(&t, f);
    CHECK(tl_open(&t, "localhost", 0));
    tl_say(&t, "GET /hello/you HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
               "\r\n");
    CHECK(tl_run(&t, 0, "Hello, you!\n"));
    CHECK(!tl_run(&t, 0, NULL));               /* until it is closed */
    CHECK_INT(br_ssl_engine_last_error(&t.ssl.eng), 0);  /* by close_notify */
    CHECK(t.c.end == 0 || t.c.end == CL_FIN);
    tl_again(&t);
    CHECK(tl_open(&t, "localhost", 0));
    tl_say(&t, "GET /sleep?ms=100 HTTP/1.1\r\nHost: a\r\n\r\n");
    br_ssl_engine_flush(&t.ssl.eng, 0);
    while ((p = br_ssl_engine_sendrec_buf(&t.ssl.eng, &k)) != NULL) {
        cl_send(&t.c, p, k);
        br_ssl_engine_sendrec_ack(&t.ssl.eng, k);
    }
    br_ssl_engine_close(&t.ssl.eng);
    CHECK(tl_push(&t));
    CHECK(cl_fill(&t.c, now_ms() + 3000) > 0);  /* BearSSL takes no more */
    CHECK(t.c.in.n > 100 || cl_fill(&t.c, now_ms() + 3000) > 0);
    tl_close(&t);
}

/* What no client of TLS sends is refused with the alert that says why, and one
 * that speaks plain HTTP is told so in plain HTTP. */
SERVED_TLS(tls, strangers_are_told_why, NULL)
{
    static const struct { const char *sent; size_t n; int alert; } rows[] = {
        { "\x80\x2e\x01\x03\x01", 5, 70 },               /* SSL 2 */
        { "\x16\x03\x01\0\x2d\x01\0\0\x29\x03\x01" "0123456789abcdef"
          "0123456789abcdef" "\0\0\x02\xc0\x2b\x01\0", 50, 70 },  /* 1.0 */
        { "\x16\x03\x01\0\0", 5, 22 },                   /* an empty record */
        { "\x17\x03\x03\0\x01x", 6, 10 },                /* data first */
        { "\x16\x03\x01\0\x04\x0e\0\0\0", 9, 10 },       /* no ClientHello */
        { "\x16\x03\x01\x40\x01", 5, 22 },               /* too long */
        { "\x16\x03\x01\0\x06\x01\0\0\x02\x03\x03", 11, 50 },    /* cut */
        { "\x16\x03\x01\0\x04\x01\x01\0\0", 9, 50 },     /* 64 KiB */
        { "\x01\x02\x03\x04\x05", 5, 10 }                /* noise */
    };
    int i;
    EACH(rows, i) {
        client k = client_of(f);
        context("row %d", i);
        cl_send(&k, rows[i].sent, rows[i].n);
        CHECK(cl_fill(&k, now_ms() + 3000) > 0);
        if (CHECK_INT(k.in.n, 7)) {
            CHECK_INT((unsigned char)k.in.p[0], 21);
            CHECK_INT((unsigned char)k.in.p[5], 2);
            CHECK_INT((unsigned char)k.in.p[6], rows[i].alert);
        }
        str_drop(&k.in, k.in.n);
        CHECK_INT(cl_end(&k, 3000), CL_FIN);
        cl_close(&k);
    }
    CHECK_INT(cl_get(c, "/hello"), 400);
    CHECK(strstr(c->body.p, "https://") != NULL);
    CHECK_FIN(c);
}

/* Records that are damaged, too long, of no known type or empty without end
 * close the connection with an alert; so does renegotiation. */
SERVED_TLS(tls, bad_records_close_the_connection, NULL)
{
    int i;
    for (i = 0; i < 5; i++) {
        tls_client t;
        size_t n, k;
        unsigned char *p;
        str out = STR_EMPTY;
        context("row %d", i);
        tl_init(&t, f);
        CHECK(tl_open(&t, "localhost", 0));
        CHECK(tl_get(&t, "/hello/you", "\r\n\r\nHello, you!\n"));
        for (k = 0; k < (i == 3 ? 40u : 1u); k++) {
            if (i == 3)
                br_ssl_engine_flush(&t.ssl.eng, 1);       /* empty */
            else if (i == 4)
                CHECK(br_ssl_engine_renegotiate(&t.ssl.eng));
            else
                tl_say(&t, "GET /hello/x HTTP/1.1\r\nHost: a\r\n\r\n");
            while ((p = br_ssl_engine_sendrec_buf(&t.ssl.eng, &n)) != NULL) {
                str_add(&out, (char *)p, n);
                br_ssl_engine_sendrec_ack(&t.ssl.eng, n);
            }
        }
        if (i == 0)
            out.p[20] ^= 1;                               /* damaged */
        if (i == 1)
            out.p[0] = 99;                                /* no such type */
        if (i == 2)
            out.p[3] = 0x50;                              /* 20,480 bytes */
        cl_send(&t.c, out.p, out.n);
        if (i == 4) {
            tl_run(&t, 0, NULL);       /* BearSSL ends itself when refused */
            CHECK_INT(br_ssl_engine_last_error(&t.ssl.eng),
                      BR_ERR_RECV_FATAL_ALERT + 100);
        } else {
            CHECK(!tl_run(&t, 0, NULL));
            CHECK_INT(br_ssl_engine_last_error(&t.ssl.eng),
                      BR_ERR_RECV_FATAL_ALERT +
                          (i < 2 ? 20 : i == 2 ? 22 : 10));
        }
        str_free(&out);
        tl_close(&t);
    }
}

/* A client that stops in the middle of its handshake holds no worker: with one
 * thread and forty such clients others are served at once. */
SERVED_TLS(tls, a_stalled_handshake_holds_no_worker, "ThreadsPerChild 1")
{
    tls_client *t = (tls_client *)calloc(41, sizeof *t);
    uint64_t began;
    int i;
    for (i = 0; i < 40; i++) {
        size_t n;
        unsigned char *p;
        tl_init(&t[i], f);
        br_ssl_client_reset(&t[i].ssl, "localhost", 0);
        p = br_ssl_engine_sendrec_buf(&t[i].ssl.eng, &n);
        /* nothing, a part of the hello, all of it */
        if (i % 3 != 0)
            cl_send(&t[i].c, p, i % 3 == 1 ? n / 2 : n);
        else
            cl_open(&t[i].c, f);
    }
    began = now_ms();
    tl_init(&t[40], f);
    CHECK(tl_open(&t[40], "localhost", 0));
    CHECK(tl_get(&t[40], "/hello/you", "\r\n\r\nHello, you!\n"));
    CHECK(now_ms() - began < 1000u * (unsigned)g_slow);
    for (i = 0; i <= 40; i++)
        tl_close(&t[i]);
    free(t);
}

/* An idle TLS connection costs at most 256 bytes: its record, its peer and the
 * keys of its session. */
TEST(tls, an_idle_connection_is_small)
{
    enum { N = 20 };
    fixture f;
    tls_client *t;
    int i, before;
    tls_prepare(&f);
    f.cfg.threads_per_child = 1;         /* others have buffers of their own */
    if (!fx_up(&f))
        return;
    t = (tls_client *)calloc(N + 1, sizeof *t);
    tl_init(&t[N], &f);                  /* what workers keep is there now */
    CHECK(tl_open(&t[N], "localhost", 0));
    CHECK(tl_get(&t[N], "/hello/you", "\r\n\r\nHello, you!\n"));
    before = get_int(&a_live);
    for (i = 0; i < N; i++) {
        tl_init(&t[i], &f);
        CHECK(tl_open(&t[i], "localhost", 0));
        CHECK(tl_get(&t[i], "/hello/you", "\r\n\r\nHello, you!\n"));
    }
    CHECK_SOON(get_int(&a_live) == before + N, 2000);
    CHECK_IN(sizeof(empm__conn) + sizeof(empm__peer) + 16 +
             empm__tls_conn_bytes(0xc02b, "localhost"), 100, 256);
    for (i = 0; i <= N; i++)
        tl_close(&t[i]);
    free(t);
    fx_down(&f);
}

/* A certificate or key that cannot serve is refused at the start, with file and
 * cause; one with odd but harmless text around it serves. */
TEST(tls, certificates_and_keys_are_checked)
{
    static char both[9000], crlf[9000], bom[9000], cut[9000], text[9000];
    static char half[9000];
    static const struct { const char *cert, *key, *said; } rows[] = {
        { pem_ec, pem_ec_key, NULL }, { pem_rsa, pem_rsa_key, NULL },
        { both, NULL, NULL }, { crlf, pem_ec_key, NULL },
        { bom, pem_ec_key, NULL }, { text, pem_ec_key, NULL },
        { pem_ec, cut, NULL },                        /* no last newline */
        { pem_ec, pem_rsa_key, "is not the key of" },
        { pem_ec, NULL, "has no private key" },
        { half, pem_ec_key, "in the middle" },
        { pem_ec_key, pem_ec_key, "has no certificate" },
        { "nothing", pem_ec_key, "-----BEGIN" },
        { pem_ec, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n"
                  "-----END ENCRYPTED PRIVATE KEY-----\n", "encrypted" },
        { pem_ec, "-----BEGIN PRIVATE KEY-----\nMA==\n"
                  "-----END PRIVATE KEY-----\n", "of no kind" }
    };
    char *at;
    size_t i;
    snprintf(both, sizeof both, "%s%s", pem_ec_key, pem_ec);
    snprintf(half, sizeof half, "%s%.158s", pem_ec, pem_ec);  /* two lines */
    snprintf(bom, sizeof bom, "\xef\xbb\xbf%s", pem_ec);
    snprintf(text, sizeof text, "subject: localhost\n\n%s# end\n", pem_ec);
    snprintf(cut, sizeof cut, "%s", pem_ec_key);
    cut[strlen(cut) - 1] = '\0';
    for (at = crlf, i = 0; pem_ec[i] != '\0'; i++) {
        if (pem_ec[i] == '\n')
            *at++ = '\r';
        *at++ = pem_ec[i];
    }
    EACH(rows, i) {
        char cert[300], key[300];
        fixture f;
        context("row %d", (int)i);
        tls_prepare(&f);
        snprintf(cert, sizeof cert, "%s/cert", g_tmp);
        snprintf(key, sizeof key, "%s/key", g_tmp);
        write_file(cert, rows[i].cert, strlen(rows[i].cert));
        if (rows[i].key != NULL)
            write_file(key, rows[i].key, strlen(rows[i].key));
        f.cfg.ssl_certificate_file[0] = cert;
        f.cfg.ssl_certificate_key_file[0] = rows[i].key != NULL ? key : NULL;
        f.cfg.ssl_certificate_file[1] = f.cfg.ssl_certificate_key_file[1] =
            NULL;
        if (rows[i].said == NULL) {
            if (fx_up(&f))
                fx_down(&f);
            continue;
        }
        f.cfg.listen[0] = "127.0.0.1:0 tls";
        CHECK_INT(empm_start(&f.cfg, &f.s), EMPM_EINVAL);
        CHECK(fx_log_has(&f, rows[i].said));
        fx_close_files(&f);
    }
}

#else

/* Nothing of the wing is there: its tests are skipped, and its word refused. */
TEST(tls, is_not_built_in)
{
    empm_config cfg = empm_defaults();
    cfg.routes = routes;
    cfg.listen[0] = "127.0.0.1:0 tls";
    CHECK(empm_check(&cfg, NULL, NULL) > 0);
    SKIP("built without BearSSL");
}

#endif /* EVENTMPM_TLS_BEARSSL */

/* ---------------------------------------------------------------------------
 * >>store -- old or new, whoever dies when
 * ------------------------------------------------------------------------- */

/* 16 KiB are one shard: what is full, and who has to go, is exact. */
#define KV_BYTES 16384

static empm__kv *kv_new(void)
{
    empm__kv *kv = NULL;

    CHECK_INT(empm__kv_new(&kv, KV_BYTES, 512), EMPM_OK);
    return kv;
}

/* Is every slot in a chain, or free, once? Returns how many are in a chain. */
static int kv_check(empm__kv *kv, empm__kv_shard *sh)
{
    uint32_t h, seen[256], used = 0, unused = 0;
    uint8_t i;

    memset(seen, 0, sizeof seen);
    for (h = 0; h < 256; h++)
        for (i = sh->heads[h]; i != 0 && seen[i]++ == 0;
             i = sh->slots[i].next)
            used++;
    for (i = sh->free; i != 0 && seen[i]++ == 0;
         i = sh->slots[i].next)
        unused++;
    CHECK_INT(used + unused, kv->slots);
    CHECK(unused > 0);
    return (int)used;
}

/* The process that unmaps the store believes nothing that a child may have
 * written there. */
TEST(store, its_end_believes_nothing_in_it)
{
    empm__kv *kv = kv_new();
    unsigned char *more;
    void *at;

    if (kv == NULL)
        return;
    more = (unsigned char *)kv + (KV_BYTES + 4095) / 4096 * 4096;
    memset((void *)kv, 0x7f, 256);
    empm__kv_free(kv, KV_BYTES);
    at = mmap(more - 4096, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    /* the last page is free again */
    CHECK(at == more - 4096 || g_slow >= 8);
    munmap(at, 4096);
}

/* The hash gives the vectors of SipHash's authors. */
TEST(store, hash_is_siphash)
{
    static const struct { size_t len; uint64_t hash; } cases[] = {
        { 0, UINT64_C(0x726fdb47dd0e0e31) },
            { 8, UINT64_C(0x93f5f5799a932462) },
        { 15, UINT64_C(0xa129ca6149be45e5) }
    };
    const uint64_t seed[2] = { UINT64_C(0x0706050403020100),
                               UINT64_C(0x0f0e0d0c0b0a0908) };
    unsigned char in[16];
    size_t i;

    for (i = 0; i < sizeof in; i++)
        in[i] = (unsigned char)i;
    for (i = 0; i < EMPM__COUNT(cases); i++)
        CHECK(empm__sip_hash(seed, in, cases[i].len) == cases[i].hash);
}

/* Each call of the store has the result that its documentation promises;
 * counters and ends of life included. */
TEST(store, calls_and_their_results)
{
    enum { GET, PUT, NEW, DEL, ADD };
    /* `at` is the time; the result, and for GET the value, for ADD the sum */
    static const struct {
        int op; const char *key, *value; int64_t n, ttl; uint64_t at; int r;
    } cases[] = {
        { GET, "a", "",  0, 0, 1, EMPM_EGONE },   { DEL, "a", "", 0, 0, 1,
                                                   EMPM_EGONE },
        { PUT, "a", "1", 0, 0, 1, EMPM_OK },      { GET, "a", "1", 0, 0, 1,
                                                   EMPM_OK },
        { PUT, "a", "22", 0, 0, 1, EMPM_OK },     { GET, "a", "22", 0, 0, 1,
                                                   EMPM_OK },
        { PUT, "a", "", 0, 0, 1, EMPM_OK },       { GET, "a", "", 0, 0, 1,
                                                   EMPM_OK },
        { NEW, "a", "3", 0, 0, 1, EMPM_EGONE },   { GET, "a", "", 0, 0, 1,
                                                   EMPM_OK },
        { DEL, "a", "", 0, 0, 1, EMPM_OK },       { GET, "a", "", 0, 0, 1,
                                                   EMPM_EGONE },
        { NEW, "a", "3", 0, 0, 1, EMPM_OK },      { GET, "a", "3", 0, 0, 1,
                                                   EMPM_OK },
        { GET, "", "", 0, 0, 1, EMPM_EINVAL },    { PUT, "", "1", 0, 0, 1,
                                                   EMPM_EINVAL },
        { DEL, "", "", 0, 0, 1, EMPM_EINVAL },    { ADD, "", "", 1, 0, 1,
                                                   EMPM_EINVAL },
        { PUT, "a", "4", 0, -1, 1, EMPM_EINVAL }, { ADD, "n", "", 1, -1, 1,
                                                   EMPM_EINVAL },
        { GET, "a", "3", 0, 0, 1, EMPM_OK },
        /* counters; one without a limit has no end */
        { ADD, "n", "", 0, 0, 1, EMPM_OK },       { ADD, "n", "", 5, 0, 1,
                                                   EMPM_OK },
        { ADD, "n", "", -7, 50, 1, EMPM_OK },     { ADD, "n", "", 2, 0, 99,
                                                   EMPM_OK },
        { ADD, "n", "", INT64_MAX, 0, 1, EMPM_OK }, { ADD, "n", "", 1, 0, 1,
                                                     EMPM_EINVAL },
        { ADD, "n", "", INT64_MIN, 0, 1, EMPM_OK }, { ADD, "n", "", INT64_MIN,
                                                     0, 1, EMPM_EINVAL },
        { ADD, "n", "", 1, 0, 1, EMPM_OK },       { ADD, "a", "", 1, 0, 1,
                                                   EMPM_EINVAL },
        /* expiry: never early, and nothing is there after it */
        { PUT, "e", "5", 0, 10, 100, EMPM_OK },   { GET, "e", "5", 0, 0, 110,
                                                   EMPM_OK },
        { NEW, "e", "6", 0, 0, 110, EMPM_EGONE }, { GET, "e", "", 0, 0, 111,
                                                   EMPM_EGONE },
        { DEL, "e", "", 0, 0, 111, EMPM_EGONE },  { GET, "e", "", 0, 0, 110,
                                                   EMPM_EGONE },
        { PUT, "e", "7", 0, 10, 100, EMPM_OK },   { NEW, "e", "8", 0, 5, 111,
                                                   EMPM_OK },
        { GET, "e", "8", 0, 0, 116, EMPM_OK },    { PUT, "e", "9", 0, 0, 117,
                                                   EMPM_OK },
        { GET, "e", "9", 0, 0, UINT64_MAX, EMPM_OK },
        { PUT, "f", "1", 0, INT64_MAX, 100, EMPM_OK }, { GET, "f", "1", 0, 0,
                                                        UINT64_MAX / 2,
                                                        EMPM_OK },
        /* a counter's end is that of its first add */
        { ADD, "m", "", 3, 10, 100, EMPM_OK },    { ADD, "m", "", 3, 10, 109,
                                                   EMPM_OK },
        { ADD, "m", "", 4, 10, 111, EMPM_OK },    { ADD, "m", "", 1, 0, 121,
                                                   EMPM_OK },
        { ADD, "m", "", 1, 0, 999, EMPM_OK }
    };
    static const int64_t sums[] = {
        0, 5, -2, 0, INT64_MAX, -1, 0, 3, 6, 4, 5, 1
    };
    empm__kv *kv = kv_new();
    const uint64_t none = 0;
    size_t i, k = 0, len;
    char got[8];
    int64_t sum;

    for (i = 0; kv != NULL && i < EMPM__COUNT(cases); i++) {
        const char *key = cases[i].key, *value = cases[i].value;
        const uint64_t at = cases[i].at;
        int r = 0;
        context("row %d", (int)i);
        switch (cases[i].op) {
        case GET:
            len = 99;
            r = empm__kv_get(kv, key, strlen(key), got, sizeof got, &len, NULL,
                             at);
            if (r == EMPM_OK)
                CHECK(len == strlen(value) && memcmp(got, value, len) == 0);
            break;
        case PUT:
            r = empm__kv_put(kv, key, strlen(key), NULL, value, strlen(value),
                             cases[i].ttl, at);
            break;
        case NEW:
            r = empm__kv_put(kv, key, strlen(key), &none, value, strlen(value),
                             cases[i].ttl, at);
            break;
        case DEL:
            r = empm__kv_delete(kv, key, strlen(key), at);
            break;
        case ADD:
            r = empm__kv_add(kv, key, strlen(key), cases[i].n, cases[i].ttl,
                             &sum, at);
            if (r == EMPM_OK && CHECK(k < EMPM__COUNT(sums)))
                CHECK_INT(sum, sums[k++]);
            break;
        }
        CHECK_INT(r, cases[i].r);
        kv_check(kv, empm__kv_shard_at(kv, 0));
    }
    no_context();
    empm__kv_free(kv, KV_BYTES);
}

/* Key and value share the room of an item, and every write has a version that
 * never comes again. */
TEST(store, lengths_and_versions)
{
    empm__kv *kv = kv_new();
    char in[513], out[513];
    size_t len;
    uint64_t first, second, none = 0;

    if (kv == NULL)
        return;
    memset(in, 'x', sizeof in);
    CHECK_INT(empm__kv_put(kv, in, 512, NULL, NULL, 0, 0, 1), EMPM_OK);
    CHECK_INT(empm__kv_put(kv, in, 512, NULL, in, 1, 0, 1), EMPM_EINVAL);
    CHECK_INT(empm__kv_put(kv, in, 513, NULL, NULL, 0, 0, 1), EMPM_EINVAL);
    CHECK_INT(empm__kv_put(kv, in, 1, NULL, in, 511, 0, 1), EMPM_OK);
    CHECK_INT(empm__kv_put(kv, in, 1, NULL, in, 512, 0, 1), EMPM_EINVAL);
    CHECK_INT(empm__kv_put(kv, in, 1, NULL, in, (size_t)-1, 0, 1), EMPM_EINVAL);
    CHECK_INT(empm__kv_add(kv, in, 505, 1, 0, NULL, 1), EMPM_EINVAL);
    CHECK_INT(empm__kv_add(kv, in, 504, 1, 0, NULL, 1), EMPM_OK);
    CHECK_INT(empm__kv_get(kv, in, 1, out, 510, &len, &first, 1), EMPM_EFULL);
    CHECK_INT(len, 511);
    CHECK_INT(empm__kv_get(kv, in, 1, NULL, 0, NULL, NULL, 1), EMPM_EFULL);
    CHECK_INT(empm__kv_get(kv, in, 1, out, 511, &len, &second, 1), EMPM_OK);
    CHECK(len == 511 && memcmp(in, out, len) == 0 && first == second);
    CHECK_INT(empm__kv_get(kv, in, 512, out, 0, &len, NULL, 1), EMPM_OK);
    CHECK_INT(len, 0);
    /* every write has a version of its own, also after a delete */
    CHECK_INT(empm__kv_put(kv, in, 1, &first, "b", 1, 0, 1), EMPM_OK);
    CHECK_INT(empm__kv_put(kv, in, 1, &first, "c", 1, 0, 1), EMPM_EGONE);
    CHECK_INT(empm__kv_get(kv, in, 1, out, 1, &len, &second, 1), EMPM_OK);
    CHECK(out[0] == 'b' && first != second && first != 0 && second != 0);
    CHECK_INT(empm__kv_delete(kv, in, 1, 1), EMPM_OK);
    CHECK_INT(empm__kv_put(kv, in, 1, &second, "d", 1, 0, 1), EMPM_EGONE);
    CHECK_INT(empm__kv_put(kv, in, 1, &none, "b", 1, 0, 1), EMPM_OK);
    CHECK_INT(empm__kv_put(kv, in, 1, &second, "d", 1, 0, 1), EMPM_EGONE);
    empm__kv_free(kv, KV_BYTES);
}

/* A version never repeats, even after a writer that was killed while it wrote
 * one of the two halves. */
TEST(store, versions_never_come_back)
{
    static const uint64_t torn[] = {         /* by the step after the first */
        UINT64_C(0x5ffffffff), UINT64_C(0x600000000), UINT64_C(0x500000000),
        UINT64_C(0x6ffffffff)
    };
    empm__kv *kv = kv_new();
    uint64_t version;
    size_t i;

    for (i = 0; kv != NULL && i < EMPM__COUNT(torn); i++) {
        empm__kv_shard *sh = empm__kv_shard_at(kv, 0);
        sh->version = torn[i];
        empm__kv_mend(kv, sh);
        CHECK_INT(empm__kv_put(kv, "a", 1, NULL, "1", 1, 0, 1), EMPM_OK);
        CHECK_INT(empm__kv_get(kv, "a", 1, NULL, 0, NULL, &version, 1),
                  EMPM_EFULL);
        CHECK(version > torn[0]);
    }
    empm__kv_free(kv, KV_BYTES);
}

/* A store of any size stays within its memory and uses at least four fifths of
 * it. */
TEST(store, every_size_uses_its_memory_and_no_more)
{
    size_t bytes;
    uint32_t room, k;

    for (room = 64; room < 3000; room = room * 3 + 1)
        for (bytes = EMPM__KV_LEAST(room); bytes <
             3000000; bytes += bytes / 7 + 1) {
            empm__kv *kv = NULL;
            size_t end;
            context("%lu bytes, %lu each", (unsigned long)bytes,
                    (unsigned long)room);
            if (!CHECK_INT(empm__kv_new(&kv, bytes, room), EMPM_OK))
                break;
            end = (size_t)(empm__kv_data(kv, empm__kv_shard_at(kv,
                                                               kv->shards - 1),
                                         (uint8_t)kv->slots) -
                           (unsigned char *)kv) + room;
            CHECK(end <= bytes);
            CHECK(kv->slots >= 2 && kv->slots <= EMPM__KV_SLOTS);
            if (room >= 512 && bytes > 64000)
                CHECK((size_t)kv->shards * kv->slots * room > bytes * 4 / 5);
            for (k = 0; empm__kv_put(kv, &k, sizeof k, NULL, NULL, 0, 0, 1) ==
                        EMPM_OK; k++)
                CHECK(k < kv->shards * kv->slots);
            CHECK(k >= kv->shards * (kv->slots - 1) / 3);
            empm__kv_free(kv, bytes);
        }
    no_context();
}

/* A store that is full of items without an end refuses new ones and drops
 * none. */
TEST(store, full_of_what_never_expires)
{
    empm__kv *kv = kv_new();
    int k, n;
    size_t len;

    if (kv == NULL)
        return;
    for (n = 0; empm__kv_put(kv, &n, sizeof n, NULL, &n, sizeof n, 0, 1) ==
                EMPM_OK; n++)
        continue;
    CHECK_INT(n, kv->slots - 1);
    CHECK_INT(empm__kv_put(kv, &n, sizeof n, NULL, &n, sizeof n, 5, 1),
              EMPM_EFULL);
    CHECK_INT(empm__kv_add(kv, &n, sizeof n, 1, 0, NULL, 1), EMPM_EFULL);
    for (k = 0; k < n; k++) {        /* what is there can be set all the same */
        int value = -1;
        CHECK_INT(empm__kv_get(kv, &k, sizeof k, &value, sizeof value, &len,
                               NULL, 1), EMPM_OK);
        CHECK_INT(value, k);
        CHECK_INT(empm__kv_put(kv, &k, sizeof k, NULL, "new", 3, 100 + k, 1),
                  EMPM_OK);
    }
    k = 7;
    CHECK_INT(empm__kv_delete(kv, &k, sizeof k, 1), EMPM_OK);
    CHECK_INT(empm__kv_put(kv, &n, sizeof n, NULL, &n, sizeof n, 0, 1),
              EMPM_OK);
    /* now there are some that can go: the nearest to its end does */
    n++;
    CHECK_INT(empm__kv_put(kv, &n, sizeof n, NULL, &n, sizeof n, 0, 1),
              EMPM_OK);
    for (k = 0; k <= n; k++)
        CHECK_INT(empm__kv_get(kv, &k, sizeof k, NULL, 0, NULL, NULL, 1) ==
                  EMPM_EGONE, k == 0 || k == 7);
    empm__kv_free(kv, KV_BYTES);
}

/* --- against a plain array ------------------------------------------------ */

#define MODEL_KEYS 24                /* more than there is room for */

typedef struct model_entry {
    int      is;
    uint64_t version, expires;
    size_t   len;
    char     value[64];
} model_entry;

static uint32_t model_random(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % below;
}

/* Over random calls the store agrees with a plain array: results, values,
 * versions, and the victim when it is full. */
TEST(store, does_what_a_plain_array_does)
{
    static model_entry m[MODEL_KEYS];
    empm__kv *kv = kv_new();
    uint32_t seed = 4711, step;
    uint64_t now = 1000, last = 0;

    memset(m, 0, sizeof m);
    for (step = 0; kv != NULL && step < 60000 &&
         get_int(&g_failures) < 5; step++) {
        const uint32_t k = model_random(&seed, MODEL_KEYS);
        const uint32_t op = model_random(&seed, 8);
        model_entry *e = &m[k], new_one;
        const int there = e->is && (e->expires == 0 || now <= e->expires);
        int64_t ttl = 0, n = 0, sum = 0;
        size_t len, i;
        uint64_t version = 0;
        char key[8], got[64];
        int want = EMPM_OK, r, writes = 0;

        context("step %d, op %d", (int)step, (int)op);
        snprintf(key, sizeof key, "key%d", (int)k);
        /* ends differ: who goes is clear */
        if (model_random(&seed, 4) != 0) {
            int again = 1;
            while (again) {
                ttl = 1 + (int64_t)model_random(&seed, 400);
                for (again = 0, i = 0; i < MODEL_KEYS; i++)
                    again |= m[i].is && m[i].expires == now + (uint64_t)ttl;
            }
        }
        memset(&new_one, 0, sizeof new_one);
        new_one.is = 1;
        new_one.expires = ttl == 0 ? 0 : now + (uint64_t)ttl;
        new_one.len = model_random(&seed, 64);
        memset(new_one.value, (int)(step & 127), new_one.len);
        switch (op) {
        case 0: case 1: case 2:
            r = empm__kv_put(kv, key, strlen(key), NULL, new_one.value,
                             new_one.len, ttl, now);
            writes = 1;
            break;
        case 3: case 4:              /* with the right version, or another */
            version = there && op == 3 ? e->version : model_random(&seed, 2);
            r = empm__kv_put(kv, key, strlen(key), &version, new_one.value,
                             new_one.len, ttl, now);
            writes = version == (there ? e->version : 0);
            want = writes ? EMPM_OK : EMPM_EGONE;
            break;
        case 5:
            r = empm__kv_delete(kv, key, strlen(key), now);
            want = there ? EMPM_OK : EMPM_EGONE;
            e->is = 0;
            break;
        case 6:
            r = empm__kv_add(kv, key, strlen(key), (int64_t)k + 1, ttl, &sum,
                             now);
            writes = !there || e->len == sizeof n;
            want = writes ? EMPM_OK : EMPM_EINVAL;
            if (there && writes) {
                memcpy(&n, e->value, sizeof n);
                new_one.expires = e->expires;
            }
            n = (int64_t)((uint64_t)n + k + 1);
            if (n < (int64_t)k + 1 && there)     /* random bytes: no matter */
                n = sum;
            memcpy(new_one.value, &n, sizeof n);
            new_one.len = sizeof n;
            break;
        default:
            r = EMPM_OK;
            now += model_random(&seed, 30);
            break;
        }
        if (writes && !e->is) {              /* is there room, or who goes? */
            int used = 0, victim = -1;
            for (i = 0; i < MODEL_KEYS; i++) {
                used += m[i].is;
                if (m[i].is && m[i].expires != 0 &&
                    (victim < 0 || m[i].expires < m[victim].expires))
                    victim = (int)i;
            }
            if (used == (int)kv->slots - 1 && victim < 0) {
                want = EMPM_EFULL;
                writes = 0;
            } else if (used == (int)kv->slots - 1) {
                m[victim].is = 0;
            }
        }
        CHECK_INT(r, want);
        if (writes)
            *e = new_one;
        if (writes && op == 6)
            CHECK_INT(sum, n);
        for (i = 0; i < MODEL_KEYS; i++) {
            const int is = m[i].is && (m[i].expires == 0 ||
                                       now <= m[i].expires);
            snprintf(key, sizeof key, "key%d", (int)i);
            r = empm__kv_get(kv, key, strlen(key), got, sizeof got, &len,
                             &version, now);
            CHECK_INT(r, is ? EMPM_OK : EMPM_EGONE);
            if (!is || r != EMPM_OK)
                continue;
            CHECK(len == m[i].len && memcmp(got, m[i].value, len) == 0);
            if (&m[i] == e && writes) {
                CHECK(version > last);
                last = e->version = version;
            }
            CHECK(version == m[i].version);
        }
        kv_check(kv, empm__kv_shard_at(kv, 0));
    }
    no_context();
    empm__kv_free(kv, KV_BYTES);
}

/* --- many at once --------------------------------------------------------- */

#define CROWD_PROCESSES 3
#define CROWD_THREADS   3
#define CROWD_ROUNDS    2000

static empm__kv *crowd_kv;

/* Adds to "added", and to "swapped" the hard way, CROWD_ROUNDS times. */
static void *crowd_member(void *arg)
{
    int i, *bad = (int *)arg;

    for (i = 0; i < CROWD_ROUNDS; i++) {
        int64_t n;
        uint64_t version;
        int r;
        if (empm__kv_add(crowd_kv, "added", 5, 1, 0, NULL, 1) != EMPM_OK)
            add_int(bad, 1);
        do {
            n = 0;
            version = 0;
            r = empm__kv_get(crowd_kv, "swapped", 7, &n, sizeof n, NULL,
                             &version, 1);
            if (r == EMPM_OK || r == EMPM_EGONE) {
                n++;
                r = empm__kv_put(crowd_kv, "swapped", 7, &version, &n,
                                 sizeof n, 0, 1);
            }
        } while (r == EMPM_EGONE);
        if (r != EMPM_OK)
            add_int(bad, 1);
    }
    return NULL;
}

/* Adds and compare-and-swap lose nothing between threads of several
 * processes. */
TEST(store, sums_are_exact_over_processes_and_threads)
{
    pid_t pid[CROWD_PROCESSES];
    int64_t n = 0;
    int i, k, st;

    crowd_kv = kv_new();
    if (crowd_kv == NULL)
        return;
    fflush(NULL);
    for (i = 0; i < CROWD_PROCESSES; i++)
        if ((pid[i] = fork()) == 0) {
            pthread_t t[CROWD_THREADS];
            int bad = 0;
            for (k = 0; k < CROWD_THREADS; k++)
                if (pthread_create(&t[k], NULL, crowd_member, &bad) != 0)
                    _exit(2);
            for (k = 0; k < CROWD_THREADS; k++)
                pthread_join(t[k], NULL);
            _exit(get_int(&bad) != 0);
        }
    for (i = 0; i < CROWD_PROCESSES; i++) {
        CHECK(pid[i] > 0 && waitpid(pid[i], &st, 0) == pid[i]);
        CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 0);
    }
    CHECK_INT(empm__kv_add(crowd_kv, "added", 5, 0, 0, &n, 1), EMPM_OK);
    CHECK_INT(n, CROWD_PROCESSES * CROWD_THREADS * CROWD_ROUNDS);
    CHECK_INT(empm__kv_add(crowd_kv, "swapped", 7, 0, 0, &n, 1), EMPM_OK);
    CHECK_INT(n, CROWD_PROCESSES * CROWD_THREADS * CROWD_ROUNDS);
    empm__kv_free(crowd_kv, KV_BYTES);
}

/* --- death ---------------------------------------------------------------- */

#if defined(__linux__)
/* The keys of the tests below, and what they have before and after. */
typedef struct dying {
    const char *what;
    const char *before[16], *after[16];  /* "key=value", NULL ends */
} dying;

static void dying_get(empm__kv *kv, const char *entry, char *got, size_t n)
{
    const size_t key_len = (size_t)(strchr(entry, '=') - entry);
    size_t len = 0;
    char value[400];
    int r = empm__kv_get(kv, entry, key_len, value, sizeof value, &len, NULL,
                         100);

    if (r != EMPM_OK)
        snprintf(got, n, "%.*s=(%d)", (int)key_len, entry, r);
    else
        snprintf(got, n, "%.*s=%.*s", (int)key_len, entry, (int)len, value);
}

static int dying_is(empm__kv *kv, const char *const *entries)
{
    char got[500];
    int i;

    for (i = 0; entries[i] != NULL; i++) {
        dying_get(kv, entries[i], got, sizeof got);
        if (strcmp(got, entries[i]) != 0)
            return 0;
    }
    return 1;
}

/* The process is stopped before each single instruction of a call, and what a
 * death would leave there, copied, is mended and looked at. */
static void die_everywhere(int op)
{
    static const dying cases[] = {
        { "insert", { "a=1", "b=2", "new=(-5)", NULL },
                    { "a=1", "b=2", "new=value", NULL } },
        { "replace", { "a=1", "b=2", NULL }, { "a=value", "b=2", NULL } },
        { "remove", { "a=1", "b=2", NULL }, { "a=(-5)", "b=2", NULL } },
        { "count", { "a=1", "n=12345678", NULL }, { "a=1", "n=22345678",
                                                   NULL } },
        { "evict", { "a=1", "b=2", "old=3", "new=(-5)", NULL },
                   { "a=1", "b=2", "old=(-5)", "new=value", NULL } }
    };
    empm__kv *kv = kv_new(), *copy = kv_new();
    const dying *d = &cases[op];
    int i, st, steps = 0, held = 0, was_new = 0, middle = 0;
    pid_t pid;

    if (kv == NULL || copy == NULL)
        return;
    context("%s", d->what);
    empm__kv_put(kv, "a", 1, NULL, "1", 1, 0, 100);
    empm__kv_put(kv, "b", 1, NULL, "2", 1, 0, 100);
    empm__kv_put(kv, "old", 3, NULL, "3", 1, 50, 100);
    empm__kv_put(kv, "n", 1, NULL, "12345678", 8, 0, 100);
    for (i = 0; op == 4 && i < 40; i++)      /* until there is room for none */
        if (kv_check(kv, empm__kv_shard_at(kv, 0)) < (int)kv->slots - 1)
            empm__kv_put(kv, &i, sizeof i, NULL, "x", 1, 60, 100);
    pid = fork();
    if (pid == 0) {
        int64_t one = 0;
        memcpy(&one, "\1", 1);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(1);
        raise(SIGSTOP);
        if (op == 2)
            empm__kv_delete(kv, "a", 1, 100);
        else if (op == 3)
            empm__kv_add(kv, "n", 1, one, 0, NULL, 100);
        else
            empm__kv_put(kv, op == 1 ? "a" : "new", op == 1 ? 1 : 3, NULL,
                         "value", 5, 0, 100);
        _exit(0);
    }
    for (; waitpid(pid, &st, 0) == pid && WIFSTOPPED(st) && steps < 500000 &&
           get_int(&g_failures) == 0; ptrace(PTRACE_SINGLESTEP, pid, NULL,
                                             NULL)) {
        empm__kv_shard *sh = empm__kv_shard_at(copy, 0);
        int is_old, is_new;
        if (steps++ % g_slow != 0)           /* a sanitizer has many more */
            continue;
        memcpy(copy, kv, KV_BYTES);
        if (pthread_mutex_trylock(&sh->lock) == 0) {
            pthread_mutex_unlock(&sh->lock);
        } else {                             /* as the next holder finds it */
            held++;
            memset(&sh->lock, 0, sizeof sh->lock);
            empm__shared_lock_init(&sh->lock);
            empm__kv_mend(copy, sh);
        }
        kv_check(copy, sh);
        is_old = dying_is(copy, d->before);
        is_new = dying_is(copy, d->after);
        /* to go and to come are two steps */
        if (!is_old && !is_new && op == 4)
            middle++;
        else
            CHECK(is_old != is_new);
        CHECK(!is_old || !was_new);
        was_new |= is_new;
        CHECK_INT(empm__kv_put(copy, "a", 1, NULL, "4", 1, 0, 100), EMPM_OK);
    }
    if (WIFSTOPPED(st)) {
        signal_process(pid, SIGKILL);
        waitpid(pid, &st, 0);
    }
    if (steps == 0) {
        g_skip = "no ptrace() here";
    } else if (CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 0)) {
        CHECK(held > 20 && was_new);
        CHECK(dying_is(kv, d->after));
    }
    if (g_verbose)
        printf("%s: %d instructions, %d with the lock, %d between\n", d->what,
               steps, held, middle);
    no_context();
    empm__kv_free(kv, KV_BYTES);
    empm__kv_free(copy, KV_BYTES);
}

/* A process that is killed at any single instruction of a write leaves the
 * item old or new, never half. */
TEST(store, whole_before_and_after_each_instruction)
{
    int op;

    if (g_slow >= 8)
        SKIP("no ptrace() under valgrind");
    for (op = 0; op < 5 && g_skip == NULL && get_int(&g_failures) == 0; op++)
        die_everywhere(op);
}
#endif

#if EMPM__ROBUST
#define DOOMEDS     3
#define DOOMED_KEYS 16

/* What each writer was about to do, and what it has done. */
typedef struct doomed {
    uint32_t begun[DOOMED_KEYS], done[DOOMED_KEYS];
    int64_t  adds_begun, adds_done;
} doomed;

typedef struct doomed_value {
    uint32_t seq, len, sum;
    char     bytes[400];
} doomed_value;

static uint32_t doomed_fill(doomed_value *v, uint32_t seq)
{
    v->seq = seq;
    v->len = seq * 7 % sizeof v->bytes;
    memset(v->bytes, (int)(seq & 255), v->len);
    v->sum = sum_more(seq, v->bytes, v->len);
    return (uint32_t)(offsetof(doomed_value, bytes)) + v->len;
}

/* Writes for ever: its own keys, its own counter, the common one. */
static void doomed_run(empm__kv *kv, doomed *all, int me)
{
    doomed *v = &all[me];
    doomed_value value;
    uint32_t i, seed = (uint32_t)getpid();
    char key[16], own[8];

    snprintf(own, sizeof own, "own%d", me);
    for (;;) {
        const uint32_t k = model_random(&seed, DOOMED_KEYS);
        const uint32_t n = doomed_fill(&value, v->done[k] + 1);
        snprintf(key, sizeof key, "w%d-%d", me, (int)k);
        empm__store_rel(&v->begun[k], value.seq);
        if (empm__kv_put(kv, key, strlen(key), NULL, &value, n, 0,
                         1) != EMPM_OK)
            _exit(1);
        empm__store_rel(&v->done[k], value.seq);
        v->adds_begun++;
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        if (empm__kv_add(kv, own, strlen(own), 1, 0, NULL, 1) != EMPM_OK ||
            empm__kv_add(kv, "all", 3, 1, 0, NULL, 1) != EMPM_OK)
            _exit(1);
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        v->adds_done++;
        /* come and go, so that there is always somebody to evict */
        i = model_random(&seed, 1000);
        if (empm__kv_put(kv, &i, sizeof i, NULL, "x", 1, 1000 + (int64_t)i,
                         1) !=
            EMPM_OK)
            _exit(1);
        empm__kv_delete(kv, &i, sizeof i, 1);
    }
}

/* All that writer `me` has is as it was left or as it was about to be. Its
 * count is set right, as it may be one behind. */
static void doomed_check(empm__kv *kv, doomed *v, int me, int64_t *slack)
{
    doomed_value value, want;
    size_t len;
    uint32_t k;
    int64_t n = 0;
    char key[16];

    for (k = 0; k < DOOMED_KEYS; k++) {
        int r;
        snprintf(key, sizeof key, "w%d-%d", me, (int)k);
        r = empm__kv_get(kv, key, strlen(key), &value, sizeof value, &len,
                         NULL, 1);
        if (v->done[k] == 0 && r == EMPM_EGONE)
            continue;
        if (!CHECK_INT(r, EMPM_OK))
            continue;
        CHECK_IN(value.seq, v->done[k], v->begun[k]);
        CHECK_INT(doomed_fill(&want, value.seq), len);
        CHECK(memcmp(&want, &value, len) == 0);
        v->done[k] = v->begun[k] = value.seq;
    }
    snprintf(key, sizeof key, "own%d", me);
    CHECK_INT(empm__kv_add(kv, key, strlen(key), 0, 0, &n, 1), EMPM_OK);
    CHECK_IN(n, v->adds_done, v->adds_begun);
    *slack += v->adds_begun - v->adds_done;
    v->adds_done = v->adds_begun = n;
}

/* Writers that are killed at random moments leave the store consistent, and
 * the next one takes their lock over. */
TEST(store, writers_killed_at_any_moment)
{
    doomed *all = (doomed *)mmap(NULL, sizeof *all * DOOMEDS,
                                 PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid[DOOMEDS] = { 0, 0, 0 };
    empm__kv *kv = NULL;
    uint64_t end = now_ms() + 2500;
    int64_t common = 0, before = 0, slack = 0, own = 0;
    uint32_t seed = 99, s;
    int i, st, kills = 0, orphaned = 0;

    /* one shard: everybody wants the same lock */
    CHECK_INT(empm__kv_new(&kv, 48000, 512), EMPM_OK);
    if (kv == NULL || all == (doomed *)MAP_FAILED)
        return;
    CHECK_INT(kv->shards, 1);
    fflush(NULL);
    while (now_ms() < end && get_int(&g_failures) < 5) {
        struct timespec t = { 0, 0 };
        const uint32_t who = model_random(&seed, DOOMEDS);
        for (i = 0; i < DOOMEDS; i++)
            if (pid[i] == 0 && (pid[i] = fork()) == 0)
                doomed_run(kv, all, i);
        t.tv_nsec = (long)model_random(&seed, 3000000);
        nanosleep(&t, NULL);
        signal_process(pid[who], SIGKILL);
        CHECK(waitpid(pid[who], &st, 0) == pid[who]);
        CHECK(WIFSIGNALED(st));              /* no call of its own has failed */
        pid[who] = 0;
        kills++;
        s = (uint32_t)(empm__kv_shard_at(kv, 0)->version >> 32);
        orphaned = (int)s;                   /* each mending takes the next */
        doomed_check(kv, &all[who], (int)who, &slack);
        CHECK_INT(empm__kv_add(kv, "all", 3, 0, 0, &common, 1), EMPM_OK);
        CHECK(common >= before);
        before = common;
    }
    for (i = 0; i < DOOMEDS; i++)
        if (pid[i] != 0) {
            signal_process(pid[i], SIGKILL);
            waitpid(pid[i], &st, 0);
            doomed_check(kv, &all[i], i, &slack);
        }
    for (i = 0; i < DOOMEDS; i++)
        own += all[i].adds_done;
    CHECK_INT(empm__kv_add(kv, "all", 3, 0, 0, &common, 1), EMPM_OK);
    CHECK_IN(common, own - slack, own + slack);
    kv_check(kv, empm__kv_shard_at(kv, 0));
    CHECK(kills > 50 / g_slow);
    if (g_verbose)
        printf("%d killed, %d with the lock; %lld adds\n", kills, orphaned - 1,
               (long long)common);
    munmap(all, sizeof *all * DOOMEDS);
    empm__kv_free(kv, 48000);
}

/* A process that is stopped with the lock costs others a timeout of a second
 * each, and a killed holder costs nothing. */
TEST(store, stopped_holder_costs_a_second_not_the_server)
{
    empm__kv *kv = kv_new();
    empm__kv_at at;
    pid_t pid;
    uint64_t t0;
    int64_t n = 0;
    int st;

    if (kv == NULL)
        return;
    empm__kv_add(kv, "n", 1, 41, 0, NULL, 1);
    pid = fork();
    if (pid == 0) {
        empm__kv_open(&at, kv, "n", 1, 1);
        raise(SIGSTOP);
        pthread_mutex_unlock(&at.sh->lock);
        for (;;) {
            empm__kv_open(&at, kv, "n", 1, 1);
            raise(SIGSTOP);
        }
    }
    CHECK(waitpid(pid, &st, WUNTRACED) == pid && WIFSTOPPED(st));
    t0 = now_ms();
    CHECK_INT(empm__kv_add(kv, "n", 1, 1, 0, &n, 1), EMPM_ETIMEDOUT);
    CHECK_IN(now_ms() - t0, 999, SCALED(2000));
    signal_process(pid, SIGCONT);              /* it goes on, and so do we, */
    CHECK(waitpid(pid, &st, WUNTRACED) == pid && WIFSTOPPED(st));
    signal_process(pid, SIGKILL);              /* and so when it is killed */
    CHECK(waitpid(pid, &st, 0) == pid);
    t0 = now_ms();
    CHECK_INT(empm__kv_add(kv, "n", 1, 1, 0, &n, 1), EMPM_OK);
    CHECK_INT(n, 42);
    CHECK_IN(now_ms() - t0, 0, AT_ONCE);
    CHECK_INT(empm__kv_get(kv, "n", 1, &n, sizeof n, NULL, NULL, 1), EMPM_OK);
    empm__kv_free(kv, KV_BYTES);
}
#endif

/* --- in a server ---------------------------------------------------------- */

static long ask_visits(const fixture *f)
{
    client c;
    long n = -1;

    if (ask(f, &c, "GET /visits HTTP/1.1\r\nHost: a\r\n\r\n") == 200 &&
        strncmp(c.body.p, "visit ", 6) == 0)
        n = strtol(c.body.p + 6, NULL, 10);
    cl_close(&c);
    return n;
}

/* All children count in one store: each number comes once. */
LIVE(store, visits_are_exact_over_all_children)
{
    enum { VISITS = 150 };
    static char seen[VISITS + 1];
    fixture f;
    int i;

    fx_init(&f);
    f.cfg.shared_store_size = 64 << 10;
    if (f.forked)
        f.cfg.processes = 3;
    if (!fx_up(&f))
        return;
    memset(seen, 0, sizeof seen);
    if (f.forked)                    /* all of them, or one may serve it all */
        CHECK_SOON(get_int(&shm->child_starts) == 3, 4000);
    for (i = 0; i < VISITS; i++) {
        long n = ask_visits(&f);
        if (CHECK_IN(n, 1, VISITS))
            CHECK_INT(seen[n]++, 0);
    }
    if (f.forked)
        CHECK_INT(get_int(&shm->rc[0]), 1);  /* more than one child */
    fx_down(&f);
}

/* The store keeps its content over graceful restarts and over the death of
 * children. */
SERVED_BY(store, outlives_graceful_restarts_and_crashes, 2,
          "SharedStoreSize 16384")
{
    long n = 0, kids[16];
    int round;

    f->deaths_ok = 1;
    for (round = 1; round <= 3; round++) {
        int starts;
        CHECK_INT(ask_visits(f), ++n);
        starts = get_int(&shm->child_starts);
        signal_process(f->pid, SIGUSR1);
        CHECK_SOON(get_int(&shm->child_starts) >= starts + 2, 3000);
        CHECK_INT(ask_visits(f), ++n);      /* old or new, who knows */
        CHECK_SOON(children_of(f->pid, kids, 16) == 2, 3000);
        CHECK_INT(ask_visits(f), ++n);
        signal_process((pid_t)kids[0], SIGKILL);
        CHECK_SOON(get_int(&shm->child_starts) >= starts + 3, 3000);
        CHECK_INT(ask_visits(f), ++n);
    }
}

/* Each call of the store without SharedStoreSize returns EMPM_EMISUSE. */
SERVED(store, without_a_size_is_misuse, NULL)
{
    CHECK_INT(cl_ask(c, "GET /visits HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    CHECK_STR(c->body.p, "-6 -6 -6 -6 -6\n");
}

/* A SharedStoreSize that is too small is an error of the configuration; one
 * that the system cannot give ends the start. */
TEST(store, size_is_checked)
{
    static const struct { int64_t bytes; int errors; } cases[] = {
        { 0, 0 }, { 1, 1 }, { 4096, 1 },
        { (int64_t)EMPM__KV_LEAST(EMPM_STORE_ITEM) - 1, 1 },
        { (int64_t)EMPM__KV_LEAST(EMPM_STORE_ITEM), 0 }, { 10240, 0 },
        { INT64_MAX, sizeof(size_t) < 8 }
    };
    fixture f;

    fx_init(&f);
    EACH(cases, i) {
        context("%lld", (long long)cases[i].bytes);
        f.cfg.shared_store_size = cases[i].bytes;
        CHECK_INT(empm_check(&f.cfg, NULL, NULL), cases[i].errors);
    }
    CHECK(empm_start(&f.cfg, &f.s) < 0);     /* more than there is */
    CHECK(fx_log_has(&f, sizeof(size_t) < 8 ? "EMPM5500" : "EMPM5502"));
    fx_close_files(&f);
}

/* ---------------------------------------------------------------------------
 * >>head -- the grammar, as tables of input and outcome
 *
 * Every row is fed whole, byte by byte, and in two pieces at several points
 * (`long`: at every point). What is refused gets its status, Connection: close
 * and a clean FIN; after what is accepted the connection is in step.
 * ------------------------------------------------------------------------- */

typedef struct row {
    /* a known mistake of servers, or the RFC's word */
    const char *what;
    const char *in;
    size_t      len;
    int         want, or_else;      /* either status is right */
} row;

/* A row's name begins with the part of the message that it is about. */
#define ROW(what, in, want, or_else) { what, in, sizeof in - 1, want, or_else }
static const row head_rows[] = {
    ROW("plain", GET1 "\r\n", 200, 0),
    ROW("CRLF before the request", "\r\n" GET1 "\r\n", 200, 0),
    ROW("OWS around a value", GET1 "X: \t v \t \r\n\r\n", 200, 0),
    ROW("empty value", GET1 "X:\r\n\r\n", 200, 0),
    ROW("all token characters", GET1 "!#$%&'*+-.^_`|~09azAZ: v\r\n\r\n", 200,
        0),
    ROW("obs-text in a value", GET1 "X: \xc3\xa9\r\n\r\n", 200, 400),
    ROW("any case", "GET /hello HTTP/1.1\r\nhOST: a\r\ncONNECTION: "
        "KEEP-alive\r\n\r\n", 200, 0),
    ROW("query", "GET /hello?a=b&c=%20?/: HTTP/1.1\r\nHost: a\r\n\r\n", 200, 0),
    ROW("percent", "GET /%68ello HTTP/1.1\r\nHost: a\r\n\r\n", 200, 0),
    ROW("host and port", "GET /hello HTTP/1.1\r\nHost: a.example:8080\r\n\r\n",
        200, 0),
    ROW("host v6", "GET /hello HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200, 0),

    ROW("name: space inside", GET1 "X Y: v\r\n\r\n", 400, 0),
    ROW("name: tab", GET1 "X\t: v\r\n\r\n", 400, 0),
    ROW("name: @", GET1 "X@: v\r\n\r\n", 400, 0),
    ROW("name: (", GET1 "X(: v\r\n\r\n", 400, 0),
    ROW("name: quote", GET1 "\"X\": v\r\n\r\n", 400, 0),
    ROW("name: /", GET1 "X/Y: v\r\n\r\n", 400, 0),
    ROW("name: control", GET1 "X\x01: v\r\n\r\n", 400, 0),
    ROW("name: DEL", GET1 "X\x7f: v\r\n\r\n", 400, 0),
    ROW("name: non-ASCII", GET1 "X\xe9: v\r\n\r\n", 400, 0),
    ROW("name: empty", GET1 ": v\r\n\r\n", 400, 0),
    ROW("name: space before the colon", GET1 "X : v\r\n\r\n", 400, 0),
    ROW("name: space before the colon of a length", POST1
        "Content-Length : 5\r\n\r\nhello", 400, 0),
    ROW("name: no colon", GET1 "XYZ\r\n\r\n", 400, 0),
    ROW("name: first field is indented",
        "GET /hello HTTP/1.1\r\n Host: a\r\n\r\n", 400, 0),
    ROW("octets: bare CR as line end", GET1 "X: v\rY: w\r\n\r\n", 400, 0),
    ROW("octets: bare CR after the request line",
        "GET /hello HTTP/1.1\rHost: a\r\n\r\n", 400, 0),
    ROW("octets: CR CR LF", GET1 "X: v\r\r\n\r\n", 400, 0),
    ROW("octets: bare LF as line end", GET1 "X: v\nY: w\r\n\r\n", 400, 0),
    ROW("octets: bare LF inside OWS", GET1 "X: \nv\r\n\r\n", 400, 0),
    ROW("octets: LF after a field", GET1 "X: v\n\r\n", 400, 0),
    ROW("octets: the head ends with LF", GET1 "X: v\r\n\n", 400, 0),
    ROW("octets: all lines end with LF",
        "GET /hello HTTP/1.1\nHost: a\n\n", 400, 0),
    ROW("octets: CR at the end of a value", GET1 "X: v\r \r\n\r\n", 400, 0),
    ROW("octets: NUL in a value", GET1 "X: a\0b\r\n\r\n", 400, 0),
    ROW("octets: NUL in a name", GET1 "X\0: a\r\n\r\n", 400, 0),
    ROW("octets: NUL in the Host",
        "GET /hello HTTP/1.1\r\nHost: a\0b\r\n\r\n", 400, 0),
    ROW("octets: control in a value", GET1 "X: a\x01" "b\r\n\r\n", 400, 0),
    ROW("octets: DEL in a value", GET1 "X: a\x7f" "b\r\n\r\n", 400, 0),
    ROW("octets: VT in a value", GET1 "X: a\x0b" "b\r\n\r\n", 400, 0),
    ROW("octets: the head ends with CR LF CR X", GET1 "\rX\r\n\r\n", 400, 0),
    ROW("name: empty, first", GET1 ":\r\n\r\n", 400, 0),
    ROW("fold: obs-fold", GET1 "X: a\r\n b\r\n\r\n", 400, 0),
    ROW("fold: obs-fold by tab", GET1 "X: a\r\n\tb\r\n\r\n", 400, 0),
    ROW("fold: name over two lines", GET1 "X\r\nY: a\r\n\r\n", 400, 0),
    ROW("fold: colon on the next line", GET1 "X\r\n: a\r\n\r\n", 400, 0),

    ROW("neither length nor coding: no body", POST1 "\r\n", 200, 411),
    ROW("length: 0", POST1 "Content-Length: 0\r\n\r\n", 200, 0),
    ROW("length: plain", CL("5"), 200, 0),
    ROW("length: leading zeros", CL("005"), 200, 0),
    ROW("length: empty", CL(""), 400, 0),
    ROW("length: +", CL("+5"), 400, 0),
    ROW("length: -", CL("-5"), 400, 0),
    ROW("length: -48", CL("-48"), 400, 0),
    ROW("length: -0", CL("-0"), 400, 0),
    ROW("length: hex", CL("0x5"), 400, 0),
    ROW("length: underscore", CL("0_5"), 400, 0),
    ROW("length: trailing letter", CL("5Z"), 400, 0),
    ROW("length: fraction", CL("5.0"), 400, 0),
    ROW("length: inner space", CL("5 5"), 400, 0),
    ROW("length: quoted", CL("\"5\""), 400, 0),
    ROW("length: list", CL("5, 5"), 400, 0),
    ROW("length: list, other", CL("5, 6"), 400, 0),
    ROW("length: comma", CL("5,"), 400, 0),
    ROW("length: two lines", POST1 "Content-Length: 5\r\nContent-Length: "
        "5\r\n\r\nhello", 400, 0),
    ROW("length: two lines, other",
        POST1 "Content-Length: 5\r\nContent-Length: 6\r\n"
        "\r\nhello!", 400, 0),
    ROW("length: 2^31", CL("2147483648"), 413, 400),
    ROW("length: 2^32+5", CL("4294967301"), 413, 400),
    ROW("length: 2^63-1", CL("9223372036854775807"), 413, 400),
    ROW("length: 2^63", CL("9223372036854775808"), 400, 413),
    ROW("length: 2^64+5", CL("18446744073709551621"), 400, 413),
    ROW("length: huge",
        CL("99999999999999999999999999999999999999999999"), 400, 413),
    ROW("length: NUL", CL("5\0"), 400, 0),

    ROW("coding: chunked", TE(" chunked"), 200, 0),
    ROW("coding: chunked, any case", TE("\tChUnKeD "), 200, 0),
    ROW("coding: empty", TE(""), 400, 0),
    ROW("coding: ,chunked", TE(" ,chunked"), 200, 0),
    ROW("coding: chunked,", TE(" chunked, ,"), 200, 0),
    ROW("coding: chunked twice", TE(" chunked, chunked"), 400, 0),
    ROW("coding: chunked twice, two lines",
        POST1 "Transfer-Encoding: chunked\r\n"
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("coding: two lines, chunked first",
        POST1 "Transfer-Encoding: chunked\r\n"
        "Transfer-Encoding: gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("coding: two lines, one empty", POST1 "Transfer-Encoding: chunked\r\n"
        "Transfer-Encoding:\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, 0),
    ROW("coding: two lines", POST1 "Transfer-Encoding: gzip\r\n"
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 501, 0),
    ROW("coding: xchunked", TE(" xchunked"), 400, 0),
    ROW("coding: unknown", TE(" x"), 400, 0),
    ROW("coding: gzip", TE(" gzip"), 400, 0),
    ROW("coding: gzip, chunked", TE(" gzip, chunked"), 501, 0),
    ROW("coding: gzip with a parameter",
        TE(" gzip ; q=\"a,b\" , chunked"), 501, 0),
    ROW("coding: a comma in quotes", TE(" x;y=\",chunked\""), 400, 0),
    ROW("coding: no comma", TE(" gzip chunked"), 400, 0),
    ROW("coding: chunked, gzip", TE(" chunked, gzip"), 400, 0),
    ROW("coding: identity", TE(" identity"), 400, 0),
    ROW("coding: chunked, identity", TE(" chunked, identity"), 400, 0),
    ROW("coding: parameter", TE(" chunked;q=1"), 400, 0),
    ROW("coding: quoted", TE(" \"chunked\""), 400, 0),
    ROW("coding: VT before", TE(" \x0b" "chunked"), 400, 0),
    ROW("coding: NBSP before", TE(" \xa0" "chunked"), 400, 501),
    ROW("coding: NBSP after", TE(" chunked\xa0"), 400, 501),
    ROW("coding: underscore",
        POST1 "Transfer_Encoding: chunked\r\n\r\n", 200, 400),
    ROW("coding: with a length", POST1 "Content-Length: 5\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, 0),
    ROW("coding: with a length, other order",
        POST1 "Transfer-Encoding: chunked\r\n"
        "Content-Length: 5\r\n\r\n0\r\n\r\n", 400, 0),
    ROW("coding: on HTTP/1.0", "POST /echo HTTP/1.0\r\nHost: a\r\n"
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 400, 0),

    ROW("version: HTTP/1.1x",
        "GET /hello HTTP/1.1x\r\nHost: a\r\n\r\n", 400, 505),
    ROW("version: HTTP/1.10",
        "GET /hello HTTP/1.10\r\nHost: a\r\n\r\n", 400, 505),
    ROW("version: HTTP/11", "GET /hello HTTP/11\r\nHost: a\r\n\r\n", 400, 505),
    ROW("version: HTTP/01.1",
        "GET /hello HTTP/01.1\r\nHost: a\r\n\r\n", 400, 505),
    ROW("version: HTTP/1.", "GET /hello HTTP/1.\r\nHost: a\r\n\r\n", 400, 505),
    ROW("version: HTTP/1", "GET /hello HTTP/1\r\nHost: a\r\n\r\n", 400, 505),
    ROW("version: HTTP/.1", "GET /hello HTTP/.1\r\nHost: a\r\n\r\n", 400, 505),
    ROW("version: HTTP/257.1",
        "GET /hello HTTP/257.1\r\nHost: a\r\n\r\n", 400, 505),
    ROW("version: HTTP/1.257",
        "GET /hello HTTP/1.257\r\nHost: a\r\n\r\n", 400, 505),
    ROW("version: HTTP/2.0", "GET /hello HTTP/2.0\r\nHost: a\r\n\r\n", 505, 0),
    ROW("version: HTTP/3.1", "GET /hello HTTP/3.1\r\nHost: a\r\n\r\n", 505, 0),
    ROW("version: HTTP/0.9", "GET /hello HTTP/0.9\r\n\r\n", 505, 400),
    ROW("version: the real HTTP/0.9", "GET /hello\r\n\r\n", 400, 505),
    ROW("version: http/1.1",
        "GET /hello http/1.1\r\nHost: a\r\n\r\n", 400, 505),
    ROW("version: HTTPS/1.1",
        "GET /hello HTTPS/1.1\r\nHost: a\r\n\r\n", 400, 505),
    ROW("version: no slash",
        "GET /hello HTTP 1.1\r\nHost: a\r\n\r\n", 400, 505),
    ROW("version: the HTTP/2 preface",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, 400),

    ROW("line: LF as separator",
        "GET\n/hello\nHTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: tab as separator",
        "GET\t/hello\tHTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: two spaces", "GET  /hello HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: two spaces later",
        "GET /hello  HTTP/1.1\r\nHost: a\r\n\r\n", 400, 505),
    ROW("line: space at the end",
        "GET /hello HTTP/1.1 \r\nHost: a\r\n\r\n", 400, 505),
    ROW("line: space first",
        " GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: space in the target",
        "GET /hel lo HTTP/1.1\r\nHost: a\r\n\r\n", 400, 505),
    ROW("line: no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: empty target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: relative target",
        "GET hello HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: * with GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: fragment", "GET /hello#x HTTP/1.1\r\nHost: a\r\n\r\n", 200, 0),
    ROW("line: fragment with a slash", "GET /hello?q#/../x?y#z HTTP/1.1\r\n"
        "Host: a\r\n\r\n", 200, 0),
    ROW("line: fragment only", "GET #x HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: NUL in the target",
        "GET /hel\0lo HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: control in the target",
        "GET /hel\x01lo HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: non-ASCII target",
        "GET /h\xc3\xa9llo HTTP/1.1\r\nHost: a\r\n\r\n", 404, 0),
    ROW("line: non-ASCII query", "GET /hello?q=\xff\x80\xc3\xa9 HTTP/1.1\r\n"
        "Host: a\r\n\r\n", 200, 0),
    ROW("line: DEL in the target",
        "GET /hello?q=\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("path: /./", "GET /./hello HTTP/1.1\r\nHost: a\r\n\r\n", 200, 0),
    ROW("path: /../", "GET /a/../hello HTTP/1.1\r\nHost: a\r\n\r\n", 200, 0),
    ROW("path: //", "GET //hello HTTP/1.1\r\nHost: a\r\n\r\n", 200, 0),
    ROW("path: encoded",
        "GET /x/%2E%2e/%2e/hello HTTP/1.1\r\nHost: a\r\n\r\n", 200, 0),
    ROW("path: absolute-form",
        "GET http://b//a/../hello HTTP/1.1\r\nHost: a\r\n"
        "\r\n", 200, 0),
    ROW("path: above the root",
        "GET /../hello HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("path: above the root, later", "GET /a//../../hello HTTP/1.1\r\nHost: "
        "a\r\n\r\n", 400, 0),
    ROW("path: a bad escape in what goes", "GET /%zz/../hello HTTP/1.1\r\n"
        "Host: a\r\n\r\n", 400, 0),
    ROW("line: bad percent",
        "GET /hello%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: short percent",
        "GET /hello% HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: short percent 2",
        "GET /hello%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: %00", "GET /hello/%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, 404),
    ROW("line: method is no token",
        "G(T /hello HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: no method", "/hello HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: control in the method",
        "G\x01T /hello HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: missing Host", "GET /hello HTTP/1.1\r\n\r\n", 400, 0),
    ROW("line: two Host",
        "GET /hello HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, 0),
    ROW("line: two Host, other", "GET /hello HTTP/1.1\r\nHost: a\r\nX: y\r\n"
        "host: b\r\n\r\n", 400, 0),
    ROW("line: Host with a space",
        "GET /hello HTTP/1.1\r\nHost: a b\r\n\r\n", 400, 0),
    ROW("line: Host with /",
        "GET /hello HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, 0),
    ROW("line: Host with @",
        "GET /hello HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, 0),
    ROW("line: Host with two ports",
        "GET /hello HTTP/1.1\r\nHost: a:1:2\r\n\r\n", 400, 0),
    ROW("line: Host with a bad port",
        "GET /hello HTTP/1.1\r\nHost: a:x\r\n\r\n", 400, 0),
    ROW("line: Host list",
        "GET /hello HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, 0),
    ROW("absolute-form", "GET http://b/hello HTTP/1.1\r\nHost: a\r\n\r\n", 200,
        0),
    ROW("absolute-form, port, case", "GET HTTP://b:80/hello?x HTTP/1.1\r\n"
        "Host: a\r\n\r\n", 200, 0),
    ROW("absolute-form, no host", "GET http:///hello HTTP/1.1\r\nHost: "
        "a\r\n\r\n", 400, 0),
    ROW("absolute-form, user", "GET http://u@b/hello HTTP/1.1\r\nHost: "
        "a\r\n\r\n", 400, 0),
    ROW("absolute-form, scheme", "GET ftp://b/hello HTTP/1.1\r\nHost: "
        "a\r\n\r\n", 400, 0),
    ROW("absolute-form without Host", "GET http://b/hello HTTP/1.1\r\n\r\n",
        400, 0),
    ROW("HTTP/1.0 without Host", "GET /hello HTTP/1.0\r\n\r\n", 200, 0),
    ROW("HTTP/1.0 with two Host", "GET /hello HTTP/1.0\r\nHost: a\r\nHost: "
        "b\r\n\r\n", 400, 0),

    ROW("unknown method", "BREW /hello HTTP/1.1\r\nHost: a\r\n\r\n", 501, 0),
    ROW("long unknown method", "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRST "
        "/hello HTTP/1.1\r\nHost: a\r\n\r\n", 501, 400),
    ROW("lower-case method", "get /hello HTTP/1.1\r\nHost: a\r\n\r\n", 501,
        400),
    ROW("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501, 0),
    ROW("CONNECT with a path", "CONNECT /hello HTTP/1.1\r\nHost: a\r\n\r\n",
        501, 0),
    ROW("empty expectation", POST1 "Expect:\r\nContent-Length: 5\r\n\r\nhello",
        200, 0),
    ROW("expectations, one empty", POST1 "Expect: 100-Continue ,\r\n"
        "Content-Length: 5\r\n\r\nhello", 200, 0),
    ROW("expectation twice", POST1 "Expect: 100-continue\r\n"
        "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", 200, 0),
    ROW("expectations, one unknown", POST1 "Expect: 100-continue, x\r\n"
        "Content-Length: 5\r\n\r\nhello", 417, 0),
    ROW("expectations on two lines, one unknown", POST1 "Expect: "
        "100-continue\r\nExpect: x\r\nContent-Length: 5\r\n\r\nhello", 417, 0),
    ROW("expectation with a value", POST1 "Expect: 100-continue=1\r\n"
        "Content-Length: 5\r\n\r\nhello", 417, 0),
    ROW("line: Host with an escape",
        "GET /hello HTTP/1.1\r\nHost: a%41\r\n\r\n", 200, 0),
    ROW("line: Host with half an escape", "GET /hello HTTP/1.1\r\nHost: "
        "a%4\r\n\r\n", 400, 0),
    ROW("line: Host v6 that is none", "GET /hello HTTP/1.1\r\nHost: "
        "[::1::]\r\n\r\n", 400, 0),
    ROW("line: Host v6, empty",
        "GET /hello HTTP/1.1\r\nHost: []\r\n\r\n", 400, 0),
    ROW("line: Host v6 and letters",
        "GET /hello HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400, 0),
    ROW("line: Host v6 with v4", "GET /hello HTTP/1.1\r\n"
        "Host: [0000:0000:0000:0000:0000:ffff:192.168.100.200]:65535\r\n\r\n",
        200, 0),
    ROW("other expectation", POST1 "Expect: x\r\nContent-Length: "
        "5\r\n\r\nhello", 417, 0),
    ROW("TLS hello",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x11\x22\x33\x44"
        "\x55\x66\x77\x88\x99\xaa\xbb\xcc\r\n\r\n", 400, 0),
    ROW("SSH", "SSH-2.0-OpenSSH_9.2\r\n", 400, 0),
    ROW("SMTP", "EHLO a\r\n", 400, 0),
    ROW("garbage", "\xff\xfe\xfd\r\n\r\n", 400, 0)
};

static const row body_rows[] = {
    ROW("chunks", CHUNK "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", 200, 0),
    ROW("hex, both cases",
        CHUNK "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", 200, 0),
    ROW("leading zeros", CHUNK "0005\r\nhello\r\n0\r\n\r\n", 200, 0),
    ROW("extension", CHUNK "5;a=b;c\r\nhello\r\n0;d\r\n\r\n", 200, 0),
    ROW("quoted extension", CHUNK "5;a=\"b;c \\\" d\"\r\nhello\r\n0\r\n\r\n",
        200, 0),
    ROW("no data", CHUNK "0\r\n\r\n", 200, 0),
    ROW("blanks around ; and =", CHUNK "5 ;\ta =\t\"b\" ; c= d\r\nhello\r\n"
        "0 ; e\r\n\r\n", 200, 0),
    ROW("blanks after an extension", CHUNK "5;a \r\nhello\r\n0\r\n\r\n", 400,
        0),
    ROW("trailer", CHUNK "5\r\nhello\r\n0\r\nX-Trailer: v\r\nY: \r\n\r\n", 200,
        0),

    ROW("chunk: empty size", CHUNK "\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: size is only an extension",
        CHUNK ";a\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: 0x", CHUNK "0x5\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: +", CHUNK "+5\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: -", CHUNK "-5\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: -0", CHUNK "-0\r\n\r\n", 400, 0),
    ROW("chunk: _", CHUNK "0_5\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: garbage after", CHUNK "5x\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: garbage after a space",
        CHUNK "5 x\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: inner space", CHUNK "0 5\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: space before", CHUNK " 5\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: space after", CHUNK "5 \r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: tab after", CHUNK "5\t\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: 2^64+5",
        CHUNK "10000000000000005\r\nhello\r\n0\r\n\r\n", 400, 413),
    ROW("chunk: 2^64-1",
        CHUNK "ffffffffffffffff\r\nhello\r\n0\r\n\r\n", 400, 413),
    ROW("chunk: 2^63",
        CHUNK "8000000000000000\r\nhello\r\n0\r\n\r\n", 400, 413),
    ROW("chunk: 2^63-1",
        CHUNK "7fffffffffffffff\r\nhello\r\n0\r\n\r\n", 413, 400),
    ROW("chunk: 2^32+5", CHUNK "100000005\r\nhello\r\n0\r\n\r\n", 413, 400),
    ROW("chunk: larger than the limit",
        CHUNK "200000\r\nhello\r\n0\r\n\r\n", 413, 0),
    ROW("chunk: CR only", CHUNK "5\rhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: LF only", CHUNK "5\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: CR CR LF", CHUNK "5\r\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: NUL", CHUNK "5\0\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: LF in an extension",
        CHUNK "5;a\nb\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: CR in an extension",
        CHUNK "5;a\rb\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: NUL in an extension",
        CHUNK "5;a\0b\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: LF after the data", CHUNK "5\r\nhello\n0\r\n\r\n", 400, 0),
    ROW("chunk: XX after the data", CHUNK "5\r\nhelloXX0\r\n\r\n", 400, 0),
    ROW("chunk: CR X after the data", CHUNK "5\r\nhello\rX0\r\n\r\n", 400, 0),
    ROW("chunk: CR LF XX after the data",
        CHUNK "5\r\nhello\r\nXX\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: longer than its size",
        CHUNK "5\r\nhello!\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: shorter than its size",
        CHUNK "6\r\nhello\r\n0\r\n\r\n", 400, 0),
    ROW("chunk: LF after the last chunk", CHUNK "5\r\nhello\r\n0\n\n", 400, 0),
    ROW("chunk: the trailer ends with LF", CHUNK "0\r\n\n", 400, 0),
    ROW("chunk: the trailer ends with CR X", CHUNK "0\r\n\rX\r\n\r\n", 400, 0),
    ROW("trailer: no colon", CHUNK "0\r\nabc\r\n\r\n", 400, 0),
    ROW("trailer: bad name", CHUNK "0\r\na b: c\r\n\r\n", 400, 0),
    ROW("trailer: fold", CHUNK "0\r\na: b\r\n c\r\n\r\n", 400, 0),
    ROW("trailer: NUL", CHUNK "0\r\na: b\0c\r\n\r\n", 400, 0),
    ROW("trailer: LF", CHUNK "0\r\na: b\nc: d\r\n\r\n", 400, 0),
    ROW("trailer: Content-Length", CHUNK "0\r\nContent-Length: 5\r\n\r\n", 200,
        0),
    ROW("trailer: Transfer-Encoding", CHUNK "0\r\nTransfer-Encoding: "
        "chunked\r\n\r\n", 200, 0),
    ROW("trailer: Content-Type", CHUNK "5\r\nhello\r\n0\r\nContent-Type: "
        "a/b\r\nX: y\r\n\r\n", 200, 0),
    ROW("trailer: Host", CHUNK "0\r\nHost: b\r\n\r\n", 200, 0),
    ROW("trailer: Authorization", CHUNK "0\r\nAuthorization: b\r\n\r\n", 200, 0)
};

/* Feeds a row in pieces: [0,cut), [cut,len); cut 0: byte by byte. */
static void feed_row(const fixture *f, const row *r, size_t cut)
{
    client c;
    size_t i;
    int status;

    if (cl_open(&c, f) != 0)
        return;
    if (cut == 0) {
        for (i = 0; i < r->len; i++)
            cl_send(&c, r->in + i, 1);
    } else {
        cl_send(&c, r->in, cut);
        if (cut < r->len) {
            /* a moment for the server to meet the cut */
            cl_readable(&c, 1);
            cl_send(&c, r->in + cut, r->len - cut);
        }
    }
    while ((status = cl_reply(&c)) == 100)
        ;
    if (status != r->want && (r->or_else == 0 || status != r->or_else))
        fail(__FILE__, __LINE__, "\"%s\" cut at %lu: %d, not %d", r->what,
             (unsigned long)cut, status, r->want);
    CHECK(status <= 0 || c.complete);
    if (status == 200) {
        if (strncmp(c.head.p, "HTTP/1.1", 8) == 0 && !c.closes)
            check_in_step(&c);
    } else if (status > 0 && status != 417 && status != 501 && status != 404) {
        CHECK_INT(c.closes, 1);
        CHECK_FIN(&c);
    } else if (status > 0 && c.closes) {
        CHECK_FIN(&c);
    }
    cl_close(&c);
}

static void feed_table(const row *rows, size_t n, int every)
{
    fixture f;
    size_t i, cut;

    fx_init(&f);
    if (!fx_up(&f))
        return;
    for (i = 0; i < n && get_int(&g_failures) < 40; i++) {
        const row *r = &rows[i];
        context("%s", r->what);
        feed_row(&f, r, r->len);
        feed_row(&f, r, 0);
        if (every) {
            for (cut = 1; cut < r->len; cut++)
                feed_row(&f, r, cut);
            continue;
        }
        feed_row(&f, r, r->len - 1);
        if (r->len > 3)
            feed_row(&f, r, r->len - 3);
        if (r->len > 40)
            feed_row(&f, r, r->len / 2 + i % 11);
    }
    no_context();
    CHECK_INT(get_status(&f, "/hello"), 200);
    fx_down(&f);
}

#define ROWS(table) table, sizeof table / sizeof table[0]

/* Each row of the table of heads gets its status, over a real socket. */
TEST(head, grammar)             { feed_table(ROWS(head_rows), 0); }

/* Each row of the table of bodies gets its status, over a real socket. */
TEST(body, grammar)             { feed_table(ROWS(body_rows), 0); }

/* The status of a head does not depend on where the network cuts it. */
LONG(head, grammar_every_cut)   { feed_table(ROWS(head_rows), 1); }

/* The status of a body does not depend on where the network cuts it. */
LONG(body, grammar_every_cut)   { feed_table(ROWS(body_rows), 1); }

/* Each limit of a head holds to the byte: requests that differ only in their
 * length are served up to it and refused beyond it. */
SERVED_HERE(head, limits, NULL)
{
    str s = STR_EMPTY;
    int i;

    for (i = 0; i < 2; i++) {           /* the line: 8190 */
        context("line %d", i);
        s.n = 0;
        str_addf(&s, "GET /hello?");
        str_fill(&s, 'a', i ? 8300 : 8100);
        str_addf(&s, " HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK_INT(cl_ask_n(c, s.p, s.n), i ? 414 : 200);
        if (i)
            CHECK_FIN(c);
        cl_close(c);
    }
    s.n = 0;                            /* found before its end */
    str_addf(&s, "GET /");
    str_fill(&s, 'a', 9000);
    context("line without an end");
    CHECK_INT(cl_ask_n(c, s.p, s.n), 414);
    CHECK_FIN(c);
    cl_close(c);
    for (i = 0; i < 2; i++) {           /* one field: 8190 */
        context("field %d", i);
        s.n = 0;
        str_addf(&s, GET1 "X: ");
        str_fill(&s, 'a', i ? 8300 : 8100);
        str_addf(&s, "\r\n\r\n");
        CHECK_INT(cl_ask_n(c, s.p, s.n), i ? 431 : 200);
        if (i)
            CHECK_FIN(c);
        else
            check_in_step(c);
        cl_close(c);
    }
    for (i = 0; i < 2; i++) {           /* their number: 100 */
        int j;
        context("fields %d", i);
        s.n = 0;
        str_addf(&s, GET1);
        for (j = 0; j < (i ? 102 : 99); j++)
            str_addf(&s, "X%d: y\r\n", j);
        str_addf(&s, "\r\n");
        CHECK_INT(cl_ask_n(c, s.p, s.n), i ? 431 : 200);
        if (i)
            CHECK_FIN(c);
        else
            check_in_step(c);
        cl_close(c);
    }
    for (i = 0; i < 2; i++) {           /* all of it: 65536 */
        int j;
        context("head %d", i);
        s.n = 0;
        str_addf(&s, GET1);
        for (j = 0; j < (i ? 9 : 7); j++) {
            str_addf(&s, "X: ");
            str_fill(&s, 'a', 8000);
            str_addf(&s, "\r\n");
        }
        str_addf(&s, "\r\n");
        CHECK_INT(cl_ask_n(c, s.p, s.n), i ? 431 : 200);
        if (i)
            CHECK_FIN(c);
        else
            check_in_step(c);
        cl_close(c);
    }
    context("segments");
    s.n = 0;                            /* EMPM_PATH_SEGMENTS */
    str_addf(&s, "GET ");
    for (i = 0; i < 200; i++)
        str_addf(&s, "/a");
    str_addf(&s, " HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(cl_ask_n(c, s.p, s.n), 414);
    cl_close(c);
    context("chunk extension");
    s.n = 0;
    str_addf(&s, CHUNK "5;");
    str_fill(&s, 'a', 100000);
    CHECK_INT(cl_ask_n(c, s.p, s.n) / 100, 4);
    CHECK_FIN(c);
    cl_close(c);
    context("trailers");
    s.n = 0;
    str_addf(&s, CHUNK "0\r\n");
    for (i = 0; i < 5000; i++)
        str_addf(&s, "X-Something-%d: y\r\n", i);
    str_addf(&s, "\r\n");
    CHECK_INT(cl_ask_n(c, s.p, s.n) / 100, 4);
    CHECK_FIN(c);
    cl_close(c);
    context("empty lines first");
    s.n = 0;                            /* they take no room */
    for (i = 0; i < 700000; i++)
        str_addf(&s, "\r\n");
    str_addf(&s, GET1 "\r\n");
    CHECK_INT(cl_ask_n(c, s.p, s.n), 200);
    check_in_step(c);
    no_context();
    str_free(&s);
}

/* The limits of a head and of a body are those of the configuration. */
SERVED_HERE(head, limits_are_settings,
            "LimitRequestLine 64; LimitRequestFieldSize 70; "
            "LimitRequestFields 3; LimitRequestBody 10")
{
    CHECK_INT(cl_ask(c, "GET /hello?0123456789012345678901234567890123456789"
                     "012345 HTTP/1.1\r\nHost: a\r\n\r\n"), 414);
    CHECK_INT(cl_ask(c, GET1 "X: 0123456789012345678901234567890123456789"
                     "012345678901234567890123456789\r\n\r\n"), 431);
    CHECK_INT(cl_ask(c, GET1 "A: 1\r\nB: 2\r\n\r\n"), 200);
    CHECK_INT(cl_ask(c, GET1 "A: 1\r\nB: 2\r\nC: 3\r\n\r\n"), 431);
    CHECK_INT(cl_ask(c, POST1 "Content-Length: 10\r\n\r\n0123456789"), 200);
    CHECK_INT(cl_ask(c, POST1 "Content-Length: 11\r\n\r\n0123456789a"), 413);
    CHECK_INT(cl_ask(c, CHUNK "6\r\n012345\r\n5\r\n67890\r\n0\r\n\r\n"), 413);
    CHECK_FIN(c);
}

/* Input that cannot become HTTP is refused with its first bytes, not after the
 * head's timeout. */
SERVED_HERE(head, not_http_is_refused_at_once, NULL)
{
    static const row rows[] = {
        ROW("TLS client hello", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
            400, 0),
        ROW("HTTP/2 preface", "PRI * "
            "HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 505, 400),
        ROW("NULs", "\0\0\0\0\0\0\0\0", 400, 0)
    };

    EACH(rows, i) {
        uint64_t t0 = now_ms();
        int status;
        context("%s", rows[i].what);
        cl_open(c, f);
        c->patience = AT_ONCE;
        cl_send(c, rows[i].in, rows[i].len);
        status = cl_reply(c);
        CHECK(status == rows[i].want || (rows[i].or_else != 0 &&
                                         status == rows[i].or_else));
        CHECK_FIN(c);
        CHECK_IN(now_ms() - t0, 0, AT_ONCE);
        cl_close(c);
    }
}

/* A client of HTTP/1.0 gets no chunked coding and no interim response; its
 * connection stays only if it asks. */
SERVED(head, http_1_0, NULL)
{
    CHECK_INT(cl_ask(c, "GET /hello HTTP/1.0\r\n\r\n"), 200);
    CHECK_INT(c->declared, 14);
    CHECK_FIN(c);
    CHECK_INT(cl_ask(c, "GET /hello HTTP/1.0\r\nConnection: Keep-Alive\r\n"
                     "\r\n"), 200);
    CHECK(has_word(cl_header(c, "Connection"), "keep-alive"));
    CHECK_INT(c->declared, 14);
    check_in_step(c);
    /* no length known: the end is the close, never chunked */
    CHECK_INT(cl_ask(c, "GET /produce?bytes=200000 HTTP/1.0\r\n"
                     "Connection: keep-alive\r\n\r\n"), 200);
    CHECK_INT(c->chunked, 0);
    CHECK_INT(c->closes, 1);
    CHECK_INT(c->body.n, 200000);
    CHECK_INT(c->complete, 1);
    CHECK_INT(pattern_fault(c->body.p, c->body.n, 0), -1);
    CHECK_INT(cl_ask(c, "GET /big?bytes=300000 HTTP/1.0\r\n\r\n"), 200);
    CHECK_INT(c->chunked, 0);
    CHECK_INT(c->body.n, 300000);
    CHECK_INT(cl_ask(c, "POST /echo HTTP/1.0\r\nExpect: 100-continue\r\n"
                     "Content-Length: 5\r\n\r\nhello"), 200);
    CHECK_STR(c->body.p, "hello");
}

/* Field lines of one name are one list, whose empty elements mean nothing (RFC
 * 9110 5.3, 5.6.1). */
SERVED(head, lists_are_read_as_one, NULL)
{
    static const struct { const char *fields; int closes; } rows[] = {
        { "Connection: close\r\n", 1 },
        { "Connection: x\r\nConnection: ,close\r\n", 1 },
        { "Connection: , ,\tClose ,x\r\n", 1 },
        { "Connection: keep-alive, close\r\n", 1 },
        { "Connection: \"x, close, y\"\r\n", 0 },
        { "Connection: closed, xclose\r\n", 0 },
        { "Connection:\r\n", 0 }
    };

    EACH(rows, i) {
        context("%s", rows[i].fields);
        cl_printf(c, GET1 "%s\r\n", rows[i].fields);
        CHECK_INT(cl_reply(c), 200);
        CHECK_INT(c->closes, rows[i].closes);
        cl_close(c);
    }
}

/* A client that says keep-alive learns how long and for how many requests, as
 * from Apache: Node's pool would reuse a connection that is about to end. */
SERVED(head, keep_alive_says_for_how_long,
       "KeepAliveTimeout 7900ms; MaxKeepAliveRequests 3")
{
    int i;

    for (i = 0; i < 2; i++) {
        const char *const line = i ? "GET /hello HTTP/1.0" : "GET /hello "
                                 "HTTP/1.1";
        context("%s", line);
        cl_printf(c, "%s\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", line);
        CHECK_INT(cl_reply(c), 200);
        CHECK_STR(cl_header(c, "Keep-Alive"), "timeout=7, max=2");
        CHECK(has_word(cl_header(c, "Connection"), "keep-alive"));
        cl_printf(c, "%s\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", line);
        CHECK_INT(cl_reply(c), 200);
        CHECK_STR(cl_header(c, "Keep-Alive"), "timeout=7, max=1");
        cl_printf(c, "%s\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", line);
        CHECK_INT(cl_reply(c), 200);
        CHECK(cl_header(c, "Keep-Alive") == NULL);
        CHECK_INT(c->closes, 1);
        cl_close(c);
    }
    no_context();
    CHECK_INT(cl_ask(c, GET1 "\r\n"), 200);      /* it has not asked */
    CHECK(cl_header(c, "Keep-Alive") == NULL);
}

/* HEAD has the fields of GET and no body. A method that a path has not is 405
 * with Allow, an unknown one 501; OPTIONS and * are answered. */
SERVED(head, methods, NULL)
{
    const char *allow;

    cl_puts(c, "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(cl_reply_with(c, 1), 200);
    CHECK_INT(c->declared, 14);
    check_in_step(c);
    cl_puts(c, "HEAD /produce?bytes=100000 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(cl_reply_with(c, 1), 200);
    check_in_step(c);
    cl_puts(c, "HEAD /big?bytes=400000 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(cl_reply_with(c, 1), 200);
    check_in_step(c);
    cl_puts(c, "HEAD /no/such HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(cl_reply_with(c, 1), 404);
    if (!c->closes)
        check_in_step(c);

    CHECK_INT(cl_ask(c, "DELETE /hello HTTP/1.1\r\nHost: a\r\n\r\n"), 405);
    allow = cl_header(c, "Allow");
    CHECK(allow != NULL && has_word(allow, "GET") && has_word(allow, "HEAD"));
    CHECK(allow != NULL && !has_word(allow, "POST"));
    CHECK_INT(cl_ask(c, "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"), 405);
    allow = cl_header(c, "Allow");
    CHECK(allow != NULL && has_word(allow, "POST") && has_word(allow, "PUT"));
    CHECK(allow != NULL && !has_word(allow, "GET"));
    CHECK_INT(cl_ask(c, "OPTIONS /echo HTTP/1.1\r\nHost: a\r\n\r\n") / 100, 2);
    allow = cl_header(c, "Allow");
    CHECK(allow != NULL && has_word(allow, "POST") &&
          has_word(allow, "OPTIONS"));
    check_in_step(c);
    CHECK_INT(cl_ask(c, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n") / 100, 2);
    check_in_step(c);
    CHECK_INT(cl_ask(c, "OPTIONS /nothing HTTP/1.1\r\nHost: a\r\n\r\n"), 404);
    cl_ask(c, "TRACE /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(c->status == 501 || c->status == 405);
    CHECK_INT(cl_ask(c, "DELETE /dump/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    CHECK(strstr(c->body.p, "method=DELETE\n") != NULL);
}

/* A list is read as RFC 9110 5.6.1 has it: empty elements do not count, blanks
 * around one do not belong to it, a comma in quotes divides nothing. From the
 * right quotes mean nothing, so that no client hides what a proxy appends. */
TEST(head, lists)
{
    static const struct { const char *value; char escape;
                          const char *left, *right; } rows[] = {
        { "", '\\', "", "" },
        { " ,\t, ,", '\\', "", "" },
        { "a", '\\', "a", "a" },
        { "\ta \t", '\\', "a", "a" },
        { "a,b ,\tc", '\\', "a|b|c", "c|b|a" },
        { ",, a ,,\t,b,", '\\', "a|b", "b|a" },
        { "a b, c;d = e", '\\', "a b|c;d = e", "c;d = e|a b" },
        { "\"a,b\", c", '\\', "\"a,b\"|c", "c|b\"|\"a" },
        { "x=\"a,\" ,b", '\\', "x=\"a,\"|b", "b|\"|x=\"a" },
        { "\"a\\\",b\",c", '\\', "\"a\\\",b\"|c", "c|b\"|\"a\\\"" },
        { "\"a\\\",b\",c", 0, "\"a\\\"|b\",c", "c|b\"|\"a\\\"" },
        { "\"a\\", '\\', "\"a\\", "\"a\\" },
        { "\"a, b", '\\', "\"a, b", "b|\"a" },
        { "W/\"\", \"\"", 0, "W/\"\"|\"\"", "\"\"|W/\"\"" }
    };
    str got = STR_EMPTY;

    EACH(rows, i) {
        const char *item;
        size_t left = strlen(rows[i].value), n;
        empm__list list;
        context("\"%s\"", rows[i].value);
        empm__list_of_value(&list, rows[i].value);
        list.escape = rows[i].escape;
        for (got.n = 0; empm__list_next(&list);)
            str_addf(&got, "%s%.*s", got.n > 0 ? "|" : "", (int)list.n,
                     list.item);
        CHECK_STR(got.n > 0 ? got.p : "", rows[i].left);
        for (got.n = 0; empm__list_last(rows[i].value, &left, &item, &n);)
            str_addf(&got, "%s%.*s", got.n > 0 ? "|" : "", (int)n, item);
        CHECK_STR(got.n > 0 ? got.p : "", rows[i].right);
    }
    str_free(&got);
}

/* Memory of whole pages whose end is followed by a page that nobody may
 * touch. */
static char *guarded(size_t n)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t whole = (n + page - 1) / page * page;
    char *m = (char *)mmap(NULL, whole + page, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(m + whole, page, PROT_NONE);
    /* the last byte is the last one there is */
    return m + whole - n;
}

static void guarded_free(char *p, size_t n)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t whole = (n + page - 1) / page * page;
    munmap(p + n - whole, whole + page);
}

/* Feeds in[0..n) in pieces that end at a, at b and at n, each time moved to
 * other memory, as a growing buffer is. Returns 1, a status, or 0. */
static int head_fed(const char *in, size_t n, size_t a, size_t b,
                    const empm_config *cfg)
{
    empm__chars chars;
    empm__field fields[200];
    empm__head h;
    const size_t ends[3] = { a, b, n };
    char *old = NULL;
    size_t old_n = 0, i;
    int r = EMPM__MORE;
    empm__chars_init(&chars);
    empm__head_init(&h, fields, 200, 0);
    for (i = 0; i < 3 && r == EMPM__MORE; i++) {
        char *m;
        if (ends[i] <= old_n)
            continue;
        m = guarded(ends[i]);
        memcpy(m, in, ends[i]);
        if (old != NULL) {
            memcpy(m, old, old_n);
            guarded_free(old, old_n);
        }
        r = empm__head_parse(&h, cfg, &chars, m, (uint32_t)ends[i]);
        old = m;
        old_n = ends[i];
    }
    if (old != NULL)
        guarded_free(old, old_n);
    return r;
}

/* Byte by byte. */
static int head_dribbled(const char *in, size_t n, const empm_config *cfg)
{
    empm__chars chars;
    empm__field fields[200];
    empm__head h;
    char *m = guarded(n);
    size_t i;
    int r = EMPM__MORE;
    memcpy(m, in, n);
    empm__chars_init(&chars);
    empm__head_init(&h, fields, 200, 0);
    for (i = 1; i <= n && r == EMPM__MORE; i++)
        r = empm__head_parse(&h, cfg, &chars, m, (uint32_t)i);
    guarded_free(m, n);
    return r;
}

static int status_at_every_split(const char *in, size_t n)
{
    const empm_config cfg = empm_defaults();
    const int whole = head_fed(in, n, n, n, &cfg);
    const size_t step = n > 600 ? n / 97 : 1;
    size_t a;
    if (head_dribbled(in, n, &cfg) != whole) {
        CHECK_INT(head_dribbled(in, n, &cfg), whole);
        return -1;
    }
    for (a = 1; a < n; a += step)
        if (head_fed(in, n, a, a + (n - a) / 2, &cfg) != whole) {
            CHECK_INT(head_fed(in, n, a, a + (n - a) / 2, &cfg), whole);
            return -(int)a;
        }
    return whole;
}

#define HEAD_GET "GET / HTTP/1.1\r\nHost: a\r\n"
#define HEAD_POST "POST / HTTP/1.1\r\nHost: a\r\n"

/* Each rule of RFC 9112 and RFC 9110 for heads holds wherever the head is cut;
 * each leniency that would let two servers disagree is refused. */
TEST(head, every_rule_at_every_split)
{
    static const struct { const char *in; size_t n; int status; } cases[] = {
#define CASE(text, status) { text, sizeof(text) - 1, status }
        /* accepted */
        CASE(HEAD_GET "\r\n", 0),
        CASE("GET / HTTP/1.0\r\n\r\n", 0),
        CASE("GET / HTTP/1.7\r\nHost: a\r\n\r\n", 0),
        CASE("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 0),
        CASE("GET /?a=b&c=d HTTP/1.1\r\nHost:a\r\nX:\r\nY: \t z \t\r\n\r\n", 0),
        CASE("GET http://a.b:80/x HTTP/1.1\r\nHost: other\r\n\r\n", 0),
        CASE("GET HTTPS://[::1]:80?x HTTP/1.1\r\nHost: [::1]\r\n\r\n", 0),
        CASE("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n", 0),
        CASE(HEAD_POST "Content-Length: 0\r\n\r\n", 0),
        CASE(HEAD_POST "Content-Length: 9223372036854775807\r\n\r\n", 0),
        CASE(HEAD_POST "Transfer-Encoding: chunked\r\n\r\n", 0),
        CASE(HEAD_POST "transfer-encoding:\tCHUNKED \r\n\r\n", 0),
        CASE(HEAD_GET "X: \x80\xff obs-text\r\n\r\n", 0),
        CASE("!#$%&'*+-.^_`|~09azAZ / HTTP/1.1\r\nHost: a\r\n\r\n", 0),
        /* incomplete: wait */
        CASE("GET / HTTP/1.1\r\nHost: a\r\n", EMPM__MORE),
        CASE("GET / HT", EMPM__MORE),
        CASE("\r\n", EMPM__MORE),
        /* the request line */
        CASE("GET /\r\n\r\n", 400),                       /* HTTP/0.9 */
        CASE("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        CASE("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        CASE(" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        CASE("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        CASE("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        CASE("GET /\nHTTP/1.1\r\nHost: a\r\n\r\n", 400),
        CASE("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        CASE("GET / HTTP/1.1x\r\nHost: a\r\n\r\n", 400),
        CASE("GET / HTTP/11.1\r\nHost: a\r\n\r\n", 400),
        CASE("GET / HTTP/1.\r\nHost: a\r\n\r\n", 400),
        CASE("GET / HTTP/257.1\r\nHost: a\r\n\r\n", 400),
        CASE("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        CASE("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        CASE("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        CASE("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        CASE("GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n", 0),
        CASE("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        CASE("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", 0),
        CASE("GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        CASE("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        CASE("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        CASE("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        CASE("GET http://u@h/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        CASE("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        CASE("\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),     /* TLS */
        CASE("\x80\x2e\x01", 400),
        CASE("\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n" HEAD_GET "\r\n", 0),
        /* Host */
        CASE("GET / HTTP/1.1\r\n\r\n", 400),
        CASE(HEAD_GET "Host: a\r\n\r\n", 400),
        CASE("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        CASE("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        CASE("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        CASE("GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", 400),
        CASE("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        /* fields */
        CASE(HEAD_GET "X : 1\r\n\r\n", 400), CASE(HEAD_GET ": 1\r\n\r\n", 400),
        CASE(HEAD_GET "X\r\n\r\n", 400), CASE(HEAD_GET "X\x80: 1\r\n\r\n", 400),
        CASE(HEAD_GET " folded\r\n\r\n", 400), CASE(HEAD_GET "X: 1\r\n "
                                                    "2\r\n\r\n", 400),
        CASE(HEAD_GET "X: 1\n\r\n", 400), CASE(HEAD_GET "X: 1\r\n\n", 400),
        CASE(HEAD_GET "X: 1\r2\r\n\r\n", 400), CASE(HEAD_GET "X: 1\r\r\n\r\n",
                                                    400),
        CASE(HEAD_GET "X: 1\0002\r\n\r\n", 400), CASE(HEAD_GET "X: "
                                                      "\x7f\r\n\r\n", 400),
        CASE(HEAD_GET "\0: 1\r\n\r\n", 400), CASE(HEAD_GET "\r\rX\n\r\n", 400),
        CASE(HEAD_GET "(X): 1\r\n\r\n", 400), CASE(HEAD_GET "X: "
                                                   "a\x0b" "b\r\n\r\n", 400),
        /* lengths */
        CASE(HEAD_POST "Content-Length:\r\n\r\n", 400),
        CASE(HEAD_POST "Content-Length: +1\r\n\r\n", 400),
        CASE(HEAD_POST "Content-Length: -48\r\n\r\n", 400),
        CASE(HEAD_POST "Content-Length: 0x10\r\n\r\n", 400),
        CASE(HEAD_POST "Content-Length: 010\r\n\r\n", 0),
        CASE(HEAD_POST "Content-Length: 1_0\r\n\r\n", 400),
        CASE(HEAD_POST "Content-Length: 1Z\r\n\r\n", 400),
        CASE(HEAD_POST "Content-Length: 1 2\r\n\r\n", 400),
        CASE(HEAD_POST "Content-Length: 5, 5\r\n\r\n", 400),
        CASE(HEAD_POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
        CASE(HEAD_POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        CASE(HEAD_POST "Content-Length: 9223372036854775808\r\n\r\n", 400),
        CASE(HEAD_POST "Content-Length: 3\r\nTransfer-Encoding: "
             "chunked\r\n\r\n", 400),
        CASE(HEAD_POST "Transfer-Encoding: chunked\r\nContent-Length: "
             "3\r\n\r\n", 400),
        /* codings */
        CASE(HEAD_POST "Transfer-Encoding:\r\n\r\n", 400),
        CASE(HEAD_POST "Transfer-Encoding: ,chunked\r\n\r\n", 0),
        CASE(HEAD_POST "Transfer-Encoding: chunked,\r\n\r\n", 0),
        CASE(HEAD_POST "Transfer-Encoding: chunked, chunked\r\n\r\n", 400),
        CASE(HEAD_POST "Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
        CASE(HEAD_POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: "
             "chunked\r\n\r\n",
            400),
        CASE(HEAD_POST "Transfer-Encoding: gzip\r\nTransfer-Encoding: "
             "chunked\r\n\r\n",
            501),
        CASE(HEAD_POST "Transfer-Encoding: gzip\r\n\r\n", 400),
        CASE(HEAD_POST "Content-Length: "
             "00000000000000000000000000000005\r\n\r\n", 0),
        CASE(HEAD_POST "Content-Length: 009223372036854775808\r\n\r\n", 400),
        CASE(HEAD_POST "Transfer-Encoding: \xa0" "chunked\r\n\r\n", 400),
        CASE(HEAD_POST "Transfer-Encoding: \x0b" "chunked\r\n\r\n", 400),
        CASE(HEAD_POST "Transfer-Encoding: \"chunked\"\r\n\r\n", 400),
        CASE(HEAD_POST "Transfer-Encoding: chunked;q=1\r\n\r\n", 400),
        CASE(HEAD_POST "Transfer-Encoding: xchunked\r\n\r\n", 400),
        CASE(HEAD_POST "Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        CASE(HEAD_POST "Transfer-Encoding: identity\r\n\r\n", 400),
        CASE("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400)
#undef CASE
    };
    EACH(cases, i) {
        const int got = status_at_every_split(cases[i].in, cases[i].n);
        if (got != cases[i].status) {
            CHECK_STR(cases[i].in, "judged as below");
            CHECK_INT(got, cases[i].status);
        }
    }
}

/* A head that has no place for a field says so, and goes on once it has: with
 * the same fields, and none of them twice. */
TEST(head, asks_for_room_and_goes_on)
{
    static const char in[] = "GET /a?b HTTP/1.1\r\nHost: a\r\nX: 1\r\n"
                             "Connection: close\r\nY: 2\r\n\r\n";
    const empm_config cfg = empm_defaults();
    empm__chars chars;
    uint32_t max;

    empm__chars_init(&chars);
    for (max = 0; max <= 5; max++) {
        empm__field fields[5];
        empm__head h;
        char text[sizeof in];
        uint32_t full = 0;
        int r;
        context("place for %u", max);
        memcpy(text, in, sizeof in);
        empm__head_init(&h, fields, max, 0);
        while ((r = empm__head_parse(&h, &cfg, &chars, text,
                                     sizeof in - 1)) == EMPM__FULL &&
               ++full <= 5)
            h.max_fields++;
        CHECK_INT(r, 0);
        CHECK_INT(full, max < 4 ? 4 - max : 0);
        CHECK_INT(h.nfields, 4);
        CHECK_STR(text + fields[3].name, "Y");
        CHECK_STR(text + fields[3].value, "2");
        CHECK_INT((h.flags & EMPM__H_CLOSE) != 0, 1);
        CHECK_INT(h.line, sizeof in - 1);
    }
}

/* A field can be added by itself, as a protocol does whose heads have another
 * shape: the same lines are refused, and the server obeys the same names. */
TEST(head, a_field_by_itself)
{
    static const struct { const char *line; int status; unsigned flag; }
    rows[] = {
        { "x: y", 0, 0 },
        { "host: a.example", 0, EMPM__H_HOST },
        { "connection: x, close", 0, EMPM__H_CLOSE },
        { "host: b.example", 400, 0 },
        { "transfer-encoding: chunked, x", 400, 0 },
        { "content-length: 1,1", 400, 0 },
        { "x y: z", 400, 0 },
        { ": z", 400, 0 },
        { "x: \001", 400, 0 }
    };
    const empm_config cfg = empm_defaults();
    empm__field fields[20];
    empm__chars chars;
    empm__head h;
    char text[400];
    uint32_t at = 0, good = 0;

    empm__chars_init(&chars);
    empm__head_init(&h, fields, 20, 0);
    EACH(rows, i) {
        const uint32_t n = (uint32_t)strlen(rows[i].line);
        context("%s", rows[i].line);
        memcpy(text + at, rows[i].line, n + 1);
        CHECK_INT(empm__head_add_field(&h, &cfg, &chars, text, at, at + n),
                  rows[i].status);
        CHECK_INT((h.flags & rows[i].flag) == rows[i].flag, 1);
        good += rows[i].status == 0;
        CHECK_INT(h.nfields, good);
        at += n + 1;
    }
    CHECK_STR(empm__request_field_find(text, &h, "HOST"), "a.example");
}

/* A limit gives the same status wherever the head is cut. */
TEST(head, limits_have_their_status_at_every_split)
{
    const empm_config cfg = empm_defaults();
    static char in[200000];
    size_t n, i;
    /* exactly LimitRequestLine, and one more */
    n = (size_t)snprintf(in, sizeof in, "GET /");
    memset(in + n, 'a', 10000);
    n = (size_t)cfg.limit_request_line - 9;
    n += (size_t)snprintf(in + n, 100, " HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(status_at_every_split(in, n), 0);
    memset(in + 5, 'a', 10000);
    n = (size_t)cfg.limit_request_line - 8;
    n += (size_t)snprintf(in + n, 100, " HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(status_at_every_split(in, n), 414);
    /* LimitRequestFieldSize */
    for (i = 0; i < 2; i++) {
        size_t from;
        n = (size_t)snprintf(in, sizeof in, HEAD_GET);
        from = n;
        memset(in + n, 'x', 10000);
        in[n + 1] = ':';
        n = from + (size_t)cfg.limit_request_field_size + i;
        n += (size_t)snprintf(in + n, 100, "\r\n\r\n");
        CHECK_INT(status_at_every_split(in, n), i ? 431 : 0);
    }
    /* LimitRequestFields */
    for (i = 0; i < 2; i++) {
        size_t k;
        n = (size_t)snprintf(in, sizeof in, HEAD_GET);
        for (k = 1; k < (size_t)cfg.limit_request_fields + i; k++)
            n += (size_t)snprintf(in + n, 20, "X%u: 1\r\n", (unsigned)k);
        n += (size_t)snprintf(in + n, 20, "\r\n");
        CHECK_INT(status_at_every_split(in, n), i ? 431 : 0);
    }
    /* LimitRequestHead */
    n = (size_t)snprintf(in, sizeof in, HEAD_GET);
    for (i = 0; i < 20; i++) {
        memset(in + n, 'x', 5000);
        in[n + 1] = ':';
        n += 5000;
        n += (size_t)snprintf(in + n, 20, "\r\n");
    }
    CHECK_INT(status_at_every_split(in, n), 431);
}

/* ---------------------------------------------------------------------------
 * >>body -- in memory, spooled, streamed, refused
 * ------------------------------------------------------------------------- */

static void check_sum_reply(client *c, size_t n, int whole, int chunked)
{
    char want[128];

    CHECK_INT(c->status, 200);
    snprintf(want, sizeof want, "bytes=%lu sum=%lx%s%s", (unsigned long)n,
             (unsigned long)pattern_sum(n), whole ? " nul=1 trailer=" : "",
             !whole ? "" : chunked ? "end" : "-");
    CHECK_STR(c->body.p, want);
}

/* A body of any size arrives whole, with a length or in chunks, in memory or
 * spooled. */
SERVED(body, sizes_in_memory_and_spooled, NULL)
{
    static const size_t sizes[] = { 0, 1, 2, 100, 4095, 4096, 8000, 8191, 8192,
                                    8193, 16384, 65535, 65536, 65537, 200000,
                                    (1 << 20) - 1, 1 << 20, 3000000 };
    static const size_t chunks[] = { 0, 7, 1000, 8192, 100000 };

    EACH(sizes, i)
        EACH(chunks, j) {
            str s = STR_EMPTY;
            if (chunks[j] == 7 && sizes[i] > 70000)
                continue;
            context("%lu bytes, chunk %lu", (unsigned long)sizes[i],
                    (unsigned long)chunks[j]);
            put_post(&s, "/sum-any", sizes[i], chunks[j], "");
            cl_send(c, s.p, s.n);
            str_free(&s);
            cl_reply(c);
            check_sum_reply(c, sizes[i], 1, chunks[j] != 0);
            if (c->closes || c->end != 0)
                cl_close(c);
        }
}

/* on_body gets each piece as it arrives, before the rest is sent; a body
 * without bytes has no piece. */
SERVED(body, streamed_piece_by_piece, NULL)
{
    static const size_t sizes[] = { 0, 1, 5000, 100000, 2000000 };
    size_t i;
    int chunked;

    cl_open(c, f);
    for (i = 0; i < 5; i++)
        for (chunked = 0; chunked < 2; chunked++) {
            char target[64];
            str s = STR_EMPTY;
            int slot_no = (int)i * 2 + chunked + 1;
            if (sizes[i] == 0)
                continue;
            context("%lu bytes, %d", (unsigned long)sizes[i], chunked);
            snprintf(target, sizeof target, "/count?slot=%d", slot_no);
            put_post(&s, target, sizes[i], chunked ? 3000 : 0, "");
            cl_send(c, s.p, s.n);
            str_free(&s);
            cl_reply(c);
            check_sum_reply(c, sizes[i], 0, chunked);
        }
    check_in_step(c);
    /* it is called while the rest has not even been sent */
    cl_puts(c, "POST /count?slot=50 HTTP/1.1\r\nHost: a\r\nContent-Length: "
            "10\r\n"
                "\r\nhello");
    CHECK_SOON(get_int(&shm->slots[50].seen) == 5, 2000);
    cl_puts(c, "world");
    CHECK_INT(cl_reply(c), 200);
    CHECK(get_int(&shm->slots[50].pieces) >= 2);
    /* no body, no piece */
    cl_puts(c, "POST /count?slot=51 HTTP/1.1\r\nHost: a\r\nContent-Length: "
            "0\r\n"
                "\r\n");
    CHECK_INT(cl_reply(c), 200);
    CHECK_INT(get_int(&shm->slots[51].pieces), 0);
}

/* The data of a request ends with it and is not seen by the next one of the
 * connection. */
SERVED(body, data_goes_with_the_request, NULL)
{
    char text[32];
    int i, n;

    cl_open(c, f);
    for (i = 0; i < 3; i++) {
        n = 40000 * (i + 1);
        {
            str s = STR_EMPTY;
            put_post(&s, "/data", (size_t)n, i == 1 ? 1000 : 0, "");
            cl_send(c, s.p, s.n);
            str_free(&s);
        }
        CHECK_INT(cl_reply(c), 200);
        snprintf(text, sizeof text, "%d", n);
        CHECK_STR(c->body.p, text);
    }
}

/* on_body may end an upload: the client gets the answer and the connection
 * closes. */
SERVED(body, streamed_body_may_be_refused, NULL)
{
    str s = STR_EMPTY;

    put_post(&s, "/count?slot=1&refuse=100000", 3000000, 0, "");
    CHECK_INT(cl_send(c, s.p, s.n), 0);
    CHECK_INT(cl_reply(c), 403);
    CHECK_INT(c->closes, 1);
    CHECK_FIN(c);
    str_free(&s);
}

/* A handler may send its answer while the body still comes, and no byte is
 * lost in either direction. */
SERVED(body, answered_while_it_arrives, NULL)
{
    str s = STR_EMPTY;

    put_post(&s, "/piped", 50000, 0, "");
    CHECK_INT(cl_ask_n(c, s.p, s.n), 200);
    CHECK_INT(c->body.n, 50000);
    CHECK_INT(c->complete, 1);
    CHECK_INT(pattern_fault(c->body.p, c->body.n, 0), -1);
    check_in_step(c);
    cl_close(c);
    s.n = 0;
    put_post(&s, "/piped", 1000000, 5000, "");
    CHECK_INT(cl_ask_n(c, s.p, s.n), 200);
    CHECK_INT(c->body.n, 1000000);
    CHECK_INT(pattern_fault(c->body.p, c->body.n, 0), -1);
    str_free(&s);
}

/* A body that comes byte by byte gives the same result as a whole one. */
SERVED(body, dribbled, NULL)
{
    str s = STR_EMPTY;
    size_t i;

    put_post(&s, "/sum", 300, 0, "");
    put_post(&s, "/sum", 300, 13, "");
    put_post(&s, "/count?slot=1", 300, 13, "");
    str_addf(&s, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    for (i = 0; i < s.n; i++)
        if (cl_send(c, s.p + i, 1) != 0)
            break;
    cl_reply(c);
    check_sum_reply(c, 300, 1, 0);
    cl_reply(c);
    check_sum_reply(c, 300, 1, 1);
    cl_reply(c);
    check_sum_reply(c, 300, 0, 1);
    CHECK_INT(cl_reply(c), 200);
    str_free(&s);
}

/* 100 Continue is sent once, before the body is needed, and never before a
 * refusal or for a request without a body. */
SERVED(body, expect_100_continue, NULL)
{
    CHECK_INT(cl_ask(c, POST1 "Expect: 100-continue\r\nContent-Length: 5\r\n"
                     "\r\n"), 100);
    CHECK_OPEN(c);
    cl_puts(c, "hello");
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "hello");
    check_in_step(c);
    cl_puts(c, POST1 "expect: 100-Continue\r\nTransfer-Encoding: "
            "chunked\r\n\r\n");
    CHECK_INT(cl_reply(c), 100);
    cl_puts(c, "5\r\nhello\r\n0\r\n\r\n");
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "hello");
    /* streamed routes too */
    cl_puts(c, "POST /count?slot=1 HTTP/1.1\r\nHost: a\r\nContent-Length: "
            "5\r\n"
                "Expect: 100-continue\r\n\r\n");
    CHECK_INT(cl_reply(c), 100);
    cl_puts(c, "hello");
    CHECK_INT(cl_reply(c), 200);
    /* no body, nothing to continue with */
    cl_puts(c, POST1 "Expect: 100-continue\r\nContent-Length: 0\r\n\r\n");
    CHECK_INT(cl_reply(c), 200);
    check_in_step(c);
    /* the body is here already: an interim reply is not needed, and harmless */
    cl_puts(c, POST1 "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
    if (cl_reply(c) == 100)
        cl_reply(c);
    CHECK_INT(c->status, 200);
    check_in_step(c);
    /* never before a refusal */
    CHECK_INT(cl_ask(c, POST1 "Expect: 100-continue\r\n"
                     "Content-Length: 999999999\r\n\r\n"), 413);
    CHECK_INT(c->closes, 1);
    CHECK_INT(cl_ask(c, "POST /nothing HTTP/1.1\r\nHost: a\r\n"
                     "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"), 404);
    CHECK_INT(cl_ask(c, "POST /hello HTTP/1.1\r\nHost: a\r\n"
                     "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"), 405);
}

/* The body of a refused request is never taken for a further request. */
SERVED(body, refused_requests_do_not_execute_their_body, NULL)
{
    /* the body of a request that is not wanted looks like a request */
    cl_puts(c, "POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: "
            "60\r\n\r\n"
                "POST /hit HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
                "POST /hit HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    CHECK_INT(cl_reply(c), 404);
    cl_drain(c, 50);
    CHECK_IN(get_int(&shm->hits), 0, 1);
}

/* Asks until it is not 503: a quota is given back just after the reply. */
static int ask_again(const fixture *f, const str *s)
{
    uint64_t end = now_ms() + (uint64_t)SCALED(1000);
    int status;

    do {
        client c;
        status = ask_n(f, &c, s->p, s->n);
        cl_close(&c);
    } while (status == 503 && now_ms() < end);
    return status;
}

/* MaxBodyMemory and MaxSpoolBytes bound all bodies of a child together; their
 * room is given back. */
SERVED(body, quotas_of_the_child,
       "LimitBodyInMemory 65536; MaxBodyMemory 100000; MaxSpoolBytes 500000")
{
    client a, b;
    str s = STR_EMPTY;

    /* two bodies of 60,000 do not fit into 100,000 */
    cl_open(&a, f);
    put_post(&s, "/sum", 60000, 0, "");
    cl_send(&a, s.p, s.n - 1);
    cl_open(&b, f);
    CHECK(!cl_readable(&a, SCALED(30)));
    cl_send(&b, s.p, s.n);
    CHECK_INT(cl_reply(&b), 503);
    cl_close(&b);
    cl_send(&a, s.p + s.n - 1, 1);
    CHECK_INT(cl_reply(&a), 200);
    cl_close(&a);
    CHECK_INT(ask_again(f, &s), 200);          /* given back */
    s.n = 0;
    put_post(&s, "/sum-any", 600000, 0, "");
    CHECK_INT(cl_ask_n(c, s.p, s.n), 503);
    CHECK_FIN(c);
    cl_close(c);
    s.n = 0;
    put_post(&s, "/sum-any", 400000, 0, "");
    CHECK_INT(ask_again(f, &s), 200);
    CHECK_INT(ask_again(f, &s), 200);
    s.n = 0;
    put_post(&s, "/sum-any", 600000, 1000, "");
    CHECK_INT(cl_ask_n(c, s.p, s.n), 503);
    str_free(&s);
}

/* --- budgets follow what has arrived -------------------------------------- */

/* A Content-Length takes no memory before its body arrives. */
SERVED(body, promises_take_no_memory, LONG_TIMES "MaxBodyMemory 100000")
{
    enum { N = 20 };
    client a[N];
    str s = STR_EMPTY;
    int i;

    for (i = 0; i < N; i++) {
        cl_open(&a[i], f);
        cl_puts(&a[i], "POST /sum HTTP/1.1\r\nHost: a\r\n"
                       "Content-Length: 60000\r\n\r\nx");
    }
    nap(SCALED(100));
    put_post(&s, "/sum", 60000, 0, "");
    CHECK_INT(cl_ask_n(c, s.p, s.n), 200);
    cl_close(c);
    if (f->s != NULL)               /* a byte that has come takes a page */
        CHECK_SOON(empm__load(&f->s->engine.pool.body_memory)
                   <= 20 * EMPM_PAGE_BYTES,
                   1000);
    cl_close_all(a, N);
    if (f->s != NULL)
        CHECK_SOON(empm__load(&f->s->engine.pool.body_memory) == 0, 2000);
    str_free(&s);
}

/* Bytes count against MaxBodyMemory as they arrive, in whole pages. */
SERVED_WITH(body, bytes_that_arrive_take_memory, T_LIVE,
            fx_init(f); f->cfg.max_body_memory = 4 * EMPM_PAGE_BYTES,
            LONG_TIMES)
{
    client a[4];
    int i;

    for (i = 0; i < 4; i++) {
        cl_open(&a[i], f);
        cl_puts(&a[i], CHUNK "5\r\nhel");
    }
    nap(SCALED(100));
    CHECK_INT(cl_ask(c, CHUNK "5\r\nhello\r\n0\r\n\r\n"), 503);
    CHECK_STR(cl_header(c, "Retry-After"), "1");
    CHECK_INT(cl_ask(c, CL("5")), 200);      /* in place: it costs nothing */
    for (i = 0; i < 4; i++) {
        cl_puts(&a[i], "lo\r\n0\r\n\r\n");
        CHECK_INT(cl_reply(&a[i]), 200);
        cl_close(&a[i]);
    }
}

/* A body that comes in pieces of any size is whole. Its buffer grows in every
 * way that it has: page, taken over from the worker, doubled, spooled. */
LIVE(body, grows_as_it_comes)
{
    static const size_t pieces[] = { 1000, 5000, 9000, 30000, 33000, 65536,
                                     70000, 150000 };
    static const int64_t limits[] = { 1, 10000, 65536, 1 << 20 };
    size_t k, at;
    str s = STR_EMPTY;

    put_post(&s, "/sum-any", 200000, 0, "");
    for (k = 0; k < 4; k++) {
        fixture f;
        client c;
        fx_init(&f);
        f.cfg.limit_body_in_memory = limits[k];
        if (!fx_up(&f))
            return;
        cl_open(&c, &f);
        EACH(pieces, i) {
            context("LimitBodyInMemory %ld, pieces of %lu", (long)limits[k],
                    (unsigned long)pieces[i]);
            for (at = 0; at < s.n; at += pieces[i]) {
                cl_send(&c, s.p + at, s.n - at < pieces[i] ? s.n - at
                                                          : pieces[i]);
                if (i % 2)
                    nap(1);
            }
            cl_reply(&c);
            check_sum_reply(&c, 200000, 1, 0);
        }
        cl_close(&c);
        if (f.s != NULL) {
            CHECK_SOON(empm__load(&f.s->engine.pool.body_memory) == 0, 2000);
            CHECK_SOON(empm__load(&f.s->engine.pool.files[0]) == 0, 2000);
        }
        no_context();
        fx_down(&f);
    }
    str_free(&s);
}

static void some_descriptors(void)
{
    struct rlimit r;

    r.rlim_cur = r.rlim_max = 200;
    setrlimit(RLIMIT_NOFILE, &r);
}

/* A small and a large file, a small and a middling upload: what must go on. */
static void check_all_but_large_uploads(const fixture *f)
{
    client c;
    str s;

    memset(&s, 0, sizeof s);
    CHECK_INT(get_status(f, "/hello"), 200);
    CHECK_INT(get_status(f, "/file/a.txt"), 200);
    CHECK_INT(get_status(f, "/file/big.bin"), 200);
    put_post(&s, "/sum", 1000, 0, "");
    put_post(&s, "/sum", 60000, 0, "");
    cl_open(&c, f);
    cl_send(&c, s.p, s.n);
    CHECK_INT(cl_reply(&c), 200);
    CHECK_INT(cl_reply(&c), 200);
    cl_close(&c);
    str_free(&s);
}

/* A file is opened for bytes that do not fit in memory, not for a length. */
SERVED_WITH(body, promises_take_no_descriptors, T_PLAIN,
            fx_init_forked(f, 1); f->in_child = some_descriptors, LONG_TIMES)
{
    enum { N = 92 };
    static client a[N];
    str s = STR_EMPTY;
    int i;

    for (i = 0; i < N; i++) {
        cl_open(&a[i], f);
        cl_puts(&a[i], "POST /sum-any HTTP/1.1\r\nHost: a\r\n"
                       "Content-Length: 500000\r\n\r\nx");
    }
    nap(SCALED(200));
    check_all_but_large_uploads(f);
    put_post(&s, "/sum-any", 300000, 0, "");
    CHECK_INT(cl_ask_n(c, s.p, s.n), 200);
    cl_close(c);
    CHECK_INT(fx_log_lines(f, "EMPM5009"), 0);
    cl_close_all(a, N);
    str_free(&s);
}

/* Slow and large uploads may take the descriptors of large uploads and nothing
 * else: connections and files have their own. */
TEST(body, large_uploads_take_only_their_share)
{
    enum { N = 50 };
    static client a[N];
    fixture f;
    str s = STR_EMPTY;
    client c;
    int i, status;

    fx_init_forked(&f, 1);
    f.in_child = some_descriptors;
    f.cfg.max_open_files = 48;
    long_times(&f);
    if (!fx_up(&f))
        return;
    put_post(&s, "/sum-any", 300000, 0, "");
    for (i = 0; i < N; i++) {
        cl_open(&a[i], &f);
        cl_send(&a[i], s.p, 70000);
    }
    nap(SCALED(300));
    check_all_but_large_uploads(&f);
    /* once all that was sent has been read */
    for (i = 0; (status = ask_n(&f, &c, s.p, s.n)) == 200 && i < 50; i++) {
        cl_close(&c);
        nap(SCALED(100));
    }
    CHECK_INT(status, 503);
    CHECK_STR(cl_header(&c, "Retry-After"), "1");
    cl_close(&c);
    CHECK(fx_log_has(&f, "EMPM5010: MaxOpenFiles of 48 is reached by bodies"));
    CHECK_INT(fx_log_lines(&f, "EMPM5009"), 0);
    cl_close_all(a, N);
    CHECK_INT(ask_again(&f, &s), 200);       /* given back */
    str_free(&s);
    fx_down(&f);
}

/* Answers may use half of MaxSpoolBytes, so that clients that read nothing
 * leave room for uploads. */
SERVED(body, slow_readers_leave_room_for_uploads,
       LONG_TIMES "SendBufferSize 4096; MaxSpoolBytes 2000000")
{
    enum { N = 6 };
    client a[N];
    str s = STR_EMPTY;
    int i;

    for (i = 0; i < N; i++) {
        CHECK_INT(cl_connect_port(&a[i], f->port, 4096), 0);
        cl_puts(&a[i], "GET /big?bytes=600000 HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    nap(SCALED(200));
    put_post(&s, "/sum-any", 900000, 0, "");
    CHECK_INT(ask_again(f, &s), 200);
    cl_close_all(a, N);
    if (f->s != NULL)
        CHECK_SOON(empm__load(&f->s->engine.pool.spool[1]) == 0 &&
                   empm__load(&f->s->engine.pool.files[1]) == 0, 2000);
    str_free(&s);
}

/* Beyond MaxOpenFiles, a file gets 503 and an answer that is under way is cut
 * visibly. Both are possible again afterwards. */
SERVED(body, answers_take_only_their_share,
       LONG_TIMES "SendBufferSize 4096; MaxOpenFiles 4")
{
    client a, b;

    CHECK_INT(cl_connect_port(&a, f->port, 4096), 0);
    cl_puts(&a, "GET /file/big.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(cl_connect_port(&b, f->port, 4096), 0);
    cl_puts(&b, "GET /big?bytes=600000 HTTP/1.1\r\nHost: a\r\n\r\n");
    nap(SCALED(100));
    CHECK_INT(get_status(f, "/file/big.bin"), 503);
    CHECK_INT(get_status(f, "/file/a.txt"), 200);
    CHECK_INT(cl_connect_port(c, f->port, 4096), 0);
    cl_puts(c, "GET /big?bytes=600000 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_int(&shm->rc[0]) == EMPM_EFULL, 2000);
    cl_reply(c);
    CHECK_INT(c->complete, 0);
    cl_close(c);
    CHECK_INT(cl_reply(&a), 200);
    CHECK_INT(a.body.n, 300000);
    CHECK_INT(cl_reply(&b), 200);
    CHECK_INT(b.body.n, 600000);
    cl_close(&a);
    cl_close(&b);
    CHECK_SOON(get_status(f, "/file/big.bin") == 200, 2000);
    if (f->s != NULL)
        CHECK_SOON(empm__load(&f->s->engine.pool.files[1]) == 0, 2000);
}

/* A spool file that cannot be opened is 503, is logged, and leaves no
 * descriptor. */
TEST(body, a_spool_that_cannot_be_opened)
{
    fixture f;
    client c;
    str s = STR_EMPTY;
    int fd;

    fx_init(&f);
    f.forked = 0;
    f.cfg.processes = 0;
    if (!fx_up(&f))
        return;
    fd = dup(f.s->spool_dir);
    put_post(&s, "/sum-any", 300000, 0, "");
    put_post(&s, "/sum-any", 300000, 0, "");
    close(f.s->spool_dir);
    CHECK_INT(open("/dev/null", O_RDWR | O_CLOEXEC), f.s->spool_dir);
    CHECK_INT(ask_n(&f, &c, s.p, s.n / 2), 503);
    cl_close(&c);
    CHECK(fx_log_has(&f, ": open: Not a directory"));
    CHECK_SOON(empm__load(&f.s->engine.pool.files[0]) == 0, 2000);
    CHECK_SOON(empm__load(&f.s->engine.pool.body_memory) == 0, 2000);
    dup2(fd, f.s->spool_dir);
    fcntl(f.s->spool_dir, F_SETFD, FD_CLOEXEC);
    close(fd);
    CHECK_INT(ask_n(&f, &c, s.p, s.n / 2), 200);
    cl_close(&c);
    str_free(&s);
    fx_down(&f);
}

static void small_files(void)
{
    struct rlimit r;

    r.rlim_cur = r.rlim_max = 100000;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &r);
}

/* A spool file that cannot grow is 507, and the log names SpoolDirectory. */
SERVED_WITH(body, a_file_that_cannot_grow_is_507, T_PLAIN,
            fx_init_forked(f, 1); f->in_child = small_files, NULL)
{
    str s = STR_EMPTY;

    put_post(&s, "/sum-any", 300000, 0, "");
    CHECK_INT(cl_ask_n(c, s.p, s.n), 507);
    cl_close(c);
    CHECK(fx_log_has(f, "EMPM5004: SpoolDirectory "));
    s.n = 0;
    put_post(&s, "/sum-any", 100000, 0, "");     /* all but its NUL */
    CHECK_INT(cl_ask_n(c, s.p, s.n), 507);
    cl_close(c);
    s.n = 0;
    put_post(&s, "/sum-any", 99999, 0, "");
    CHECK_INT(cl_ask_n(c, s.p, s.n), 200);
    str_free(&s);
}

#ifdef __linux__
/* A full disk is 507 even when only the byte behind the body has no room: a
 * hole on a full tmpfs is SIGBUS for its reader. */
TEST(body, a_full_disk_is_507)
{
    enum { ROOM = 131072 };
    fixture f;
    client c;
    str s = STR_EMPTY;
    char dir[512];

    mkdir(tmp_path(dir, sizeof dir, "full"), 0755);
    if (mount("none", dir, "tmpfs", 0, "size=131072") != 0) {
        rmdir(dir);
        SKIP("nothing can be mounted here");
    }
    fx_init_forked(&f, 1);
    f.cfg.spool_directory = dir;
    if (!fx_up(&f)) {
        umount2(dir, MNT_DETACH);
        return;
    }
    put_post(&s, "/sum-any", ROOM, 0, "");       /* full to the last byte */
    CHECK_INT(ask_n(&f, &c, s.p, s.n), 507);
    cl_close(&c);
    s.n = 0;
    put_post(&s, "/sum-any", 300000, 0, "");
    CHECK_INT(ask_n(&f, &c, s.p, s.n), 507);
    CHECK(fx_log_has(&f, "EMPM5004: SpoolDirectory "));
    cl_close(&c);
    s.n = 0;
    put_post(&s, "/sum-any", ROOM - 4096, 0, "");
    CHECK_SOON(ask_n(&f, &c, s.p, s.n) == 200, 2000);
    cl_close(&c);
    str_free(&s);
    fx_down(&f);
    CHECK_INT(umount2(dir, MNT_DETACH), 0);
    rmdir(dir);
}
#endif

/* A slow on_body ends its turn after each piece, so that others get the worker
 * in between. */
SERVED(body, pieces_end_a_turn, LONG_TIMES "ThreadsPerChild 1")
{
    enum { N = 300 };
    client a = client_of(f), b = client_of(f);
    str s = STR_EMPTY;
    uint64_t t0;
    int i;

    str_addf(&s, "POST /nap?ms=5&slot=1 HTTP/1.1\r\nHost: a\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n");
    for (i = 0; i < N; i++)
        str_addf(&s, "1\r\nx\r\n");
    str_addf(&s, "0\r\n\r\n");
    CHECK_INT(cl_get(&b, "/hello"), 200);
    cl_send(&a, s.p, s.n);
    CHECK_SOON(get_int(&shm->slots[1].pieces) > 0, 2000);
    t0 = now_ms();
    CHECK_INT(cl_get(&b, "/hello"), 200);
    CHECK_IN(now_ms() - t0, 0, 5 * N / 2);
    CHECK_INT(cl_reply(&a), 200);
    CHECK_INT(get_int(&shm->slots[1].pieces), N);
    cl_close(&a);
    cl_close(&b);
    str_free(&s);
}

/* Limits above 4 GiB hold even where a size_t has 32 bits. */
TEST(body, limits_above_4_GiB_hold)
{
    static empm__route route;
    static empm_route user;
    static empm_request req;
    static empm__worker w;
    int64_t left = (INT64_C(9) << 29);

    memset(&req, 0, sizeof req);
    user.on_body = p_nothing;
    route.user = &user;
    req.route = &route;
    req.w = &w;
    req.body_mode = EMPM__BODY_PIECES;
    req.body_limit = left;
    while (left > 0) {
        const size_t n = left > INT64_C(1) << 30 ? (size_t)1 << 30
                                                 : (size_t)left;
        CHECK_INT(empm__body_put(&w, &req, "", n), 0);
        left -= (int64_t)n;
    }
    CHECK_INT(empm__body_put(&w, &req, "", 1), 413);
}

/* Decodes in[0..n), cut at `a`, into out. Returns 2 when complete (*used bytes
 * consumed), 0 when more is needed, or a status. */
static int chunks_fed(const char *in, size_t n, size_t a, char *out,
                      size_t *out_n, size_t *used)
{
    const empm_config cfg = empm_defaults();
    empm__chars chars;
    empm__chunked k;
    empm__head trailers;
    empm__field fields[200];
    char *m = guarded(n);
    uint32_t at = 0;
    size_t end, pass;
    int r = EMPM__MORE;
    memcpy(m, in, n);
    memset(&k, 0, sizeof k);
    empm__chars_init(&chars);
    empm__head_init(&trailers, fields, 200, 0);
    *out_n = 0;
    for (pass = 0; pass < (a == 0 ? n : 2) && r == EMPM__MORE; pass++) {
        end = a == 0 ? pass + 1 : pass == 0 ? a : n;
        while ((r = empm__chunk_parse(&k, &cfg, &chars, &trailers, m, &at,
                                      (uint32_t)end)) == EMPM__DATA) {
            const size_t take = empm__min((size_t)k.left, end - at);
            if (take == 0) {
                r = EMPM__MORE;
                break;
            }
            memcpy(out + *out_n, m + at, take);
            *out_n += take;
            at += (uint32_t)take;
            k.left -= take;
        }
    }
    *used = at;
    guarded_free(m, n);
    return r;
}

/* RFC 9110 6.5.1: a trailer that would change framing, routing, rights or the
 * meaning of the content is dropped, in any case of letters; one whose name
 * only begins or ends like that stays. */
TEST(body, trailers_that_must_not_be)
{
    static const char *const names[] = {
        "Transfer-Encoding", "Content-Length", "Host", "Connection",
        "Keep-Alive", "Trailer", "TE", "Upgrade", "Expect", "Max-Forwards",
        "Authorization", "Proxy-Authorization", "Proxy-Connection", "COOKIE",
        "Content-Type", "Content-Encoding", "Content-Range", "range",
        "Cache-Control", "Pragma", "If-Match", "If-None-Match",
        "If-Modified-Since", "If-Unmodified-Since", "If-Range"
    };
    const empm_config cfg = empm_defaults();
    empm__chars chars;

    empm__chars_init(&chars);
    EACH(names, i) {
        empm__chunked k;
        empm__field fields[4];
        empm__head trailers;
        char in[200];
        const int n = snprintf(in, sizeof in, "0\r\n%s: 1\r\nX-%s: 2\r\n"
                               "%s-X: 3\r\n\r\n", names[i], names[i],
                               names[i]);
        uint32_t at = 0;
        context("%s", names[i]);
        memset(&k, 0, sizeof k);
        empm__head_init(&trailers, fields, 4, 0);
        CHECK_INT(empm__chunk_parse(&k, &cfg, &chars, &trailers, in, &at,
                                    (uint32_t)n), 0);
        CHECK_INT(at, n);
        CHECK_INT(k.dropped, 1);
        CHECK_INT(trailers.nfields, 2);
        CHECK_STR(in + fields[0].value, "2");
    }
}

/* The chunked coding is read by RFC 9112 7.1, wherever it is cut. */
TEST(body, chunk_grammar_at_every_split)
{
    static const struct { const char *in; size_t n; int r; const char *out; }
    cases[] = {
#define CASE(text, r, out) { text, sizeof(text) - 1, r, out }
        CASE("0\r\n\r\n", 0, ""),
        CASE("4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n", 0, "Wikipedia"),
        CASE("004\r\nWiki\r\n0\r\n\r\n", 0, "Wiki"),
        CASE("A\r\n0123456789\r\n000\r\n\r\n", 0, "0123456789"),
        CASE("4;x\r\nWiki\r\n0;y=z\r\n\r\n", 0, "Wiki"),
        CASE("4;x=\"a;b\\\"\\r\"\r\nWiki\r\n0\r\n\r\n", 0, "Wiki"),
        CASE("1\r\na\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", 0, "a"),
        CASE("4\r\nWi", EMPM__MORE, "Wi"), CASE("4", EMPM__MORE, ""),
        CASE("0\r\n", EMPM__MORE, ""),
        CASE("\r\n", 400, ""), CASE(";x\r\n", 400, ""), CASE("0x4\r\n", 400,
                                                             ""),
        CASE("+4\r\nWiki\r\n0\r\n\r\n", 400, ""), CASE("-4\r\n", 400, ""),
        CASE("4_0\r\n", 400, ""), CASE("4 \r\nWiki\r\n0\r\n\r\n", 400, ""),
        CASE(" 4\r\nWiki\r\n0\r\n\r\n", 400, ""), CASE("4 4\r\n", 400, ""),
        CASE("4 ;x\r\nWiki\r\n0\r\n\r\n", 0, "Wiki"), CASE("4;\r\n", 400, ""),
        CASE("4; x = \"y\" ;z\r\nWiki\r\n0\r\n\r\n", 0, "Wiki"),
        CASE("4; \r\n", 400, ""), CASE("4;x=\r\n", 400, ""),
        CASE("4;x=\"a\r\n", 400, ""), CASE("4;x\ny\r\n", 400, ""),
        CASE("4;x\ry\r\n", 400, ""), CASE("4g\r\n", 400, ""),
        CASE("4\nWiki\r\n0\r\n\r\n", 400, ""), CASE("4\rWiki", EMPM__MORE, ""),
        CASE("4\r\nWikiXX\r\n0\r\n\r\n", 400, "Wiki"),
        CASE("4\r\nWiki\n0\r\n\r\n", 400, "Wiki"),
        CASE("4\r\nWiki\r0\r\n\r\n", 400, "Wiki"),
        CASE("10000000000000000\r\n", 400, ""),
        CASE("ffffffffffffffffff\r\n", 400, ""),
        CASE("0\r\nContent-Length: 3\r\n\r\n", 0, ""),
        CASE("0\r\ntransfer-encoding: chunked\r\n\r\n", 0, ""),
        CASE("0\r\nAuthorization: x\r\n\r\n", 0, ""),
        CASE("0\r\nX : 1\r\n\r\n", 400, ""), CASE("0\r\n X: 1\r\n\r\n", 400,
                                                  ""),
        CASE("0\r\nX\r\n\r\n", 400, "")
#undef CASE
    };
    size_t a;
    EACH(cases, i)
        for (a = 0; a <= cases[i].n; a++) {
            char out[256];
            size_t n, used;
            const int r = chunks_fed(cases[i].in, cases[i].n, a, out, &n,
                                     &used);
            if (r != cases[i].r || n != strlen(cases[i].out) ||
                memcmp(out, cases[i].out, n) != 0 ||
                (r == 0 && used != cases[i].n)) {
                CHECK_STR(cases[i].in, "decoded as below");
                CHECK_INT(r, cases[i].r);
                CHECK_INT(n, strlen(cases[i].out));
                CHECK_INT(a, -1);
            }
        }
}

/* Chunk extensions and trailers have limits, fields that are dropped
 * included. */
TEST(body, extensions_and_trailers_are_bounded)
{
    static char in[300000], out[64];
    size_t n = 0, used, out_n, i;
    n = (size_t)snprintf(in, sizeof in, "4;");
    memset(in + n, 'x', 2000);
    CHECK_INT(chunks_fed(in, 2000, 0, out, &out_n, &used), 400);
    for (i = n = 0; i < 40; i++) {
        n += (size_t)snprintf(in + n, 100, "1;");
        memset(in + n, 'x', 900);
        n += 900;
        n += (size_t)snprintf(in + n, 100, "\r\na\r\n");
    }
    CHECK_INT(chunks_fed(in, n, n, out, &out_n, &used), 400);
    CHECK(out_n < 20);
    n = (size_t)snprintf(in, sizeof in, "0\r\n");
    for (i = 0; i < 101; i++)
        n += (size_t)snprintf(in + n, 100, "X%u: 1\r\n", (unsigned)i);
    CHECK_INT(chunks_fed(in, n, n, out, &out_n, &used), 431);
    n = (size_t)snprintf(in, sizeof in, "0\r\n");   /* those dropped, too */
    for (i = 0; i < 101; i++)
        n += (size_t)snprintf(in + n, 100, "Host: a\r\n");
    CHECK_INT(chunks_fed(in, n, n, out, &out_n, &used), 431);
}

/* A 404, a 405 or a 401 drops a short body and keeps the connection: wherever
 * the body is cut, the next request is found. */
LIVE(body, short_ones_that_nobody_wants_are_dropped)
{
    static const struct { const char *in; int status, stays; } rows[] = {
        { "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
          404, 1 },
        { "DELETE /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
          405, 1 },
        { "POST /private HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
          401, 1 },
        { "BREW /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
          501, 1 },
        { "POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
         "chunked\r\n\r\n"
          "5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n", 404, 1 },
        { "POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
         "chunked\r\n\r\n"
          "nonsense\r\n", 404, 0 },
        { "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n",
          404, 0 },
        { "POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
         "chunked\r\n\r\n"
          "10001\r\n", 404, 0 },
        { "POST /nowhere HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
          "Content-Length: 5\r\n\r\n", 404, 0 }
    };
    fixture f;
    client c;
    size_t cut;
    str s = STR_EMPTY;

    fx_init(&f);
    if (!fx_up(&f))
        return;
    EACH(rows, i) {
        const size_t n = strlen(rows[i].in);
        const size_t head = (size_t)(strstr(rows[i].in, "\r\n\r\n") -
                                     rows[i].in) + 4;
        for (cut = head; cut <= n; cut++) {
            context("%s, cut at %lu", rows[i].in, (unsigned long)cut);
            cl_open(&c, &f);
            cl_send(&c, rows[i].in, cut);
            CHECK_INT(cl_reply(&c), rows[i].status);   /* before the body */
            cl_send(&c, rows[i].in + cut, n - cut);
            if (rows[i].stays) {
                CHECK_INT(c.closes, 0);
                check_in_step(&c);
            } else
                CHECK_FIN(&c);
            cl_close(&c);
        }
    }
    context("64 KiB, then pipelined");
    put_post(&s, "/nowhere", 65536, 0, "");
    str_addf(&s, GET1 "\r\n");
    cl_open(&c, &f);
    cl_send(&c, s.p, s.n);
    CHECK_INT(cl_reply(&c), 404);
    CHECK_INT(cl_reply(&c), 200);
    cl_close(&c);
    no_context();
    str_free(&s);
    /* it comes in the time of a body, or the connection ends, in silence */
    fx_down(&f);
    fx_init(&f);
    f.cfg.body_timeout_ms = 200;
    f.cfg.body_timeout_max_ms = 0;
    if (!fx_up(&f))
        return;
    cl_open(&c, &f);
    cl_puts(&c, "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: "
            "5\r\n\r\nhel");
    CHECK_INT(cl_reply(&c), 404);
    CHECK_INT(cl_end(&c, 2000), CL_FIN);
    cl_close(&c);
    fx_down(&f);
}

/* ---------------------------------------------------------------------------
 * >>request -- what handlers see
 * ------------------------------------------------------------------------- */

/* Each accessor returns its part of the request; a part that is not there is
 * NULL or empty. */
SERVED(request, accessors, NULL)
{
    static const char *const lines[] = {
        "method=POST\n", "target=/dump/a%20b?q=1%2B2+3&q=no&r\n",
        "path=/dump/a%20b\n", "query=q=1%2B2+3&q=no&r\n", "minor=1\n",
        "scheme=http\n", "peer=127.0.0.1:", "h Host=a\n", "h X-Twice=first\n",
        "h x-twice=second\n", "q=1+2 3\n", "f=v&w\n", "c=cookie value\n",
        "twice=first\n"
    };
    static const char body[] = "e=1&f=v%26w&g";

    cl_printf(c, "POST /dump/a%%20b?q=1%%2B2+3&q=no&r HTTP/1.1\r\nHost: a\r\n"
              "X-Twice: \t first \t\r\nx-twice: second\r\nX-Remote-Addr: "
              "1.2.3.4\r\nCookie: b=0; c=cookie value; d=2\r\n"
              "Content-Type: application/x-www-form-urlencoded\r\n"
              "Content-Length: %d\r\n\r\n%s", (int)sizeof body - 1, body);
    CHECK_INT(cl_reply(c), 200);
    EACH(lines, i)
        if (strstr(c->body.p, lines[i]) == NULL)
            fail(__FILE__, __LINE__, "no \"%s\" in\n%s", lines[i], c->body.p);
    CHECK_INT(cl_get(c, "/dump/x"), 200);
    CHECK(strstr(c->body.p, "q=(none)\nf=(none)\nc=(none)\n") != NULL);
    CHECK(strstr(c->body.p, "query=\n") != NULL);
    cl_puts(c, "GET http://other:80/dump/y?q=z HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(cl_reply(c), 200);
    CHECK(strstr(c->body.p, "path=/dump/y\n") != NULL);
    CHECK(strstr(c->body.p, "q=z\n") != NULL);
}

static int h_values(empm_request *req, void *user)
{
    const char *host = empm_host(req), *q = empm_query(req, "q");
    const char *raw = empm_query_raw(req, "q"), *f = empm_form(req, "f");
    const char *f_raw = empm_form_raw(req, "f"), *x = empm_path_value(req, "x");

    (void)user;
    empm_printf(req, "host=%s q=%s raw=%s f=%s raw=%s x=%s", host, q ? q
                                                                     : "NULL",
                raw ? raw : "NULL", f ? f : "NULL", f_raw ? f_raw : "NULL",
                x ? x : "NULL");
    return EMPM_OK;
}

static int h_values_often(empm_request *req, void *user)
{
    char *before = req->arena_at;
    const char *first[5];
    int i;

    (void)user;
    first[0] = first[1] = first[2] = first[3] = first[4] = NULL;
    for (i = 0; i < 100; i++) {
        const char *got[5];
        size_t k;
        got[0] = empm_query(req, "q");
        got[1] = empm_query_raw(req, "bad");
        got[2] = empm_cookie(req, "c");
        got[3] = empm_path_value(req, "x");
        got[4] = empm_host(req);
        if (empm_query(req, "bad") != NULL)
            return 500;
        for (k = 0; k < EMPM__COUNT(got); k++) {
            if (got[k] == NULL || (i > 0 && got[k] != first[k]))
                return 500;
            first[k] = got[k];
        }
        if (i == 0)
            before = req->arena_at;
    }
    return req->arena_at == before ? 200 : 500;
}

static int h_trailers(empm_request *req, void *user)
{
    static const char *const names[] = { "Content-Type", "X", "Content-Length",
                                         "Host", "Y" };
    size_t i;

    (void)user;
    for (i = 0; i < EMPM__COUNT(names); i++) {
        const char *v = empm_trailer(req, names[i]);
        empm_printf(req, "%s=%s ", names[i], v != NULL ? v : "-");
    }
    return EMPM_OK;
}

static const empm_route value_routes[] = {
    EMPM_ROUTE("/v/{x...}", h_values, NULL),
    EMPM_ROUTE("/often/{x...}", h_values_often, NULL),
    EMPM_ROUTE("POST /trailers", h_trailers, NULL),
    EMPM_ROUTES_END
};

/* The effective host follows RFC 9112 3.3. A value that cannot be decoded is
 * given as it was sent; a {name...} shows which '/' and '%' were sent as
 * such. */
SERVED_WITH(request, values_and_where_they_come_from, T_LIVE,
            fx_init(f); f->cfg.routes = value_routes, NULL)
{
    static const struct { const char *in, *want; } rows[] = {
        { "GET /v/ HTTP/1.1\r\nHost: a.b:80\r\n\r\n", "host=a.b:80 q=NULL "
         "raw=NULL"
          " f=NULL raw=NULL x=" },
        { "GET http://c:8?q=1%2B HTTP/1.1\r\nHost: a\r\n\r\n", NULL },
        { "GET http://c:8/v/x?q=1%2B HTTP/1.1\r\nHost: a\r\n\r\n",
          "host=c:8 q=1+ raw=1%2B f=NULL raw=NULL x=x" },
        { "GET /v/x HTTP/1.0\r\n\r\n",
          "host= q=NULL raw=NULL f=NULL raw=NULL x=x" },
        { "GET /v/x HTTP/1.1\r\nHost:\r\n\r\n",
          "host= q=NULL raw=NULL f=NULL raw=NULL x=x" },
        { "GET /v/x?q=100%&q=2 HTTP/1.1\r\nHost: [::1]:8\r\n\r\n",
          "host=[::1]:8 q=NULL raw=100% f=NULL raw=NULL x=x" },
        { "GET /v/x?q=%00 HTTP/1.1\r\nHost: a\r\n\r\n",
          "host=a q=NULL raw=%00 f=NULL raw=NULL x=x" },
        { "GET /v/x?q=&q=2 HTTP/1.1\r\nHost: a\r\n\r\n",
          "host=a q= raw= f=NULL raw=NULL x=x" },
        { "POST /v/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Type: "
          "application/x-www-form-urlencoded ; charset=utf-8\r\n\r\nf=1+%",
          "host=a q=NULL raw=NULL f=NULL raw=1+% x=x" },
        { "GET /v/a%2fb/%252F/%25/%41 HTTP/1.1\r\nHost: a\r\n\r\n",
          "host=a q=NULL raw=NULL f=NULL raw=NULL x=a%2fb/%252F/%25/A" },
        { "GET /v/%25%32F//x/../y HTTP/1.1\r\nHost: a\r\n\r\n",
          "host=a q=NULL raw=NULL f=NULL raw=NULL x=%252F/y" }
    };

    EACH(rows, i) {
        context("%s", rows[i].in);
        CHECK_INT(cl_ask(c, rows[i].in), rows[i].want != NULL ? 200 : 404);
        if (rows[i].want != NULL)
            CHECK_STR(c->body.p, rows[i].want);
    }
}

/* Each value is made once, however often it is asked for: a stream of days may
 * ask at every turn. */
SERVED_WITH(request, values_are_made_once, T_LIVE,
            fx_init(f); f->cfg.routes = value_routes, NULL)
{
    CHECK_INT(cl_ask(c, "GET http://h/often/a%20b/c?bad=100%&q=%41+b "
                     "HTTP/1.1\r\nHost: a\r\nCookie: c=d\r\n\r\n"), 200);
}

/* The largest Content-Length overflows no sum. */
LIVE(request, the_longest_body_there_is)
{
    static const empm_route table[] = {
        EMPM_ROUTE_WITH("POST /any", h_sum, NULL, NULL, NULL, 0, 0, 0),
        EMPM_ROUTES_END
    };
    fixture f;
    client c;

    fx_init(&f);
    f.cfg.routes = table;
    if (!fx_up(&f))
        return;
    cl_open(&c, &f);                 /* a sanitizer sees it */
    cl_puts(&c, "POST /any HTTP/1.1\r\nHost: a\r\n"
                "Content-Length: 9223372036854775807\r\n\r\nhello");
    cl_readable(&c, 50);
    cl_close(&c);
    CHECK_INT(get_status(&f, "/nowhere"), 404);
    fx_down(&f);
}

/* Trailers that RFC 9110 6.5.1 forbids do not reach the handler. */
SERVED_WITH(request, trailers_that_must_not_be_are_dropped, T_LIVE,
            fx_init(f); f->cfg.routes = value_routes, NULL)
{
    cl_puts(c, "POST /trailers HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
            "chunked"
                "\r\n\r\n5\r\nhello\r\n0\r\nContent-Type: a\r\nX: 1\r\n"
                "Content-Length: 9\r\nhost: b\r\nY: 2\r\n\r\n");
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "Content-Type=- X=1 Content-Length=- Host=- Y=2 ");
    CHECK_INT(c->closes, 0);
}

/* Deferred calls run in reverse order when the request ends, whether it
 * succeeds or fails. */
SERVED_HERE(request, memory_and_defer, NULL)
{
    CHECK_INT(cl_ask(c, "GET /alloc HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    CHECK_SOON(get_int(&shm->order) == 4321, 2000);
    set_int(&shm->order, 0);
    CHECK_INT(cl_get(c, "/alloc?fail=1"), 500);
    CHECK_SOON(get_int(&shm->order) == 4321, 2000);
}

/* ---------------------------------------------------------------------------
 * >>response -- what comes back
 * ------------------------------------------------------------------------- */

/* An answer that fits has Content-Length, a longer one is chunked, and a
 * declared length is kept. */
SERVED(response, framing_by_length, NULL)
{
    static const struct { long bytes; int chunked; } rows[] = {
        { 0, 0 }, { 1, 0 }, { 8000, 0 }, { 30000, 0 }, { 65000, 0 },
        { 70000, 1 }, { 200000, 1 }, { 5000000, 1 }
    };

    EACH(rows, i) {
        char target[64];
        context("%ld bytes", rows[i].bytes);
        snprintf(target, sizeof target, "/big?bytes=%ld", rows[i].bytes);
        CHECK_INT(cl_get(c, target), 200);
        CHECK_INT(c->chunked, rows[i].chunked);
        CHECK_INT(c->complete, 1);
        CHECK_INT(c->body.n, rows[i].bytes);
        CHECK_INT(pattern_fault(c->body.p, c->body.n, 0), -1);
        if (!rows[i].chunked)
            CHECK_INT(c->declared, rows[i].bytes);
    }
    CHECK_INT(cl_get(c, "/big?bytes=100&piece=1"), 200);
    CHECK_INT(c->declared, 100);
    CHECK_INT(cl_get(c, "/big?bytes=300000&declare=300000"), 200);
    CHECK_INT(c->declared, 300000);
    CHECK_INT(pattern_fault(c->body.p, c->body.n, 0), -1);
    check_in_step(c);
    cl_close(c);
    CHECK_SOON(get_int(&shm->cleanups) == 10, 2000);
}

/* A producer's answer is complete, has the declared length, and an abort or a
 * shortage ends the connection instead of the body. */
SERVED(response, producers, NULL)
{
    CHECK_INT(cl_get(c, "/produce?bytes=100000"), 200);
    CHECK_INT(c->chunked, 1);
    CHECK_INT(c->body.n, 100000);
    CHECK_INT(pattern_fault(c->body.p, c->body.n, 0), -1);
    CHECK_INT(cl_get(c, "/produce?bytes=7000000&declare=7000000"), 200);
    CHECK_INT(c->declared, 7000000);
    CHECK_INT(c->complete, 1);
    CHECK_INT(pattern_fault(c->body.p, c->body.n, 0), -1);
    CHECK_INT(cl_get(c, "/produce?bytes=0"), 200);
    CHECK_INT(c->body.n, 0);
    CHECK_INT(cl_get(c, "/produce?bytes=0&declare=0"), 200);
    CHECK_INT(cl_get(c, "/produce?bytes=1"), 200);
    CHECK_STR(c->body.p, "!");
    check_in_step(c);
    CHECK_SOON(get_int(&shm->cleanups) == 5, 2000);
    /* an abort is seen: no final chunk, and the connection ends */
    CHECK_INT(cl_get(c, "/produce?bytes=100000&how=-1"), 200);
    CHECK_INT(c->complete, 0);
    CHECK(c->end != 0);
    cl_close(c);
    /* shorter than declared */
    CHECK_INT(cl_get(c, "/produce?bytes=100000&declare=100001"), 200);
    CHECK_INT(c->complete, 0);
    CHECK(c->end != 0);
    cl_close(c);
    /* longer: never asked for more than declared */
    CHECK_INT(cl_get(c, "/produce?bytes=100001&declare=100000"), 200);
    CHECK_INT(c->body.n, 100000);
    if (cl_end(c, 20) == CL_TIMEOUT)
        check_in_step(c);
    cl_close(c);
    CHECK_SOON(get_int(&shm->cleanups) == 8, 2000);
}

/* Fields that a handler sets and adds are sent; an empty ServerField sends no
 * Server. */
SERVED_WITH(response, headers, T_LIVE,
            fx_init(f); f->cfg.server_field = "", NULL)
{
    CHECK_INT(cl_ask(c, "GET /headers HTTP/1.1\r\nHost: a\r\n\r\n"), 201);
    CHECK_STR(cl_header(c, "X-One"), "1");
    CHECK(cl_header_nth(c, "X-One", 1) == NULL);
    CHECK_STR(cl_header_nth(c, "X-Two", 0), "a");
    CHECK_STR(cl_header_nth(c, "X-Two", 1), "b");
    CHECK_STR(cl_header(c, "X-Empty"), "");
    CHECK(cl_header(c, "Server") == NULL);
    CHECK(cl_header(c, "Content-Type") != NULL);
    check_in_step(c);
}

/* Each status from 200 to 599 can be sent and leaves the connection in step;
 * any other is 500. */
SERVED(response, statuses, NULL)
{
    static const int codes[] = { 200, 201, 202, 204, 206, 301, 304, 400, 403,
                                 404, 409, 418, 429, 500, 501, 503, 599 };

    EACH(codes, i) {
        char target[64];
        context("%d", codes[i]);
        snprintf(target, sizeof target, "/status?code=%d", codes[i]);
        CHECK_INT(cl_get(c, target), codes[i]);
        if (codes[i] == 204 || codes[i] == 304)
            CHECK_INT(c->in.n, 0);
        if (c->closes)
            cl_close(c);
        check_in_step(c);
    }
    CHECK_INT(cl_get(c, "/status?code=600"), 500);
    if (c->closes)
        cl_close(c);
    CHECK_INT(cl_get(c, "/status?code=42"), 500);
    cl_close(c);
    CHECK_INT(get_status(f, "/server-status"), 200);
}

/* An answer beyond LimitResponseSpool is aborted so that the client can see
 * it, and is never cut in silence. */
SERVED(response, spool_limit_aborts,
       "LimitResponseSpool 200000; SendBufferSize 16384")
{
    cl_connect_port(c, f->port, 8192);
    cl_puts(c, "GET /big?bytes=20000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_int(&shm->cleanups) == 1, 4000);
    CHECK_INT(get_int(&shm->rc[0]), EMPM_EFULL);
    cl_reply(c);
    CHECK_INT(c->complete, 0);
    CHECK(c->end != 0);
    CHECK(fx_log_has(f, "pool"));
    cl_close(c);
    CHECK_INT(get_status(f, "/hello"), 200);
}

/* Nothing follows a head without a body, however much the handler writes: the
 * client would read it as further answers. */
SERVED(response, nothing_follows_a_head_without_body, NULL)
{
    static const char *const first[] = { "status.204", "status.205",
                                         "status.304", "status.200" };
    static const long pieces[] = { 1000, 4096, 8192, 10000, 50000, 65536 };

    cl_open(c, f);
    EACH(first, i)
        EACH(pieces, k) {
            const int head = strcmp(first[i], "status.200") == 0;
            context("%s, pieces of %ld", first[i], pieces[k]);
            cl_printf(c, "%s "
                      "/script?h=%s,write.200000.%ld,flush,write.100.100 "
                      "HTTP/1.1\r\nHost: a\r\n\r\n", head ? "HEAD" : "GET",
                      first[i], pieces[k]);
            CHECK_INT(cl_reply_with(c, head), strtol(first[i] + 7, NULL, 10));
            CHECK_INT(c->body.n, 0);
            CHECK_INT(c->closes, 0);
            check_in_step(c);
            /* the status is known last */
            if (head)
                continue;
            cl_printf(c, "GET /script?h=write.60000.%ld,return.%s HTTP/1.1\r\n"
                      "Host: a\r\n\r\n", pieces[k], first[i] + 7);
            CHECK_INT(cl_reply(c), strtol(first[i] + 7, NULL, 10));
            CHECK_INT(c->body.n, 0);
            check_in_step(c);
        }
    CHECK_INT(cl_get(c, "/script?h=file.big.bin,return.205"), 205);
    check_in_step(c);
    CHECK_INT(cl_get(c, "/script?h=status.205,file.a.txt"), 205);
    check_in_step(c);
    CHECK_INT(cl_get(c, "/script?h=set.Content-Length:5,return.205"), 205);
    check_in_step(c);
}

/* A file follows its head, and the answers before it. */
SERVED(response, a_file_waits_for_its_head, NULL)
{
    int i;

    CHECK_INT(cl_get(c, "/script?h=suspend.30,file.big.bin,wait"), 200);
    CHECK_INT(c->declared, 300000);
    CHECK_INT(pattern_fault(c->body.p, c->body.n, 0), -1);
    CHECK_INT(cl_get(c, "/script?h=suspend.30,wait&w=file.big.bin"), 200);
    CHECK_INT(c->body.n, 300000);
    check_in_step(c);
    /* on_body has a file: an earlier answer is under way */
    cl_puts(c, GET1 "\r\nPOST /script?b=file.big.bin HTTP/1.1\r\nHost: a\r\n"
            "Content-Length: 10\r\n\r\n12345");
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "Hello, world!\n");
    CHECK_OPEN(c);
    cl_puts(c, "67890");
    CHECK_INT(cl_reply(c), 200);
    CHECK_INT(pattern_fault(c->body.p, c->body.n, 0), -1);
    check_in_step(c);
    /* files and texts, pipelined, in order */
    for (i = 0; i < 6; i++)
        cl_puts(c, i % 2 ? "GET /file/big.bin HTTP/1.1\r\nHost: a\r\n\r\n"
                          : GET1 "\r\n");
    for (i = 0; i < 6; i++) {
        context("answer %d", i);
        CHECK_INT(cl_reply(c), 200);
        CHECK_INT(c->body.n, i % 2 ? 300000 : 14);
    }
    no_context();
    check_in_step(c);
}

/* Conditions and ranges are judged when the status is final. RFC 9110
 * 13.2.1. */
SERVED(response, a_file_is_judged_by_the_final_status, NULL)
{
    static const struct { const char *script, *field; int status; long bytes; }
    rows[] = {
        { "file.a.txt", "Range: bytes=2-3", 206, 2 },
        { "file.a.txt,return.200", "Range: bytes=2-3", 206, 2 },
        { "return.200", "Range: bytes=2-3", 200, 7 },
        { "file.a.txt,return.200", "If-Modified-Since: "
          "Fri, 01 Jan 2100 00:00:00 GMT", 304, 0 },
        { "file.a.txt,return.200", "If-Match: \"nothing\"", 412, 24 },
        { "file.a.txt,return.200", "Range: bytes=50-", 416, 26 },
        { "status.404,file.a.txt", "Range: bytes=2-3", 404, 10 },
        { "file.a.txt,status.404", "If-Match: \"nothing\"", 404, 10 },
        { "file.a.txt,return.404", "Range: bytes=2-3", 404, 14 },
        { "file.big.bin,return.201", "Range: bytes=2-3", 201, 300000 },
        { "file.a.txt,status.204", "Range: bytes=2-3", 204, 0 }
    };

    EACH(rows, i) {
        context("%s, %s", rows[i].script, rows[i].field);
        cl_printf(c, "GET /script?h=%s HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
                  rows[i].script, rows[i].field);
        CHECK_INT(cl_reply(c), rows[i].status);
        CHECK_INT(c->body.n, rows[i].bytes);
        CHECK_INT(cl_header(c, "Content-Range") != NULL,
                  rows[i].status == 206 || rows[i].status == 416);
        check_in_step(c);
    }
    /* methods that select nothing have no conditions */
    CHECK_INT(cl_ask(c, "OPTIONS /script?h=file.a.txt HTTP/1.1\r\nHost: a\r\n"
                     "If-None-Match: *\r\n\r\n"), 200);
    CHECK_STR(c->body.p, "0123456789");
}

/* empm_flush() sends for as long as the socket takes it. A long answer is
 * limited by its unsent bytes, not by those that were sent. */
SERVED(response, a_handler_sends_while_it_runs, LONG_TIMES)
{
    int i;

    cl_puts(c, "GET /script?h=defer,write.1500000");
    for (i = 0; i < 40; i++)
        cl_puts(c, ",flush,nap.15");
    cl_puts(c, ",nap.1500 HTTP/1.1\r\nHost: a\r\n\r\n");
    while (c->in.n < 1500000 && cl_fill(c, now_ms() + PATIENCE) > 0)
        ;
    CHECK_INT(get_int(&shm->cleanups), 0);   /* the handler runs */
    CHECK_INT(cl_reply(c), 200);
    CHECK_INT(c->body.n, 1500000);
    check_in_step(c);
}

/* The overflow is a ring. Bytes that the socket has taken leave the ring,
 * which may come round before the client has acknowledged them. */
SERVED(response, the_ring_overwrites_nothing,
       LONG_TIMES "LimitResponseSpool 200001; SendBufferSize 212992")
{
    size_t k;

    cl_connect_port(c, f->port, 32768);
    cl_puts(c, "GET /big?bytes=2000000&ahead=300000 HTTP/1.1\r\nHost: "
            "a\r\n\r\n");
    for (k = 0; c->in.n < 2000000 && cl_fill(c, now_ms() + PATIENCE) > 0; k++) {
        set_int(&shm->hits, (int)c->in.n);
        if (k % 8 == 0)
            nap(2);                  /* so that all of it is full */
    }
    CHECK_INT(cl_reply(c), 200);
    CHECK_INT(c->body.n, 2000000);
    CHECK_INT(pattern_fault(c->body.p, c->body.n, 0), -1);
    check_in_step(c);
}

/* An answer that fails takes none with it that was complete before, however
 * slowly the client reads; and it does not seem to be whole. */
SERVED(response, a_failure_ends_only_its_own_answer,
       LONG_TIMES "LimitResponseSpool 4000000")
{
    static const char *const bad[] = {
        "/script?h=write.3000000,return.500", "/misuse?how=short-flushed",
        "/produce?bytes=100000&how=-1", "/produce?bytes=100000&declare=100001"
    };

    EACH(bad, i) {
        context("%s", bad[i]);
        cl_connect_port(c, f->port, 8192);
        cl_printf(c, "GET /big?bytes=2000000 HTTP/1.1\r\nHost: a\r\n\r\n"
                  "GET /file/big.bin HTTP/1.1\r\nHost: a\r\n\r\n"
                  "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", bad[i]);
        CHECK_INT(cl_reply(c), 200);
        CHECK_INT(c->body.n, 2000000);
        CHECK_INT(pattern_fault(c->body.p, c->body.n, 0), -1);
        CHECK_INT(cl_reply(c), 200);
        CHECK_INT(c->body.n, 300000);
        CHECK_INT(cl_reply(c), 200);
        CHECK_INT(c->complete, 0);
        CHECK(c->end != 0);
        cl_close(c);
    }
}

/* Writes `first` bytes to a client that reads nothing, then, when it has read
 * them all, `then` more. Returns whether the answer is whole. */
static int answers_in_two(fixture *f, int first, int then)
{
    char line[200];
    client c;
    int whole;

    cl_connect_port(&c, f->port, 32768);
    snprintf(line, sizeof line, "GET /script?h=write.%d,nap.%d,write.%d "
             "HTTP/1.1\r\nHost: a\r\n\r\n", first, SCALED(200), then);
    cl_puts(&c, line);
    nap(SCALED(80));
    whole = cl_reply(&c) == 200 && (int)c.body.n == first + then;
    cl_close(&c);
    return whole;
}

/* Once the client has taken all of a nearly full overflow, the next bytes have
 * room, though they are too few to try the socket for. */
SERVED(response, a_full_overflow_tries_the_socket,
       LONG_TIMES "LimitResponseSpool 200001; SendBufferSize 65536")
{
    int fits = 100000, does_not = 4000000;

    while (does_not - fits > 2000) {
        const int n = (fits + does_not) / 2;
        if (answers_in_two(f, n, 0))
            fits = n;
        else
            does_not = n;
    }
    CHECK(fits > 200001);
    CHECK(answers_in_two(f, fits - 8000, 30000));
}

/* A stop that cuts an answer which only the connection's end delimits does so
 * by a reset: a FIN would say that it is whole. */
SERVED(response, a_stop_cuts_nothing_in_silence,
       LONG_TIMES "StopTimeout 200ms; GracefulShutdownTimeout 200ms")
{
    cl_connect_port(c, f->port, 8192);
    cl_puts(c, "GET /big?bytes=20000000 HTTP/1.0\r\n\r\n");
    CHECK_SOON(get_int(&shm->cleanups) == 1, 4000);
    if (f->forked) {
        signal_process(f->pid, SIGTERM);
        CHECK(fx_wait(f, PATIENCE));
        CHECK(fx_log_has(f, "EMPM5015"));
    } else {
        empm_stop(f->s);
        CHECK_INT(empm_wait(f->s, PATIENCE), EMPM_OK);
    }
    CHECK_INT(cl_drain(c, PATIENCE), CL_RESET);
}

/* Unsent bytes of on_body are no part of the refusal that follows. */
SERVED(response, a_refusal_is_no_part_of_what_on_body_wrote, NULL)
{
    CHECK_INT(cl_ask(c, "POST /script?b=write.7.7 HTTP/1.1\r\nHost: a\r\n"
                     "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nz\r\n"),
              400);
    CHECK_STR(c->body.p, "400 Bad Request\n");
    /* but of its own it is */
    CHECK_INT(cl_ask(c, "POST /script?b=write.4.4,return.422 HTTP/1.1\r\n"
                     "Host: a\r\nContent-Length: 5\r\n\r\nhello"), 422);
    CHECK_STR(c->body.p, "HTTP");
    CHECK_INT(cl_ask(c, "POST /script?b=set.Content-Length:900,write.7.7 "
                     "HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                     "5\r\nhello\r\nz\r\n"), 400);
    CHECK_STR(c->body.p, "400 Bad Request\n");
}

/* An answer of on_body leaves while the body still arrives, from memory and
 * from the overflow: a client may wait for it. */
SERVED(response, on_body_answers_before_the_rest_arrives, LONG_TIMES)
{
    cl_puts(c, "POST /script?b=write.8000000 HTTP/1.1\r\nHost: a\r\n"
            "Content-Length: 10\r\n\r\n12345");
    nap(100);                        /* until the socket is full */
    while (c->in.n < 8000000 && cl_fill(c, now_ms() + PATIENCE) > 0)
        ;
    CHECK(c->in.n >= 8000000);
    nap(50);                         /* the socket has been full before: what
                                        the turn's end leaves must leave, too */
    cl_puts(c, "67890");
    CHECK_INT(cl_reply(c), 200);
    CHECK_INT(c->body.n, 16000000);
    check_in_step(c);
}

/* Cleanups run when no function of the user's can see the request any more: not
 * when a slow client has taken its answer. */
SERVED(response, cleanups_do_not_wait_for_the_client, LONG_TIMES)
{
    cl_connect_port(c, f->port, 8192);
    cl_puts(c, "GET /script?h=defer,write.8000000 HTTP/1.1\r\nHost: "
            "a\r\n\r\n");
    CHECK_SOON(get_int(&shm->cleanups) == 1, 4000);
    CHECK_INT(cl_reply(c), 200);
    CHECK_INT(c->body.n, 8000000);
    CHECK_INT(get_int(&shm->cleanups), 1);
    check_in_step(c);
}

/* A client that takes less than ResponseMinRate is dropped, though it takes a
 * little all the time. */
LIVE(response, min_rate)
{
    static const struct { int rate, whole; } rows[] = { { 400000, 0 },
                                                       { 0, 1 } };
    fixture f;
    client c;

    EACH(rows, i) {
        uint64_t end;
        context("%d bytes/s", rows[i].rate);
        fx_init(&f);
        long_times(&f);
        f.cfg.timeout_ms = 400;
        f.cfg.response_min_rate = rows[i].rate;
        f.cfg.send_buffer_size = 16384;
        if (!fx_up(&f))
            return;
        cl_connect_port(&c, f.port, 8192);
        cl_puts(&c, "GET /big?bytes=8000000 HTTP/1.1\r\nHost: a\r\n\r\n");
        for (end = now_ms() + 1200; now_ms() < end;) {
            char some[4000];
            if (recv(c.fd, some, sizeof some, MSG_DONTWAIT) < 0 &&
                errno == ECONNRESET)
                c.end = CL_RESET;
            nap(20);
        }
        if (!rows[i].whole)
            CHECK_SOON(fx_log_has(&f, "EMPM5003"), 4000);
        CHECK_INT(fx_log_has(&f, "EMPM5003"), !rows[i].whole);
        cl_close(&c);
        fx_down(&f);
    }
}

/* The text that the server makes for a status has no fields of the handler's
 * own body: a 404 is not gzip, and is not kept for a year. */
SERVED(response, a_made_answer_has_no_fields_of_another_body, NULL)
{
    static const char *const fields[] = { "Content-Encoding:gzip",
                                         "ETag:\"v1\"",
                                          "Cache-Control:max-age=31536000",
                                          "Content-Disposition:inline",
                                          "Content-Type:image/png" };

    cl_open(c, f);
    EACH(fields, i) {
        char name[64];
        context("%s", fields[i]);
        snprintf(name, sizeof name, "%.*s", (int)strcspn(fields[i], ":"),
                 fields[i]);
        cl_printf(c, "GET /script?h=set.X-Kept:1,set.%s,return.404 "
                  "HTTP/1.1\r\nHost: a\r\n\r\n", fields[i]);
        CHECK_INT(cl_reply(c), 404);
        CHECK_STR(c->body.p, "404 Not Found\n");
        CHECK_STR(cl_header(c, "X-Kept"), "1");
        if (strcmp(name, "Content-Type") == 0)
            CHECK_STR(cl_header(c, name), "text/plain; charset=utf-8");
        else
            CHECK(cl_header(c, name) == NULL);
        /* with a body of the handler's own they stay */
        cl_printf(c, "GET /script?h=set.%s,write.5.5,return.404 HTTP/1.1\r\n"
                  "Host: a\r\n\r\n", fields[i]);
        CHECK_INT(cl_reply(c), 404);
        CHECK_STR(cl_header(c, name), strchr(fields[i], ':') + 1);
    }
    /* a short text for every status that may have one */
    CHECK_INT(cl_get(c, "/script?h=return.201"), 201);
    CHECK_STR(c->body.p, "201 Created\n");
    CHECK_INT(cl_get(c, "/script?h=set.Content-Type:a/b,return.200"), 200);
    CHECK_INT(c->declared, 0);
}

/* A field that finds no room leaves the one that it was to replace. */
SERVED(response, a_field_without_room_changes_nothing, NULL)
{
    CHECK_INT(cl_get(c, "/misuse?how=big-header"), 200);
    CHECK_INT(get_int(&shm->rc[0]), EMPM_EFULL);
    CHECK_STR(cl_header(c, "X-Big"), "small");
    CHECK_STR(cl_header(c, "X-Fits"), "again");
}

/* on_head answers by setting a status, and that answer's head tells the truth
 * about the connection. */
SERVED(response, on_head_answers, NULL)
{
    CHECK_INT(cl_ask(c, "PUT /script?o=status.403&h=return.500 HTTP/1.1\r\n"
                     "Host: a\r\n\r\n"), 403);
    cl_puts(c, "PUT /script?o=file.big.bin HTTP/1.1\r\nHost: a\r\n"
            "Content-Length: 3\r\n\r\nabc");
    CHECK_INT(cl_reply(c), 200);
    CHECK_INT(c->body.n, 300000);
    check_in_step(c);
    CHECK_INT(cl_ask(c, "PUT /script?o=flush HTTP/1.1\r\nHost: a\r\n"
                     "Content-Length: 900000\r\n\r\n"), 200);
    CHECK_INT(c->closes, 1);
    CHECK_FIN(c);
}

/* An answer of on_head or of the server itself counts as part of the turn: a
 * client that pipelines without end does not keep the only worker. */
SERVED_HERE(response, early_answers_end_a_turn,
            LONG_TIMES "ThreadsPerChild 1; MaxKeepAliveRequests 0")
{
    enum { N = 400 };
    client d;
    uint64_t t0;
    int i;

    cl_open(c, f);
    cl_open(&d, f);
    for (i = 0; i < N; i++)
        cl_puts(c, "PUT /script?o=nap.3,return.403 HTTP/1.1\r\nHost: "
                "a\r\n\r\n");
    CHECK(cl_readable(c, PATIENCE));
    t0 = now_ms();
    check_in_step(&d);
    CHECK_IN(now_ms() - t0, 0, SCALED(400));     /* all of them: 1.2 s */
    for (i = 0; i < N; i++)
        if (!CHECK_INT(cl_reply(c), 403))
            break;
    cl_close(&d);
}

/* A client that leaves is no fault of the handler's. */
SERVED(response, a_client_that_leaves_is_no_error, NULL)
{
    cl_puts(c, "GET /script?h=defer,nap.200,write.200000,return.-3 "
            "HTTP/1.1\r\nHost: a\r\n\r\n");
    nap(50);
    cl_reset(c);
    CHECK_SOON(get_int(&shm->cleanups) == 1, 4000);
    cl_puts(c, "POST /script?b=defer,flush HTTP/1.1\r\nHost: a\r\n"
            "Content-Length: 100\r\n\r\nhalf");
    CHECK(cl_readable(c, PATIENCE));
    cl_reset(c);
    CHECK_SOON(get_int(&shm->cleanups) == 2, 4000);
    CHECK_INT(fx_log_has(f, "EMPM5002"), 0);
}

/* Each status of IANA's registry has its phrase, and any other has the name of
 * its class. */
TEST(response, every_registered_status_has_its_phrase)
{
    /* IANA's registry, from 200 on; 306 and 418 are "(Unused)" there */
    static const int known[] = {
        200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303,
        304, 305, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409,
        410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 424, 425, 426,
        428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510,
        511
    };
    size_t at = 0;
    int status;

    EACH(known, i) {
        const char *text = empm__response_reason(known[i]);
        context("%d", known[i]);
        CHECK(strcmp(text, "Success") != 0 &&
              strcmp(text, "Redirection") != 0 &&
              strcmp(text, "Client Error") != 0 &&
              strcmp(text, "Server Error") != 0);
    }
    for (status = 200; status <= 599; status++) {   /* a class for the others */
        context("%d", status);
        if (at < sizeof known / sizeof known[0] && status == known[at])
            at++;
        else
            CHECK_STR(empm__response_reason(status),
                      status < 300 ? "Success" : status < 400 ? "Redirection"
                      : status < 500 ? "Client Error" : "Server Error");
    }
    no_context();
    CHECK_STR(empm__response_reason(428), "Precondition Required");
    CHECK_STR(empm__response_reason(451), "Unavailable For Legal Reasons");
    CHECK_STR(empm__response_reason(511), "Network Authentication Required");
}

/* ---------------------------------------------------------------------------
 * >>access -- a record per request, whatever the client sends
 * ------------------------------------------------------------------------- */

/* Gives the server one access log; returns its path. */
static const char *log_to(fixture *f, char *path, size_t n, const char *format)
{
    static char values[EMPM_MAX_LIST][1500];     /* of one fixture at a time */
    static int number;
    char name[32];
    int i = 0;

    while (f->cfg.custom_log[i] != NULL)
        i++;
    snprintf(name, sizeof name, "access.%d", number++);
    tmp_path(path, n, name);
    snprintf(values[i], sizeof values[i], "%s %s", path, format);
    f->cfg.custom_log[i] = values[i];
    return path;
}

/* What the log says once it has n lines; the caller frees. */
static char *log_lines(const char *path, int n, int ms)
{
    uint64_t end = now_ms() + (uint64_t)SCALED(ms);
    char *text = slurp_path(path);

    while (lines_in(text) < n && now_ms() < end) {
        free(text);
        nap(2);
        text = slurp_path(path);
    }
    CHECK_INT(lines_in(text), n);
    return text;
}

/* Takes back what escaping has done; NULL: that was no escape. */
static char *unescaped(const char *s, size_t n, size_t *len)
{
    static const char from[] = "bnrtv\"\\", to[] = "\b\n\r\t\v\"\\";
    char *out = (char *)malloc(n + 1), *at = out;
    size_t i;

    for (i = 0; out != NULL && i < n; i++) {
        const char *named;
        if ((unsigned char)s[i] < 32 || (unsigned char)s[i] > 126)
            break;
        if (s[i] != '\\') {
            *at++ = s[i];
        } else if (i + 3 < n && s[i + 1] == 'x' &&
                   empm__ascii_hex(s[i + 2]) >= 0 &&
                   empm__ascii_hex(s[i + 3]) >= 0) {
            *at++ = (char)(empm__ascii_hex(s[i + 2]) * 16 +
                           empm__ascii_hex(s[i + 3]));
            i += 3;
        } else if (i + 1 < n && (named = strchr(from, s[i + 1])) != NULL) {
            *at++ = to[named - from];
            i++;
        } else
            break;
    }
    *len = (size_t)(at - out);
    if (out != NULL && i < n) {
        free(out);
        return NULL;
    }
    return out;
}

typedef struct record {
    const char *line, *referer, *agent;          /* within the quotes */
    size_t      line_n, referer_n, agent_n;
    int         status;
    long        bytes;                           /* -1: "-" */
} record;

static const char *quoted(const char *p, const char **s, size_t *n)
{
    if (p == NULL || *p++ != '"')
        return NULL;
    *s = p;
    while (*p != '"') {
        if (*p == '\n' || *p == 0)
            return NULL;
        p += *p == '\\' ? 2 : 1;
    }
    *n = (size_t)(p - *s);
    return p + 1;
}

/* One line of combined, strictly. Returns the next line, or NULL. */
static const char *combined(const char *p, record *r)
{
    static const char time[] = "[99/Aaa/9999:99:99:99 s9999] ";
    size_t i, n = strspn(p, "0123456789abcdef.:");
    char *end;

    if (n < 2 || strncmp(p + n, " - - ", 5) != 0)
        return NULL;
    p += n + 5;
    for (i = 0; time[i] != 0; i++, p++)
        if (time[i] == '9' ? !empm__ascii_is_digit(*p)
            : time[i] == 'A' ? *p < 'A' || *p > 'Z'
            : time[i] == 'a' ? *p < 'a' || *p > 'z'
            : time[i] == 's' ? *p != '+' && *p != '-' : *p != time[i])
            return NULL;
    p = quoted(p, &r->line, &r->line_n);
    if (p == NULL || strspn(p + 1, "0123456789") != 3)
        return NULL;
    r->status = (int)strtol(p + 1, NULL, 10);
    p += 4;
    if (*p++ != ' ')
        return NULL;
    r->bytes = -1;
    if (*p == '-')
        p++;
    else {
        r->bytes = strtol(p, &end, 10);
        if (end == p || r->bytes == 0)
            return NULL;
        p = end;
    }
    if (*p != ' ' || (p = quoted(p + 1, &r->referer, &r->referer_n)) == NULL ||
        *p != ' ' || (p = quoted(p + 1, &r->agent, &r->agent_n)) == NULL ||
        *p != '\n')
        return NULL;
    return p + 1;
}

/* A format that is not right is an error that says its place. */
TEST(access, formats_are_checked)
{
    static const struct { const char *custom, *says; } cases[] = {
        { "a.log common", NULL }, { "a.log combined", NULL },
        { "a.log vhost_combined", NULL }, { "a.log mine", NULL },
        { "\"with space.log\" \"%h \\\"%r\\\" %%\"", NULL },
        { "/dev/stdout %h", NULL }, { "a.log %>s%<s%!200s%400,501>s", NULL },
        { "a.log %{begin:sec}t%{end:%Y}t%{ms}T%{remote}p%{tid}P%{c}a", NULL },
        { "a.log", "takes a file and a format" },
        { "a.log common env=x", NULL }, { "a.log common env=!x", NULL },
        { "a.log %f%R%{x}e%{x}n%{c}h%u", NULL }, { "\"|cat -\" common", NULL },
        { "a.log common env=", "env=NAME" }, { "a.log common env=!",
                                              "env=NAME" },
        { "a.log common expr=x", "env=NAME" }, { "a.log %n", "wants a {name}" },
        { "a.log common env=x y", "takes a file and a format" },
        { "a.log \"%h", "takes a file and a format" },
        { "a.log nonesuch", "no LogFormat" }, { "| common", "no program" },
        { "a.log \"%h %J\"", "\"%J\" at byte 4 of the format is not known" },
        { "a.log \"%h %\"", "at byte 4 of the format is not known" },
        { "a.log %i", "wants a {name}" }, { "a.log %{}o", "wants a {name}" },
        { "a.log %{x", "brace" }, { "a.log %{min}T", "no such word" },
        { "a.log %{x}h", "no such word" }, { "a.log %20s", "three digits" },
        { "a.log %2000s", "three digits" },
        { "a.log %1,2s", "three digits" },
        { "a.log %100,101,102,103,104,105,106,107,108s", "eight" }
    };
    fixture f;
    size_t i;

    for (i = 0; i < EMPM__COUNT(cases); i++) {
        char *log;
        fx_init(&f);
        context("%s", cases[i].custom);
        CHECK_INT(empm_set(&f.cfg, "LogFormat", "\"%h %t\" mine", NULL, 0), 0);
        CHECK_INT(empm_set(&f.cfg, "CustomLog", cases[i].custom, NULL, 0), 0);
        CHECK_INT(empm_check(&f.cfg, fx_log, &f), cases[i].says != NULL);
        log = slurp(f.log_fd);
        if (cases[i].says != NULL && !CHECK(strstr(log, cases[i].says) != NULL))
            printf("%s", log);
        CHECK((strstr(log, "EMPM540") != NULL) == (cases[i].says != NULL));
        free(log);
        fx_close_files(&f);
    }
    no_context();
    fx_init(&f);
    empm_set(&f.cfg, "LogFormat", "%h", NULL, 0);
    empm_set(&f.cfg, "LogFormat", "\"%h %Y\" x", NULL, 0);
    CHECK_INT(empm_check(&f.cfg, fx_log, &f), 2);
    fx_close_files(&f);
}

/* The appendix names every letter that a format takes, and no other. */
TEST(access, table_of_letters)
{
    char *text = slurp_path("eventmpm.h"), *p, *end, format[16];
    unsigned char named[128];
    empm_config cfg = empm_defaults();
    int i;

    memset(named, 0, sizeof named);
    p = strstr(text, "\n * >>letters ");
    end = p != NULL ? strstr(p, "\n * ---") : NULL;
    if (!CHECK(end != NULL)) {
        free(text);
        return;
    }
    for (; p < end; p++)
        if (p[0] == '%' &&
            (p[1] != '{' || strcspn(p, "}") < strcspn(p, "\n"))) {
            const char *at = p + 1;
            while (strchr("<>!,0123456789", *at) != NULL)
                at++;
            if (*at == '{')
                at += strcspn(at, "}") + 1;
            named[*at & 127] = 1;
        }
    free(text);
    cfg.routes = routes;
    cfg.custom_log[0] = format;
    for (i = 33; i < 127; i++) {
        size_t k;
        for (k = 0; k + 1 < EMPM__COUNT(empm__letters) &&
                    empm__letters[k].letter != (char)i; k++)
            ;
        snprintf(format, sizeof format, "x %%%s%c",
                 empm__letters[k].braces == EMPM__BRACES_NAME ? "{x}" : "", i);
        if (strchr("!,<>{\"\\", i) != NULL || (i >= '0' && i <= '9'))
            continue;                /* what stands before a letter */
        context("%s", format);
        CHECK_INT(empm_check(&cfg, NULL, NULL) == 0, named[i]);
    }
    no_context();
}

/* Each letter of a format writes its part of the request. */
LIVE(access, every_letter)
{
    static const struct { const char *item, *get, *post; } cases[] = {
        { "%h %l %u %a %{c}a", "127.0.0.1 - - 127.0.0.1 127.0.0.1", NULL },
        { "%A %v %V %p", "127.0.0.1 www.test a.test #", NULL },
        { "%{remote}p %{local}p", "# #", NULL },
        { "%t", "[#/*/#:#:#:# +#]", NULL }, { "%{%Y}t", "#", NULL },
        { "%{sec}t %{end:msec}t %{usec}t", "# # #", NULL },
        { "%{msec_frac}t %{usec_frac}t", "# #", NULL },
        { "%r", "GET /hello/you?q=1 HTTP/1.1", "POST /echo HTTP/1.1" },
        { "%s %>s %<s", "200 200 200", NULL },
        { "%b %B", "12 12", "- 0" },
        { "%m %U %q %H", "GET /hello/you ?q=1 HTTP/1.1",
          "POST /echo  HTTP/1.1" },
        { "%D %T %{ms}T %{us}T", "# 0 # #", NULL },
        { "%k %X", "0 +", "1 -" }, { "%P %{tid}P %L", "# # -", NULL },
        { "%{X-Field}i %{none}i", "in \\\"quotes\\\" -", "- -" },
        { "%{Content-Type}o", "text/plain; charset=utf-8", "*" },
        { "%{Content-Length}o %{Server}o", "12 eventmpm", "0 eventmpm" },
        { "%{y}C %{z}C", "2 -", "- -" }, { "100%%", "100%", NULL },
        { "%404{X-Field}i %!404s %!200s %200,204s", "- 200 - 200", NULL }
    };
    static const char get[] = "GET /hello/you?q=1 HTTP/1.1\r\n"
                              "Host: a.test:80\r\nX-Field: in \"quotes\"\r\n"
                              "Cookie: x=1; y=2\r\n\r\n";
    static const char post[] = "POST /echo HTTP/1.1\r\nHost: a.test\r\n"
                               "Connection: close\r\nContent-Length: 0\r\n\r\n";
    fixture f;
    client c;
    char path[EMPM_MAX_LIST][300], format[300], *text;
    size_t i, k;
    long in = 0, out = 0, all = 0;

    for (i = 0; i < EMPM__COUNT(cases) + 1; i += EMPM_MAX_LIST - 1) {
        fx_init(&f);
        f.cfg.server_name = "www.test";
        f.cfg.threads_per_child = 1; /* else the lines may change places */
        for (k = i; k < EMPM__COUNT(cases) && k < i + EMPM_MAX_LIST - 1; k++) {
            snprintf(format, sizeof format, "\"%s\"", cases[k].item);
            log_to(&f, path[k - i], sizeof path[0], format);
        }
        log_to(&f, path[EMPM_MAX_LIST - 1], sizeof path[0], "\"%I %O %S\"");
        if (!fx_up(&f))
            return;
        if (cl_open(&c, &f) == 0) {
            cl_puts(&c, get);
            CHECK_INT(cl_reply(&c), 200);
            out = (long)c.head.n + (long)c.body.n;
            cl_puts(&c, post);
            CHECK_INT(cl_reply(&c), 200);
        }
        cl_close(&c);
        for (k = i; k < EMPM__COUNT(cases) && k < i + EMPM_MAX_LIST - 1; k++) {
            char *second;
            text = log_lines(path[k - i], 2, 1500);
            second = strchr(text, '\n');
            context("%s: %s", cases[k].item, text);
            if (second != NULL) {
                *second++ = 0;
                second[strcspn(second, "\n")] = 0;
                CHECK(like(text, cases[k].get));
                CHECK(cases[k].post == NULL || like(second, cases[k].post));
            }
            no_context();
            free(text);
            unlink(path[k - i]);
        }
        text = log_lines(path[EMPM_MAX_LIST - 1], 2, 1500);
        CHECK_INT(sscanf(text, "%ld %ld %ld", &in, &out, &all), 3);
        CHECK_INT(in, sizeof get - 1);
        CHECK_INT(all, in + out);
        CHECK_IN(out, 100, 300);
        free(text);
        unlink(path[EMPM_MAX_LIST - 1]);
        fx_down(&f);
    }
}

/* A hostile request makes exactly one record, in which quotes and control
 * characters are escaped so that a reader gets them back. */
LIVE(access, hostile_requests_make_one_record_each)
{
    static const struct {
        const char *raw;
        size_t      n;
        int         status;
        const char *line;
    } cases[] = {
#define RAW(text, status, line) { text, sizeof text - 1, status, line }
        RAW("GET /a\"b\\c HTTP/1.1\r\nHost: a\r\n\r\n", 404,
            "GET /a\"b\\c HTTP/1.1"),
        RAW("GET /\033[31mred HTTP/1.1\r\nHost: a\r\n\r\n", 400,
            "GET /\033[31mred HTTP/1.1"),
        RAW("GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", 400, "GET /\r HTTP/1.1"),
        RAW("GET /x\" 200 5 \"-\" \"forged\nHost: a\r\n\r\n", 400,
            "GET /x\" 200 5 \"-\" \"forged"),
        RAW("GET /\xc3\xa4\xff\x80 HTTP/1.1\r\nHost: a\r\n\r\n", 404,
            "GET /\xc3\xa4\xff\x80 HTTP/1.1"),
        RAW("GET /\x7f\t\v\b HTTP/1.1\r\n\r\n", 400, "GET /\x7f\t\v\b "
            "HTTP/1.1"),
        RAW("\x16\x03\x01\x02\x01\n", 400, "\x16\x03\x01\x02\x01"),
        RAW("GET / HTTP/1.1\r\n\r\n", 400, "GET / HTTP/1.1"),
        RAW("GET / HTTP/1.1\r\nHost: a\r\nX: \033]0;x\007\r\n\r\n", 400,
            "GET / HTTP/1.1"),
        RAW("BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", 501, "BREW /pot HTTP/1.1"),
        RAW("GET /%0a%1b%22 HTTP/1.1\r\nHost: a\r\n\r\n", 404,
            "GET /%0a%1b%22 HTTP/1.1"),
        RAW("GET http://a/hello HTTP/1.1\r\nHost: a\r\n\r\n", 200,
            "GET http://a/hello HTTP/1.1"),
        RAW("GET /hello HTTP/1.1\r\nHost: a\r\nUser-Agent: \"\\x\" \xff\r\n"
            "Referer: \\\"\t\\\r\n\r\n", 200, "GET /hello HTTP/1.1")
    };
    fixture f;
    client c;
    char path[300], *text, *back;
    const char *p;
    size_t i, n;
    record r;

    fx_init(&f);
    f.cfg.threads_per_child = 1;     /* so that they come in this order */
    log_to(&f, path, sizeof path, "combined");
    if (!fx_up(&f))
        return;
    for (i = 0; i < EMPM__COUNT(cases); i++) {
        ask_n(&f, &c, cases[i].raw, cases[i].n);
        cl_close(&c);
    }
    text = log_lines(path, (int)EMPM__COUNT(cases), 1500);
    for (i = 0, p = text; i < EMPM__COUNT(cases); i++) {
        context("%s", cases[i].line);
        if (!CHECK((p = combined(p, &r)) != NULL)) {
            printf("%s", text);
            break;
        }
        CHECK_INT(r.status, cases[i].status);
        back = unescaped(r.line, r.line_n, &n);
        CHECK(back != NULL && n == strlen(cases[i].line) &&
              memcmp(back, cases[i].line, n) == 0);
        free(back);
    }
    no_context();
    if (p != NULL) {                 /* fields of the last one */
        CHECK_INT(*p, 0);
        back = unescaped(r.agent, r.agent_n, &n);
        CHECK(back != NULL && n == 6 && memcmp(back, "\"\\x\" \xff", 6) == 0);
        free(back);
        back = unescaped(r.referer, r.referer_n, &n);
        CHECK(back != NULL && n == 4 && memcmp(back, "\\\"\t\\", 4) == 0);
        free(back);
    }
    free(text);
    fx_down(&f);
    unlink(path);
}

/* A refused request has a record, and a connection without a byte has none. */
LIVE(access, refusals_are_records_and_empty_connections_none)
{
    fixture f;
    client c;
    char path[300], *text;
    str s;

    fx_init(&f);
    f.cfg.header_timeout_ms = 300;
    f.cfg.header_timeout_max_ms = 0;
    f.cfg.limit_request_line = 1000;
    f.cfg.threads_per_child = 1;
    log_to(&f, path, sizeof path, "\"%s %m %{Host}i %X\"");
    if (!fx_up(&f))
        return;
    if (cl_open(&c, &f) == 0)        /* says nothing */
        cl_close(&c);
    CHECK_INT(ask(&f, &c, "GET / HTTP/1.1\r\nHost: early\r\nX"), 408);
    cl_close(&c);
    memset(&s, 0, sizeof s);
    str_addf(&s, "GET /");
    str_fill(&s, 'a', 2000);
    CHECK_INT(ask_n(&f, &c, s.p, s.n), 414);
    cl_close(&c);
    str_free(&s);
    CHECK_INT(ask(&f, &c, POST1 "Content-Length: 99999999\r\n\r\n"), 413);
    cl_close(&c);
    text = log_lines(path, 3, 1500);
    CHECK_STR(text, "408 GET early -\n414 - - -\n413 POST a -\n");
    free(text);
    fx_down(&f);
    unlink(path);
}

/* An upload that its client gives up is 499, as nginx logs it; a client that
 * has only sent FIN still gets its 400. */
LIVE(access, aborted_uploads_are_499)
{
    fixture f;
    client c;
    char path[300], *text;
    int i;

    fx_init(&f);
    f.cfg.threads_per_child = 1;
    log_to(&f, path, sizeof path, "\"%s %m %U %X\"");
    if (!fx_up(&f))
        return;
    for (i = 0; i < 2; i++) {
        cl_open(&c, &f);
        cl_puts(&c, i ? CHUNK "5\r\nhel" : POST1 "Content-Length: "
                "10\r\n\r\nhello");
        cl_shut(&c);
        CHECK_INT(cl_reply(&c), 400);
        cl_close(&c);
    }
    cl_open(&c, &f);
    cl_puts(&c, "GET //a/./hello#x HTTP/1.1\r\nHost: a\r\n\r\n");  /* as sent */
    CHECK_INT(cl_reply(&c), 404);
    cl_close(&c);
    text = log_lines(path, 3, 1500);
    CHECK_STR(text, "499 POST /echo X\n499 POST /echo X\n"
                    "404 GET //a/./hello +\n");
    free(text);
    fx_down(&f);
    unlink(path);
}

/* A transfer that its client ends has X and the bytes that were really sent. */
LIVE(access, aborted_transfers)
{
    fixture f;
    client c;
    char path[300], *text, x = 0, y = 0;
    long status = 0, sent = 0, body = 0;

    fx_init(&f);
    long_times(&f);
    f.cfg.threads_per_child = 1;
    log_to(&f, path, sizeof path, "\"%s %X %O %B\"");
    if (!fx_up(&f))
        return;
    if (cl_connect_port(&c, f.port, 4096) == 0) {
        cl_puts(&c, "GET /produce?bytes=50000000&declare=50000000 HTTP/1.1\r\n"
                    "Host: a\r\n\r\n");
        CHECK(cl_readable(&c, 2000));
        nap(50);
        cl_reset(&c);
    }
    text = log_lines(path, 1, 3000);
    CHECK_INT(sscanf(text, "%ld %c %ld %ld", &status, &x, &sent, &body), 4);
    CHECK_INT(status, 200);
    CHECK_INT(x, 'X');
    CHECK_IN(sent, 1000, 20000000);
    CHECK_IN(sent - body, 100, 300);
    free(text);
    if (cl_open(&c, &f) == 0) {      /* a request that never gets whole */
        cl_puts(&c, POST1 "Content-Length: 100\r\n\r\n0123456789");
        nap(50);
        cl_reset(&c);
    }
    text = log_lines(path, 2, 3000);
    CHECK_INT(sscanf(strchr(text, '\n') + 1, "%ld %c %ld %ld", &status, &y,
                     &sent, &body), 4);
    CHECK_INT(status, 499);
    CHECK_INT(y, 'X');
    CHECK_INT(sent, 0);
    free(text);
    fx_down(&f);
    unlink(path);
}

/* Every request under load has its line, and each line is whole, also with two
 * logs of one file. */
LIVE(access, lines_are_whole_and_complete)
{
    enum { N = 8 };
    fixture f;
    hammer h[N];
    char path[300], other[320], *text;
    const char *p, *next;
    int stop, i, good = 0, lines = 0;
    record r;

    fx_init(&f);
    f.cfg.max_keep_alive_requests = 0;
    log_to(&f, path, sizeof path, "combined");
    snprintf(other, sizeof other, "%s combined", path);
    f.cfg.custom_log[1] = other;
    if (!fx_up(&f))
        return;
    hammers_start(h, N, f.port, &stop);
    nap(SCALED(400));
    hammers_stop(h, N, &stop);
    for (i = 0; i < N; i++)
        good += h[i].good;
    CHECK(good > 100);
    text = log_lines(path, 2 * good, 3000);
    for (p = text; *p != 0; p = next, lines++) {
        next = combined(p, &r);
        if (!CHECK(next != NULL)) {
            printf("%.200s\n", p);
            break;
        }
        if (r.status != 200 || r.line_n != strlen("GET /hello/again HTTP/1.1"))
            CHECK_STR("another request", p);
    }
    CHECK_INT(lines, 2 * good);
    free(text);
    fx_down(&f);
    unlink(path);
}

/* Bytes in and out belong to their own request, also when requests are
 * pipelined. */
LIVE(access, pipelined_requests_have_their_own_bytes)
{
    fixture f;
    client c;
    char path[300], *text;
    int i;

    fx_init(&f);
    f.cfg.threads_per_child = 1;
    log_to(&f, path, sizeof path, "\"%U %B %I %k\"");
    if (!fx_up(&f))
        return;
    if (cl_open(&c, &f) == 0) {
        cl_puts(&c, "GET /hello/1 HTTP/1.1\r\nHost: a\r\n\r\n"
                    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: "
                "5\r\n\r\n"
                    "01234GET /hello/333 HTTP/1.1\r\nHost: a\r\n\r\n");
        for (i = 0; i < 3; i++)
            CHECK_INT(cl_reply(&c), 200);
        cl_close(&c);
    }
    text = log_lines(path, 3, 1500);
    CHECK_STR(text, "/hello/1 10 34 0\n/echo 5 56 1\n/hello/333 12 36 2\n");
    free(text);
    fx_down(&f);
    unlink(path);
}

/* A line is in its file within a fraction of a second, however long its
 * connection's next request takes. The tests set 0.15 s for the usual half
 * second. */
LIVE(access, written_soon)
{
    int workers, i, how;

    for (workers = 1; workers <= 3; workers += 2)
        for (how = 0; how < 3; how++) {
            fixture f;
            client c, d;
            char path[300], *text;
            uint64_t began;
            fx_init(&f);
            f.cfg.threads_per_child = workers;
            log_to(&f, path, sizeof path, "%U");
            if (!fx_up(&f))
                return;
            context("%d workers, %d", workers, how);
            if (cl_open(&c, &f) == 0 && cl_open(&d, &f) == 0) {
                for (i = 0; i < 24; i++)         /* it is known to be quick */
                    CHECK_INT(cl_get(&c, "/sleep?ms=0"), 200);
                free(log_lines(path, 24, 1000));
                began = now_ms();
                if (how == 0)
                    CHECK_INT(cl_get(&c, "/hello"), 200);
                else
                    cl_printf(&c, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
                              "GET %s HTTP/1.1\r\nHost: a\r\n\r\n",
                              how == 1 ? "/sleep?ms=800" : "/meet?n=9&ms=800");
                text = log_lines(path, 25, 3000);
                CHECK_IN(now_ms() - began, 0, SCALED(400));
                CHECK(strstr(text, "/hello\n") != NULL);
                free(text);
                cl_close(&d);
            }
            cl_close(&c);
            no_context();
            fx_down(&f);
            unlink(path);
        }
}

/* %h and %a are the client that a trusted proxy names, and %{c}a is the
 * proxy. */
LIVE(access, names_the_client_behind_a_trusted_proxy)
{
    fixture f;
    client c;
    char path[300], *text;

    fx_init(&f);
    f.cfg.remote_ip_header = "X-Forwarded-For";
    f.cfg.remote_ip_trusted_proxy[0] = "127.0.0.1";
    log_to(&f, path, sizeof path, "\"%h %a %{c}a\"");
    if (!fx_up(&f))
        return;
    CHECK_INT(ask(&f, &c, GET1 "X-Forwarded-For: 203.0.113.9\r\n\r\n"), 200);
    cl_close(&c);
    text = log_lines(path, 1, 1500);
    CHECK_STR(text, "203.0.113.9 203.0.113.9 127.0.0.1\n");
    free(text);
    fx_down(&f);
    unlink(path);
}

/* A stop writes all lines that still wait. */
TEST(access, all_is_written_at_the_end)
{
    fixture f;
    char path[300], *text;
    int i;

    fx_init(&f);
    log_to(&f, path, sizeof path, "\"%s %U\"");
    if (!fx_up(&f))
        return;
    for (i = 0; i < 5; i++)
        CHECK_INT(get_status(&f, "/hello"), 200);
    fx_down(&f);
    text = slurp_path(path);
    CHECK_INT(lines_in(text), 5);
    free(text);
    unlink(path);
}

/* A line beyond its limit is cut within a field, says so by dots, and remains
 * one whole line. */
LIVE(access, long_lines_are_cut_and_stay_whole)
{
    fixture f;
    client c;
    char path[300], *text;
    const char *p;
    record r;
    str s;
    int i;

    fx_init(&f);
    log_to(&f, path, sizeof path, "combined");
    if (!fx_up(&f))
        return;
    memset(&s, 0, sizeof s);
    str_addf(&s, "GET /hello?");
    str_fill(&s, '"', 5000);
    str_addf(&s, " HTTP/1.1\r\nHost: a\r\nReferer: ");
    str_fill(&s, 'r', 7000);
    str_addf(&s, "\r\nUser-Agent: ");
    str_fill(&s, 'u', 7000);
    str_addf(&s, "\r\n\r\n");
    for (i = 0; i < 3; i++) {
        CHECK_INT(get_status(&f, "/hello"), 200);
        CHECK_INT(ask_n(&f, &c, s.p, s.n), 200);
        cl_close(&c);
    }
    str_free(&s);
    text = log_lines(path, 6, 1500);
    for (p = text, i = 0; p != NULL && *p != 0; i++)
        if (CHECK((p = combined(p, &r)) != NULL) && r.agent_n > 1) {
            CHECK(r.line_n > 4000 && r.agent_n >= 3);
            CHECK(memcmp(r.agent + r.agent_n - 3, "...", 3) == 0);
        }
    CHECK_INT(i, 6);
    free(text);
    fx_down(&f);
    unlink(path);
}

/* A line that fits into a page is written whole, wherever in a page it
 * begins. */
LIVE(access, a_line_that_fits_a_page_is_never_cut)
{
    fixture f;
    client c;
    char path[300], *text;
    const char *p;
    record r;
    str s;
    int i;

    fx_init(&f);
    f.cfg.threads_per_child = 1;
    log_to(&f, path, sizeof path, "combined");
    if (!fx_up(&f))
        return;
    memset(&s, 0, sizeof s);
    str_addf(&s, "GET /hello HTTP/1.1\r\nHost: a\r\nReferer: ");
    str_fill(&s, 'r', 3000);
    str_addf(&s, "\r\n\r\n");
    if (cl_open(&c, &f) == 0)
        for (i = 0; i < 9; i++) {
            cl_send(&c, s.p, s.n);
            CHECK_INT(cl_reply(&c), 200);
        }
    cl_close(&c);
    str_free(&s);
    text = log_lines(path, 9, 1500);
    for (p = text; p != NULL && *p != 0;)
        if (CHECK((p = combined(p, &r)) != NULL))
            CHECK_INT(r.referer_n, 3000);
    free(text);
    fx_down(&f);
    unlink(path);
}

/* A log on a full disk is said once, its lost lines are counted, and serving
 * goes on. */
LIVE(access, a_full_disk_is_counted_and_serving_goes_on)
{
    fixture f;
    int i;

    if (access("/dev/full", W_OK) != 0)
        SKIP("there is no /dev/full");
    fx_init(&f);
    f.cfg.custom_log[0] = "/dev/full combined";
    if (!fx_up(&f))
        return;
    for (i = 0; i < 3; i++)
        CHECK_INT(get_status(&f, "/hello"), 200);
    CHECK_SOON(fx_log_has(&f, "EMPM0646: CustomLog /dev/full: "), 1500);
    CHECK_INT(get_status(&f, "/hello"), 200);
    nap(SCALED(2 * EMPM__LINES_MS));
    CHECK_INT(get_status(&f, "/hello"), 200);
    CHECK_INT(fx_log_lines(&f, "EMPM0646"), 1);
    if (!f.forked)
        CHECK_IN(empm__load(&f.s->engine.score->unlogged), 4, 5);
    fx_down(&f);
}

/* A start in which any one allocation fails leaves no log open and no
 * memory. */
TEST(access, start_survives_failing_allocations)
{
    fixture f;
    char path[300];
    int at, r = EMPM_ENOMEM;

    for (at = 1; at < 100 && r != EMPM_OK; at++) {
        fx_init(&f);
        log_to(&f, path, sizeof path, "combined");
        f.cfg.custom_log[1] = "/dev/null \"%h %{X}i\"";
        set_int(&a_failed, 0);
        set_int(&a_fail_at, at);
        r = empm_start(&f.cfg, &f.s);
        set_int(&a_fail_at, 0);
        CHECK(r == EMPM_ENOMEM || (r == EMPM_OK && get_int(&a_failed) == 0));
        if (r != EMPM_OK)
            f.s = NULL;
        fx_down(&f);
        unlink(path);
    }
    CHECK_IN(at, 10, 99);
}

/* Requests without a path or a query, and requests that are refused before
 * these are known, have a record. The last request's head is moved in its
 * buffer before it is complete. */
TEST(access, targets_without_path_or_query)
{
    static const struct { const char *request; int status; } list[] = {
        { "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200 },
        { "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", 404 },
        { "GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n", 404 },
        { "GET /hello?x HTTP/2.0\r\n\r\n", 505 }
    };
    fixture f;
    client c;
    char path[300], named[300], *text;
    str s;
    size_t i;

    fx_init(&f);
    log_to(&f, path, sizeof path, "\"%m %U%q %s\"");
    log_to(&f, named, sizeof named, "\"%v\"");
    f.cfg.server_name = "https://www.example.com:8443";
    if (!fx_up(&f))
        return;
    for (i = 0; i < sizeof list / sizeof list[0]; i++) {
        cl_open(&c, &f);
        cl_puts(&c, list[i].request);
        CHECK_INT(cl_reply(&c), list[i].status);
        cl_close(&c);
        free(log_lines(path, (int)i + 1, 2000));
    }
    memset(&s, 0, sizeof s);
    str_addf(&s, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
                 "OPTIONS * HTTP/1.1\r\nHost: a\r\nX: ");
    str_fill(&s, 'x', 7000);
    str_addf(&s, "\r\nY: ");
    str_fill(&s, 'y', 7000);
    cl_open(&c, &f);
    cl_send(&c, s.p, s.n);
    CHECK_INT(cl_reply(&c), 200);
    free(log_lines(path, 5, 2000));      /* workers' lines come in any order */
    cl_puts(&c, "\r\n\r\n");
    CHECK_INT(cl_reply(&c), 200);
    cl_close(&c);
    text = log_lines(path, 6, 2000);
    CHECK_STR(text, "OPTIONS * 200\nGET / 404\nGET /?x 404\n"
                    "GET /hello?x 505\nGET /hello 200\nOPTIONS * 200\n");
    free(text);
    text = log_lines(named, 6, 2000);
    CHECK_INT(strncmp(text, "www.example.com\n", 16), 0);
    free(text);
    unlink(named);
    str_free(&s);
    fx_down(&f);
    unlink(path);
}

static int h_noted(empm_request *req, void *user)
{
    (void)user;
    empm_note(req, "REMOTE_USER", "ann\"");
    empm_note(req, "kind", "gone");
    empm_note(req, "kind", "here");
    empm_note(req, "away", "x");
    empm_note(req, "away", NULL);
    return empm_write(req, "x", 1);
}

/* A handler's notes are in the log and decide whether there is a line: a word
 * leaves health checks out. */
LIVE(access, notes_and_conditions)
{
    static const empm_route noted[] = {
        EMPM_ROUTE("GET /noted", h_noted, NULL),
        EMPM_ROUTE("GET /health", empm_health_page, NULL),
        EMPM_FILES("GET /files/", "/nonexistent"), EMPM_ROUTES_END
    };
    fixture f;
    char all[300], some[300], others[300], line[4][800], *text;

    fx_init(&f);
    f.cfg.routes = noted;
    f.cfg.threads_per_child = 1;     /* so that they come in this order */
    log_to(&f, all, sizeof all, "\"%u %{kind}n %{away}n %{kind}e %{PATHS}e "
                                "%{none}e %R %f\"");
    log_to(&f, some, sizeof some, "%U env=kind");
    log_to(&f, others, sizeof others, "%U env=!health");
    setenv("PATHS", "set", 1);
    if (!fx_up(&f))
        return;
    unsetenv("PATHS");
    CHECK_INT(get_status(&f, "/noted"), 200);
    CHECK_INT(get_status(&f, "/health"), 200);
    CHECK_INT(get_status(&f, "/files/a/../b%20c/"), 404);
    CHECK_INT(get_status(&f, "/none"), 404);
    text = log_lines(all, 4, 2000);
    snprintf(line[0], sizeof line[0], "ann\\\" here - here %s - GET /noted -\n",
             f.forked ? "set" : "-");
    snprintf(line[1], sizeof line[1], "- - - - %s - GET /health -\n",
             f.forked ? "set" : "-");
    snprintf(line[2], sizeof line[2], "- - - - %s - GET /files/ "
             "/nonexistent/b c/index.html\n", f.forked ? "set" : "-");
    snprintf(line[3], sizeof line[3], "%s%s%s- - - - %s - - -\n", line[0],
             line[1], line[2], f.forked ? "set" : "-");
    CHECK_STR(text, line[3]);
    free(text);
    text = log_lines(some, 1, 2000);
    CHECK_STR(text, "/noted\n");
    free(text);
    text = log_lines(others, 3, 2000);
    CHECK_STR(text, "/noted\n/files/a/../b%20c/\n/none\n");
    free(text);
    fx_down(&f);
    unlink(all);
    unlink(some);
    unlink(others);
}

/* A log that takes nothing holds neither a worker nor the stop; its lost lines
 * are counted and said. Once it is read again, lines come whole. */
TEST(access, a_log_that_stands_still_is_not_waited_for)
{
    static char page[8192];
    fixture f;
    client c;
    char path[300];
    uint64_t began;
    ssize_t n;
    int fd, i;

    fx_init(&f);
    log_to(&f, path, sizeof path, "%U");
    if (mkfifo(path, 0600) < 0 || (fd = open(path, O_RDWR | O_NONBLOCK)) < 0)
        return;
    memset(page, 'x', sizeof page);
    for (i = 0; i < 2; i++)
        while (write(fd, page, i == 0 ? sizeof page : 1) > 0)
            ;
    if (!fx_up(&f))
        return;
    for (i = 0; i < 10; i++) {           /* there are four workers */
        cl_open(&c, &f);
        CHECK_INT(cl_get(&c, "/hello"), 200);
        cl_close(&c);
    }
    CHECK_SOON(fx_log_has(&f, "EMPM0646: CustomLog "), 4000);
    CHECK_SOON(empm__load(&f.s->engine.score->unlogged) == 10, 4000);
    while (read(fd, page, sizeof page) > 0)
        ;
    cl_open(&c, &f);
    CHECK_INT(cl_get(&c, "/hello"), 200);
    cl_close(&c);
    n = 0;
    CHECK_SOON((n = read(fd, page, sizeof page)) > 0, 4000);
    CHECK_INT(n, 7);
    CHECK(n == 7 && memcmp(page, "/hello\n", 7) == 0);
    for (i = 0; i < 2; i++)
        while (write(fd, page, i == 0 ? sizeof page : 1) > 0)
            ;
    cl_open(&c, &f);
    CHECK_INT(cl_get(&c, "/hello"), 200);
    cl_close(&c);
    began = empm__now_us();
    fx_down(&f);
    CHECK(empm__now_us() - began < SCALED(3000) * 1000u);
    close(fd);
    unlink(path);
}

/* Children write into one pipe: a write of more than PIPE_BUF bytes would be
 * cut where there is no room for it, and mix with others'. */
TEST(access, a_pipe_gets_whole_lines)
{
    static char text[9000];
    empm__access_log l;
    size_t n;

    memset(&l, 0, sizeof l);
    memset(text, 'x', sizeof text);
    text[99] = text[4000] = text[8999] = '\n';
    CHECK_INT(empm__access_lines_piece(&l, text, 9000), 9000);
    l.is_pipe = 1;
    CHECK_INT(empm__access_lines_piece(&l, text, PIPE_BUF), PIPE_BUF);
    n = empm__access_lines_piece(&l, text, 9000);
    CHECK(n > 0 && n <= PIPE_BUF && text[n - 1] == '\n');
    CHECK_INT(empm__access_lines_piece(&l, text + 4001, 4999), 4999);
}

/* A line of which a full disk took half is ended, so that the next one is
 * whole. */
TEST(access, half_a_line_does_not_spoil_the_next)
{
    static empm__engine ch;
    static empm__score_child score;
    static empm_server server;
    struct rlimit was, small;
    struct sigaction ignore, old;
    empm__access_log l;
    empm__page *p = (empm__page *)calloc(1, EMPM_PAGE_BYTES);
    empm_config cfg = empm_defaults();
    char path[300], *text;

    memset(&l, 0, sizeof l);
    memset(&ch, 0, sizeof ch);
    memset(&score, 0, sizeof score);
    memset(&ignore, 0, sizeof ignore);
    ignore.sa_handler = SIG_IGN;
    ch.cfg = &cfg;
    ch.score = &score;
    ch.s = &server;
    tmp_path(path, sizeof path, "small");
    l.fd = empm__log_file(path);
    getrlimit(RLIMIT_FSIZE, &was);
    small = was;
    small.rlim_cur = 10;
    fflush(NULL);
    sigaction(SIGXFSZ, &ignore, &old);
    setrlimit(RLIMIT_FSIZE, &small);
    memcpy(empm__page_data(p), "first\nsecond\n", 13);
    p->end = 13;
    empm__access_lines_save(&ch, &l, p);
    setrlimit(RLIMIT_FSIZE, &was);
    sigaction(SIGXFSZ, &old, NULL);
    CHECK_INT(p->end, 0);
    CHECK_INT(score.unlogged, 1);
    memcpy(empm__page_data(p), "third\n", 6);
    p->end = 6;
    empm__access_lines_save(&ch, &l, p);
    text = slurp_path(path);
    CHECK_STR(text, "first\nseco\nthird\n");
    free(text);
    free(p);
    close(l.fd);
    unlink(path);
}

/* ---------------------------------------------------------------------------
 * >>misuse -- wrong handlers have defined results
 * ------------------------------------------------------------------------- */

static int misuse(const fixture *f, client *c, const char *how)
{
    char text[200];

    context("%s", how);
    memset(shm->rc, 0, sizeof shm->rc);
    snprintf(text, sizeof text, "GET /misuse?slot=7&how=%s HTTP/1.1\r\nHost: "
             "a\r\n\r\n", how);
    return ask(f, c, text);
}

/* Each wrong use of the API has the defined result: an error code, a 500 or an
 * aborted answer; the server stays whole. */
SERVED(misuse, is_defined, NULL)
{
    int status, i;

    CHECK_INT(misuse(f, c, "nothing"), 500);
    if (!c->closes)
        check_in_step(c);
    cl_close(c);
    CHECK(fx_log_has(f, "/misuse") || fx_log_lines(f, "answer") > 0);

    CHECK_INT(get_status(f, "/script?h=return.42"), 500);
    CHECK(fx_log_has(f, "returned 42, which is no status"));

    status = misuse(f, c, "short");           /* declared 100, wrote 10 */
    CHECK(status == 500 || !c->complete);
    CHECK(status == 500 || c->end != 0);
    cl_close(c);
    status = misuse(f, c, "short-flushed");
    CHECK(!c->complete);
    CHECK(c->end != 0);
    cl_close(c);

    status = misuse(f, c, "long");            /* declared 5, wrote 10 */
    CHECK_INT(get_int(&shm->rc[0]), EMPM_EMISUSE);
    CHECK(c->body.n <= 5 || status == 500);
    if (c->end == 0 && !c->closes)
        check_in_step(c);
    cl_close(c);
    status = misuse(f, c, "full-then-more");
    CHECK_INT(get_int(&shm->rc[0]), EMPM_OK);
    CHECK_INT(get_int(&shm->rc[1]), EMPM_EMISUSE);
    CHECK(status == 500 || strcmp(c->body.p, "01234") == 0 || !c->complete);
    cl_close(c);

    CHECK_INT(misuse(f, c, "twice"), 200);
    CHECK_INT(get_int(&shm->rc[0]), EMPM_OK);
    CHECK_INT(get_int(&shm->rc[1]), EMPM_EMISUSE);
    CHECK_INT(get_int(&shm->rc[2]), EMPM_EMISUSE);
    CHECK_INT(c->body.n, 10);
    CHECK_INT(pattern_fault(c->body.p, c->body.n, 0), -1);
    check_in_step(c);
    cl_close(c);

    CHECK_INT(misuse(f, c, "headers"), 200);
    for (i = 0; i < 8; i++) {
        context("headers %d", i);
        CHECK_INT(get_int(&shm->rc[i]), EMPM_EINVAL);
    }
    CHECK_STR(c->body.p, "fine");
    CHECK(cl_header(c, "X-A") == NULL && cl_header(c, "X-B") == NULL);
    check_in_step(c);
    cl_close(c);

    CHECK_INT(misuse(f, c, "late"), 200);
    CHECK_INT(get_int(&shm->rc[0]), EMPM_EMISUSE);
    CHECK_INT(get_int(&shm->rc[1]), EMPM_EMISUSE);
    CHECK_INT(get_int(&shm->rc[2]), EMPM_OK);
    CHECK_STR(c->body.p, "first second");
    CHECK(cl_header(c, "X-Late") == NULL);
    check_in_step(c);
    cl_close(c);

    CHECK_INT(misuse(f, c, "status"), 200);
    for (i = 0; i < 3; i++)
        CHECK_INT(get_int(&shm->rc[i]), EMPM_EINVAL);
    cl_close(c);

    CHECK_INT(misuse(f, c, "204"), 204);      /* its body goes nowhere */
    CHECK_INT(c->in.n, 0);
    check_in_step(c);
    cl_close(c);
    CHECK_INT(misuse(f, c, "304"), 304);
    check_in_step(c);
    cl_close(c);

    CHECK_INT(misuse(f, c, "no-suspend"), 500);
    cl_close(c);
    status = misuse(f, c, "suspend-ok");      /* whatever: but not for ever */
    CHECK(status != -1);
    CHECK(empm_resume != NULL);
    if (!f->forked)
        CHECK_SOON(empm_resume(f->s, get_ticket(7)) == EMPM_EGONE, 2000);
    CHECK_IN(get_int(&shm->slots[7].wakes), 0, 1);
    cl_close(c);
    status = misuse(f, c, "suspend-twice");
    CHECK_INT(get_int(&shm->rc[0]), 1);
    CHECK_INT(get_int(&shm->rc[1]), 0);
    CHECK_INT(status, 200);
    CHECK(strncmp(c->body.p, "why=2 ", 6) == 0);
    cl_close(c);
    CHECK_INT(misuse(f, c, "suspend-bad"), 200);
    for (i = 0; i < 3; i++)
        CHECK_INT(get_int(&shm->rc[i]), 0);
    CHECK_STR(c->body.p, "fine");
    cl_close(c);

    CHECK_INT(misuse(f, c, "error"), 500);
    cl_close(c);
    CHECK_INT(misuse(f, c, "x&return=-77"), 500);
    cl_close(c);
    CHECK_INT(misuse(f, c, "x&return=700"), 500);
    cl_close(c);
    CHECK_INT(misuse(f, c, "x&return=100"), 500);
    cl_close(c);

    CHECK_INT(misuse(f, c, "big-header"), 200);
    CHECK_INT(get_int(&shm->rc[0]), EMPM_EFULL);
    CHECK_INT(get_int(&shm->rc[1]), EMPM_EFULL);
    CHECK_STR(c->body.p, "fine");
    check_in_step(c);
    cl_close(c);
    no_context();
    CHECK_INT(get_status(f, "/hello"), 200);
}

/* A call that needs a pointer returns EMPM_EINVAL for NULL. The server is
 * forked, as a crash must not end the tests. */
SERVED_BY(misuse, null_pointers, 1, NULL)
{
    int i;

    CHECK_INT(misuse(f, c, "null"), 200);
    CHECK_INT(get_int(&shm->rc[0]), EMPM_OK);
    for (i = 1; i < 6; i++) {
        context("null %d", i);
        CHECK_INT(get_int(&shm->rc[i]), EMPM_EINVAL);
    }
}

/* ---------------------------------------------------------------------------
 * >>conn -- keep-alive, pipelining, half-closed clients
 * ------------------------------------------------------------------------- */

/* Picture and table of >>conn name every state, and the table has exactly the
 * arrows that are allowed. */
TEST(conn, picture_and_table_name_every_state)
{
    char *text = slurp_path("eventmpm.h");
    char *picture = text ? strstr(text, " * >>conn -- the life") : NULL;
    char *arrows = picture ? strstr(picture, " *   from       to") : NULL;
    char *end = arrows ? strstr(arrows, "\n * runs on") : NULL, *p;
    uint16_t told[EMPM__STATES];
    char from[16], to[16];
    int i, k;

    memset(told, 0, sizeof told);
    if (!CHECK(end != NULL)) {
        free(text);
        return;
    }
    for (p = arrows; p < end; p = strchr(p, '\n') + 1)
        if (sscanf(p, " *   %15s %15s empm__do_", from, to) == 2)
            for (i = 0; i < EMPM__STATES; i++)
                for (k = 0; k < EMPM__STATES; k++)
                    if (strcmp(from, empm__states[i].name) == 0 &&
                        strcmp(to, empm__states[k].name) == 0)
                        told[i] = (uint16_t)(told[i] | 1 << k);
    *end = arrows[-1] = '\0';
    for (i = 0; i < EMPM__STATES; i++) {
        if (!CHECK(strstr(picture, empm__states[i].name) != NULL) ||
            !CHECK(strstr(arrows, empm__states[i].name) != NULL))
            fprintf(stderr, "state %s\n", empm__states[i].name);
        for (k = 0; k < EMPM__CLOSED; k++)
            context("%s to %s", empm__states[i].name, empm__states[k].name),
                CHECK_INT(empm__conn_transition_ok(i, k), told[i] >> k & 1);
    }
    free(text);
}

/* A connection serves MaxKeepAliveRequests requests; "close" among the words
 * of Connection ends it after one. */
SERVED(conn, keep_alive, "MaxKeepAliveRequests 5")
{
    int i;

    for (i = 1; i <= 5; i++) {
        CHECK_INT(cl_get(c, "/hello"), 200);
        CHECK_INT(c->closes, i == 5);
    }
    CHECK_FIN(c);
    CHECK_INT(cl_ask(c, GET1 "Connection: close\r\n\r\n"), 200);
    CHECK_INT(c->closes, 1);
    CHECK_FIN(c);
    CHECK_INT(cl_ask(c, GET1 "Connection: x, CLOSE\r\n\r\n"), 200);
    CHECK_FIN(c);
    CHECK_INT(cl_ask(c, GET1 "Connection: closed\r\n\r\n"), 200);
    check_in_step(c);
}

/* KeepAlive Off ends each connection after its first answer. */
SERVED(conn, keep_alive_off, "KeepAlive Off")
{
    CHECK_INT(cl_ask(c, GET1 "\r\n"), 200);
    CHECK_INT(c->closes, 1);
    CHECK_FIN(c);
}

/* MaxKeepAliveRequests 0 sets no limit. */
SERVED(conn, many_requests_on_one, "MaxKeepAliveRequests 0")
{
    int i;

    for (i = 0; i < 500 && get_int(&g_failures) == 0; i++)
        check_in_step(c);
}

/* Pipelined requests are answered in their order, bodies of both framings
 * included. */
SERVED(conn, pipelining_in_order, "MaxKeepAliveRequests 0")
{
    str s = STR_EMPTY;
    int i;

    for (i = 0; i < 300; i++) {
        if (i % 7 == 3) {
            str_addf(&s, "POST /echo HTTP/1.1\r\nHost: a\r\n"
                     "Content-Length: %d\r\n\r\n%03d", 3, i);
        } else if (i % 7 == 5) {
            str_addf(&s, "POST /echo HTTP/1.1\r\nHost: a\r\n"
                     "Transfer-Encoding: "
                     "chunked\r\n\r\n1\r\n%d\r\n2;x\r\n%02d\r\n0\r\n\r\n",
                     i / 100, i % 100);
        } else if (i % 50 == 10) {
            str_addf(&s, "GET /big?bytes=100000 HTTP/1.1\r\nHost: a\r\n\r\n");
        } else {
            str_addf(&s, "GET /hello/%d HTTP/1.1\r\nHost: a\r\n\r\n", i);
        }
    }
    cl_send(c, s.p, s.n);
    for (i = 0; i < 300 && get_int(&g_failures) == 0; i++) {
        char want[64];
        context("reply %d", i);
        CHECK_INT(cl_reply(c), 200);
        if (i % 7 == 3 || i % 7 == 5)
            snprintf(want, sizeof want, "%03d", i);
        else
            snprintf(want, sizeof want, "Hello, %d!\n", i);
        if (i % 7 != 3 && i % 7 != 5 && i % 50 == 10)
            CHECK_INT(c->body.n, 100000);
        else
            CHECK_STR(c->body.p, want);
    }
    CHECK_OPEN(c);
    no_context();
    str_free(&s);
}

/* RFC 9112 2.2: an empty line before a request is none. A connection on which
 * nothing else comes is idle, for as long as if it had not come, and ends as
 * silently: no 408 that the client's next request would take for its answer. */
LIVE(conn, an_empty_line_is_no_request)
{
    static const struct { const char *first, *then; } rows[] = {
        { GET1 "\r\n", "\r\n" },        { GET1 "\r\n\r\n", NULL },
        { GET1 "\r\n\r\n\r\n", NULL },  { GET1 "\r\n", "\r" },
        { GET1 "\r\n\r", NULL },        { GET1 "\r\n\r", "\n" },
        { GET1 "\r\n\r", "\n\r\n" },
        { POST1 "Content-Length: 5\r\n\r\nhello\r\n", NULL },
        { GET1 "\r\n" GET1 "\r\n\r\n", NULL },
        { "\r\n", NULL }, { "\r", NULL }, { "\r", "\n\r\n" }
    };
    fixture f;
    size_t i;

    fx_init(&f);
    f.cfg.keep_alive_timeout_ms = 300;
    f.cfg.header_timeout_ms = 3000;
    f.cfg.header_timeout_max_ms = 0;
    if (!fx_up(&f))
        return;
    for (i = 0; i < EMPM__COUNT(rows); i++) {
        const int fresh = rows[i].first[0] == '\r';
        client c;
        uint64_t t0;
        context("%s", rows[i].first);
        if (fresh) {                 /* its wait is that for a head */
            fx_down(&f);
            fx_init(&f);
            f.cfg.header_timeout_ms = 300;
            f.cfg.header_timeout_max_ms = 0;
            if (!fx_up(&f))
                return;
        }
        cl_open(&c, &f);
        cl_puts(&c, rows[i].first);
        if (!fresh)
            CHECK_INT(cl_reply(&c), 200);
        if (i == 8)
            CHECK_INT(cl_reply(&c), 200);
        t0 = now_ms();
        nap(100);
        if (rows[i].then != NULL)
            cl_puts(&c, rows[i].then);
        CHECK_INT(cl_end(&c, 2500), CL_FIN);
        CHECK_IN(now_ms() - t0, 250, SCALED(1500));
        cl_close(&c);
    }
    no_context();
    fx_down(&f);
    fx_init(&f);                     /* and the next request is in step */
    if (!fx_up(&f))
        return;
    for (i = 0; i < 9; i++) {
        client c;
        context("then a request: %s", rows[i].first);
        cl_open(&c, &f);
        cl_puts(&c, rows[i].first);
        CHECK_INT(cl_reply(&c), 200);
        if (i == 8)
            CHECK_INT(cl_reply(&c), 200);
        nap(20);
        if (rows[i].then != NULL)
            cl_puts(&c, rows[i].then);
        nap(20);
        cl_puts(&c, i == 3 || i == 4 ? "\n" GET1 "\r\n" : GET1 "\r\n");
        CHECK_INT(cl_reply(&c), 200);
        CHECK_OPEN(&c);
        cl_close(&c);
    }
    no_context();
    fx_down(&f);
}

/* After Content-Length: 0 the next byte begins the next request. */
SERVED(conn, body_after_length_0_is_the_next_request, NULL)
{
    cl_puts(c, POST1 "Content-Length: 0\r\n\r\n" GET1 "\r\n");
    CHECK_INT(cl_reply(c), 200);
    CHECK_INT(c->body.n, 0);
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "Hello, world!\n");
}

/* A bad request behind good ones is refused after their answers, and ends the
 * connection. */
SERVED(conn, error_after_good_requests, NULL)
{
    static const char *const bad[] = {
        "GET /hello HTTP/1.1\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        POST1 "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST1 "Transfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
        POST1 "Transfer-Encoding: x\r\n\r\n",
        POST1 "Content-Length: 99999999\r\n\r\n",
        "\x16\x03\x01"
    };

    EACH(bad, i) {
        str s = STR_EMPTY;
        context("%s", bad[i]);
        str_addf(&s, GET1 "\r\n" "GET /big?bytes=50000 HTTP/1.1\r\nHost: "
                 "a\r\n\r\n");
        str_addf(&s, "%s", bad[i]);
        str_addf(&s, "POST /hit HTTP/1.1\r\nHost: a\r\nContent-Length: "
                 "0\r\n\r\n");
        CHECK_INT(cl_ask_n(c, s.p, s.n), 200);
        CHECK_INT(cl_reply(c), 200);
        CHECK_INT(c->body.n, 50000);
        CHECK_IN(cl_reply(c), 400, 505);
        CHECK_INT(c->closes, 1);
        CHECK_FIN(c);
        cl_close(c);
        str_free(&s);
    }
    CHECK_INT(get_int(&shm->hits), 0);
}

/* Input behind a request that closes the connection is not executed, and the
 * answer arrives without a reset. */
SERVED(conn, nothing_is_executed_after_a_close, NULL)
{
    static const char *const closers[] = {
        GET1 "Connection: close\r\n\r\n", "GET /hello HTTP/1.0\r\n\r\n"
    };
    int i;

    for (i = 0; i < 2; i++) {
        str s = STR_EMPTY;
        str_addf(&s, "%sPOST /hit HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n"
                 "\r\n", closers[i]);
        CHECK_INT(cl_ask_n(c, s.p, s.n), 200);
        CHECK_FIN(c);              /* and no reset: it had unread input */
        cl_close(c);
        str_free(&s);
    }
    CHECK_INT(get_int(&shm->hits), 0);
}

/* A process that a handler forks keeps a copy of the socket: the server
 * neither spins on it nor takes its input for a request. */
SERVED_HERE(conn, a_handler_may_fork, NULL)
{
    long long cpu0;
    int status;

    CHECK_INT(cl_ask(c, "GET /fork HTTP/1.1\r\nHost: a\r\nConnection: close"
                     "\r\n\r\n"), 200);
    CHECK_STR(c->body.p, "forked\n");
    cl_puts(c, "this goes to nobody");
    cl_shut(c);
    cpu0 = own_cpu_ms();
    CHECK_INT(get_status(f, "/hello"), 200);
    nap(100);
    cl_reset(c);
    nap(50);
    CHECK_INT(get_status(f, "/hello"), 200);
    CHECK_IN(own_cpu_ms() - cpu0, 0, SCALED(80));
    waitpid((pid_t)get_int(&shm->rc[0]), &status, 0);
}

/* A half-closed client is answered at once. Each row is sent in two parts: the
 * second follows when the first has had its effect, and the FIN comes in its
 * segment. */
SERVED(conn, half_closed_clients_are_answered_at_once,
       "KeepAliveTimeout 60; RequestReadTimeout header=60 body=60,MinRate=500")
{
    static const struct {
        const char *what, *first, *last;
        int replies;                /* to the last part */
        int status;                 /* of the last reply */
    } rows[] = {
        { "a request",        NULL, GET1 "\r\n", 1, 200 },
        { "a second request", GET1 "\r\n", GET1 "\r\n", 1, 200 },
        { "three at once",    NULL, GET1 "\r\n" GET1 "\r\n" GET1 "\r\n", 3,
         200 },
        { "the end of a head", "GET /hello HTTP/1.1\r\nHo", "st: a\r\n\r\n", 1,
          200 },
        { "a body",           NULL, CL("5"), 1, 200 },
        { "the rest of a body", POST1 "Content-Length: 10\r\n\r\nhello",
         "world", 1,
          200 },
        { "the rest of chunks", CHUNK "5\r\nhel", "lo\r\n0\r\n\r\n", 1, 200 },
        { "a streamed body", "POST /count?slot=1 HTTP/1.1\r\nHost: a\r\n"
          "Content-Length: 10\r\n\r\nhello", "world", 1, 200 },
        { "a large reply",    NULL, "GET /big?bytes=3000000 HTTP/1.1\r\nHost: "
         "a\r\n"
          "\r\n", 1, 200 },
        { "a producer",       NULL, "GET /produce?bytes=3000000 HTTP/1.1\r\n"
          "Host: a\r\n\r\n", 1, 200 },
        { "HTTP/1.0",         NULL, "GET /hello HTTP/1.0\r\n\r\n", 1, 200 },
        { "a bad request",    NULL, "GET /hello\r\n\r\n", 1, 400 },
        { "too large",        NULL, POST1 "Content-Length: 99999999\r\n\r\n", 1,
          413 },
        { "nothing",          NULL, "", 0, 0 },
        { "nothing more",     GET1 "\r\n", "", 0, 0 },
        { "half a head",      NULL, "GET /hello HTTP/1.1\r\nHo", -1, 400 },
        { "half a head, later", "GET /hello HTTP/1.1\r\nHo", "st", -1, 400 },
        { "half a head, then nothing", "GET /hello HTTP/1.1\r\nHo", "", -1,
         400 },
        { "half a body",      NULL, POST1 "Content-Length: 10\r\n\r\nhello", -1,
          400 },
        { "half a body, later", POST1 "Content-Length: 10\r\n\r\nhello", "wo",
         -1,
          400 },
        { "half a body, then nothing", POST1 "Content-Length: 10\r\n\r\nhello",
         "",
          -1, 400 },
        { "half a chunk",     CHUNK "5\r\nhel", "l", -1, 400 },
        { "half a streamed body", "POST /count?slot=2 HTTP/1.1\r\nHost: a\r\n"
          "Content-Length: 10\r\n\r\nhello", "", -1, 400 },
        { "no body after 100", POST1 "Expect: 100-continue\r\n"
          "Content-Length: 5\r\n\r\n", "", -1, 400 }
    };

    EACH(rows, i) {
        int k, status = 0;
        uint64_t t0;
        context("%s", rows[i].what);
        cl_open(c, f);
        c->patience = PATIENCE;
        if (rows[i].first != NULL) {
            cl_puts(c, rows[i].first);
            if (strncmp(rows[i].first, GET1 "\r\n", sizeof GET1) == 0)
                CHECK_INT(cl_reply(c), 200);
            else if (strstr(rows[i].first, "100-continue") != NULL)
                CHECK_INT(cl_reply(c), 100);
            else
                cl_readable(c, 5);
        }
        t0 = now_ms();
        cl_send_fin(c, rows[i].last, strlen(rows[i].last));
        if (rows[i].replies >= 0) {
            for (k = 0; k < rows[i].replies; k++) {
                status = cl_reply(c);
                CHECK_INT(c->complete, 1);
            }
            CHECK_INT(status, rows[i].status);
        } else {                    /* refused, or closed without a word */
            status = cl_reply(c);
            CHECK(status == 0 || status == rows[i].status);
        }
        CHECK_FIN(c);
        CHECK_IN(now_ms() - t0, 0, AT_ONCE);
        cl_close(c);
    }
}

/* A client that shuts its side down while a handler runs gets all the answers
 * that it has asked for. */
SERVED(conn, fin_while_the_handler_runs, "KeepAliveTimeout 60")
{
    cl_puts(c, "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_int(&shm->at_gate) == 1, 3000);
    cl_shut(c);
    CHECK_OPEN(c);
    set_int(&shm->gate, 1);
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "through\n");
    CHECK_FIN(c);
    cl_close(c);
    /* and when a second request waits behind the first */
    set_int(&shm->gate, 0);
    cl_puts(c, "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_int(&shm->at_gate) == 1, 3000);
    cl_send_fin(c, GET1 "\r\n", sizeof GET1 + 1);
    set_int(&shm->gate, 1);
    CHECK_INT(cl_reply(c), 200);
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "Hello, world!\n");
    CHECK_FIN(c);
}

/* A half-closed client that reads slowly gets the whole answer, and the server
 * does not spin. */
SERVED(conn, fin_while_a_slow_reader_reads, "SendBufferSize 16384")
{
    long long cpu0;

    cl_connect_port(c, f->port, 8192);
    cl_puts(c, "GET /produce?bytes=2000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(cl_readable(c, PATIENCE));
    cl_shut(c);
    cpu0 = own_cpu_ms();
    /* nobody may spin on the half-closed socket */
    nap(200);
    if (!f->forked)
        CHECK_IN(own_cpu_ms() - cpu0, 0, SCALED(80));
    CHECK_INT(cl_reply(c), 200);
    CHECK_INT(c->body.n, 2000000);
    CHECK_INT(c->complete, 1);
    CHECK_FIN(c);
}

/* A reset at any point costs its connection only, and raises no SIGPIPE in
 * this process. */
SERVED(conn, resets_are_survived, NULL)
{
    static const char *const asks[] = {
        "GET /big?bytes=3000000 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /produce?bytes=3000000 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /file/big.bin HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /park?slot=3 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /sleep?ms=2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHo",
        POST1 "Content-Length: 100\r\n\r\nhello",
        GET1 "\r\n" GET1 "\r\n" GET1 "\r\n",
        ""
    };
    int i;

    for (i = 0; i < 180; i++) {
        if (cl_open(c, f) != 0)
            break;
        cl_puts(c, asks[i % 9]);
        if (i % 2)
            cl_readable(c, 1);
        cl_reset(c);
    }
    CHECK_INT(get_status(f, "/hello"), 200);
}

/* Descriptors above FD_SETSIZE are served as any other. */
TEST(conn, descriptors_above_1024)
{
    static int spare[1200];
    fixture f;
    int i, n = 0;

    for (i = 0; i < 1200; i++) {
        spare[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (spare[i] >= 0)
            n++;
    }
    fx_init(&f);
    if (n == 1200 && fx_up(&f)) {
        client c;
        CHECK_INT(get_status(&f, "/hello"), 200);
        CHECK_INT(ask(&f, &c, CL("5")), 200);
        CHECK(c.fd > 1024);
        cl_close(&c);
        fx_down(&f);
    } else {
        fx_close_files(&f);
    }
    for (i = 0; i < 1200; i++)
        if (spare[i] >= 0)
            close(spare[i]);
    if (n < 1200)
        SKIP("not enough descriptors allowed");
}

/* ---------------------------------------------------------------------------
 * >>time -- every wait ends, never early
 * ------------------------------------------------------------------------- */

#define LATE SCALED(700)             /* by so much a time-out may be late */

/* A head that does not come in time is 408, a first one and a later one; a
 * client that has sent nothing is closed without a word. */
SERVED(time, head,
       LONG_TIMES "RequestReadTimeout header=300ms body=60,MinRate=500")
{
    client d, e;
    uint64_t t0;

    t0 = now_ms();
    cl_puts(c, "GET /hello HTTP/1.1\r\nHo");
    cl_open(&d, f);                /* not a byte: closed without a word */
    cl_open(&e, f);                /* a second head after a good request */
    check_in_step(&e);
    cl_puts(&e, "GET /he");
    CHECK_INT(cl_reply(c), 408);
    CHECK_IN(now_ms() - t0, 290, 300 + LATE);
    CHECK_INT(c->closes, 1);
    CHECK_FIN(c);
    CHECK_INT(cl_end(&d, LATE), CL_FIN);
    CHECK_INT(cl_reply(&e), 408);
    cl_close(&d);
    cl_close(&e);
}

/* MinRate extends the time for a head by the bytes that come, up to the
 * maximum. */
SERVED(time, head_rate_extends_up_to_the_maximum,
       LONG_TIMES "RequestReadTimeout header=200ms-700ms,MinRate=500 body=60")
{
    client slow, fast;
    uint64_t t0, now;
    int slow_ended = 0, slow_ms = 0;

    t0 = now_ms();
    cl_open(&slow, f);
    cl_open(&fast, f);
    cl_puts(&slow, "GET /hello HTTP/1.1\r\nX: ");   /* 24 bytes: 48 ms more */
    cl_puts(&fast, "GET /hello HTTP/1.1\r\nX: ");
    for (;;) {                       /* 20 bytes/s and 1000 bytes/s */
        now = now_ms();
        if (!slow_ended) {
            if (cl_readable(&slow, 0)) {
                slow_ended = 1;
                slow_ms = (int)(now - t0);
            } else {
                cl_puts(&slow, "x");
            }
        }
        if (cl_readable(&fast, 50) || now - t0 > 5000)
            break;
        cl_puts(&fast, "0123456789012345678901234567890123456789012345678");
    }
    CHECK_IN(now_ms() - t0, 690, 700 + LATE);
    CHECK_INT(cl_reply(&fast), 408);
    CHECK_IN(slow_ms, 240, 240 + LATE);
    CHECK_INT(cl_reply(&slow), 408);
    cl_close(&slow);
    cl_close(&fast);
}

/* A body that stops is 408 in time, and a body that keeps the rate goes on. */
SERVED(time, body,
       LONG_TIMES "RequestReadTimeout header=60 body=500ms,MinRate=500")
{
    client d = client_of(f), steady = client_of(f);
    uint64_t t0 = now_ms();
    int i;

    cl_puts(c, POST1 "Content-Length: 10\r\n\r\nhello");
    cl_puts(&d, CHUNK "5\r\nhel");
    cl_puts(&steady, "POST /sum HTTP/1.1\r\nHost: a\r\n"
                     "Content-Length: 1000\r\n\r\n");
    for (i = 0; i < 10; i++) {
        char piece[100];
        memset(piece, 'x', sizeof piece);
        cl_send(&steady, piece, sizeof piece);
        nap(50);
    }
    CHECK_INT(cl_reply(c), 408);
    CHECK_IN(now_ms() - t0, 500, 700 + LATE);
    CHECK_FIN(c);
    CHECK_INT(cl_reply(&d), 408);
    CHECK_INT(cl_reply(&steady), 200);
    cl_close(&d);
    cl_close(&steady);
}

/* KeepAliveTimeout begins anew with each request, and is never early. */
SERVED(time, keep_alive, LONG_TIMES "KeepAliveTimeout 600ms")
{
    uint64_t t0;
    int i;

    for (i = 0; i < 4; i++) {        /* each request starts it anew */
        check_in_step(c);
        nap(i == 3 ? 0 : 250);
    }
    t0 = now_ms();
    CHECK_INT(cl_end(c, 600 + LATE), CL_FIN);
    CHECK_IN(now_ms() - t0, 580, 600 + LATE);
}

/* The server closes its descriptor after a timeout even if the client never
 * closes. */
SERVED_HERE(time, no_descriptor_stays_after_a_timeout,
            LONG_TIMES "KeepAliveTimeout 100ms; LingerTimeout 200ms; "
            "LingerTimeoutShort 100ms; "
            "RequestReadTimeout header=100ms body=60,MinRate=500")
{
    client d = client_of(f), e = client_of(f);
    int fds;

    /* clients that never close: the server does, after its short linger */
    fds = open_fds();
    cl_puts(c, "GET /");
    check_in_step(&d);
    cl_puts(&e, "GET /hello\r\n\r\n" GET1 "\r\n");
    CHECK_SOON(open_fds() == fds + 3, 3000);
    CHECK_INT(cl_reply(c), 408);
    CHECK_INT(cl_reply(&e), 400);
    cl_close(&d);
    cl_close(&e);
}

/* A client that reads slowly and steadily is not dropped by Timeout. */
LIVE(time, steady_slow_readers_are_kept)
{
    enum { N = 6 };
    static const char *const targets[] = {
        "/produce?bytes=600000", "/big?bytes=600000", "/file/big.bin"
    };
    fixture f;
    client c[N];
    size_t got[N];
    char buf[4096];
    uint64_t end;
    int i, few = g_slow > 2 ? 2 : g_slow;

    fx_init(&f);
    long_times(&f);
    f.cfg.timeout_ms = 700 * few;
    f.cfg.send_buffer_size = 16384;
    if (!fx_up(&f))
        return;
    memset(got, 0, sizeof got);
    for (i = 0; i < N; i++) {
        cl_connect_port(&c[i], f.port, 8192);
        cl_printf(&c[i], "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", targets[i % 3]);
    }
    /* 2 KiB every 20 ms, much longer than Timeout; what the server can see of
     * it is half a receive buffer at a time, every 150 ms or so */
    for (end = now_ms() + (uint64_t)(1800 * few); now_ms() < end; nap(20))
        for (i = 0; i < N; i++) {
            ssize_t k = recv(c[i].fd, buf, 2048, MSG_DONTWAIT);
            if (k > 0) {
                str_add(&c[i].in, buf, (size_t)k);
                got[i] += (size_t)k;
            }
            if (k == 0 || (k < 0 && errno != EAGAIN && errno != EWOULDBLOCK))
                fail(__FILE__, __LINE__, "%s dropped after %lu bytes",
                     targets[i % 3], (unsigned long)got[i]);
        }
    for (i = 0; i < N; i++) {
        context("%s", targets[i % 3]);
        CHECK_INT(cl_reply(&c[i]), 200);
        CHECK_INT(c[i].complete, 1);
        CHECK(c[i].body.n == (i % 3 == 2 ? 300000 : 600000));
        CHECK_INT(pattern_fault(c[i].body.p, c[i].body.n, 0), -1);
        cl_close(&c[i]);
    }
    no_context();
    fx_down(&f);
}

/* A client that reads nothing for Timeout is dropped, and the log says so. */
SERVED(time, stuck_readers_are_dropped,
       LONG_TIMES "Timeout 400ms; SendBufferSize 16384")
{
    static const char *const targets[] = {
        "/produce?bytes=9000000", "/big?bytes=9000000"
    };
    client cs[2];
    uint64_t t0;
    int i;

    t0 = now_ms();
    for (i = 0; i < 2; i++) {
        cl_connect_port(&cs[i], f->port, 8192);
        cl_printf(&cs[i], "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", targets[i]);
    }
    CHECK_SOON(fx_log_lines(f, "EMPM5003") == 2, 6000);
    CHECK_IN(now_ms() - t0, 390, 800 + 2 * LATE);
    for (i = 0; i < 2; i++) {
        cl_reply(&cs[i]);
        CHECK_INT(cs[i].complete, 0);
        CHECK(cs[i].end != 0);
        cl_close(&cs[i]);
    }
}

/* Connections that wait, in whatever state, cost no CPU and no wake-ups. */
SERVED(time, idle_costs_nothing, LONG_TIMES)
{
    enum { N = 50 };
    client cs[N];
    long kids[8], pid;
    long long cpu0, wake0;
    int i;

    for (i = 0; i < N; i++) {
        char target[64];
        cl_open(&cs[i], f);
        switch (i % 4) {
        case 0: check_in_step(&cs[i]); break;
        case 1: cl_puts(&cs[i], "GET /hel"); break;
        case 2: cl_puts(&cs[i], POST1 "Content-Length: 10\r\n\r\nhello"); break;
        default:
            snprintf(target, sizeof target, "/park?slot=%d&how=hold", i);
            cl_printf(&cs[i], "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", target);
            CHECK_SOON(get_ticket(i) != 0, 2000);
            if (i % 8 == 7)
                cl_shut(&cs[i]);     /* HALF_CLOSED, and goes on waiting */
        }
    }
    nap(SCALED(150));               /* let it settle */
    pid = (long)getpid();
    if (f->forked) {
        if (children_of(f->pid, kids, 8) != 1)
            kids[0] = f->pid;
        pid = kids[0];
    }
    cpu0 = cpu_ms_of(pid);
    wake0 = wakeups_of(pid);
    nap(600);
    CHECK_IN(cpu_ms_of(pid) - cpu0, 0, 30 + SCALED(20));
    if (g_slow == 1)                /* our own nap is one of them */
        CHECK_IN(wakeups_of(pid) - wake0, 0, 6);
    cl_close_all(cs, N);
}

/* ---------------------------------------------------------------------------
 * >>linger -- refusals arrive, whatever the client still sends
 * ------------------------------------------------------------------------- */

/* A refusal reaches a client that still sends ten megabytes. */
LIVE(linger, refusal_while_10_mb_arrive)
{
    static const char *const heads[] = {
        POST1 "Content-Length: 10000000\r\n\r\n",               /* 413 */
        CHUNK "989680\r\n",                                     /* 413 */
        "POST /private HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n",
        POST1 "Transfer-Encoding: x, chunked\r\n\r\n",          /* 501 */
        POST1 "Content-Length: 1\r\nContent-Length: 2\r\n\r\n"  /* 400 */
    };
    static const int want[] = { 413, 413, 401, 501, 400 };
    fixture f;
    char *big = (char *)malloc(10000000);
    int i;

    fx_init(&f);
    if (big != NULL && fx_up(&f)) {
        memset(big, 'x', 10000000);
        for (i = 0; i < 5; i++) {
            client c;
            context("%s", heads[i]);
            cl_open(&c, &f);
            cl_puts(&c, heads[i]);
            CHECK_INT(cl_send(&c, big, 10000000), 0);
            CHECK_INT(cl_reply(&c), want[i]);
            CHECK_INT(c.complete, 1);
            CHECK_INT(c.closes, 1);
            CHECK_FIN(&c);
            cl_close(&c);
        }
        no_context();
        fx_down(&f);
    }
    free(big);
}

/* Python's urllib and Java's HttpURLConnection send all of a body before they
 * read: nothing but time may end the wait for it. */
SERVED(linger, refusal_while_50_mb_arrive, NULL)
{
    static char block[1 << 20];
    int i;

    cl_puts(c, POST1 "Content-Length: 52428800\r\n\r\n");
    for (i = 0; i < 50; i++)
        CHECK_INT(cl_send(c, block, sizeof block), 0);
    CHECK_INT(cl_reply(c), 413);
    CHECK_INT(c->complete, 1);
    CHECK_FIN(c);
}

/* LingerTimeout ends the wait for a refused client, and none of its bytes
 * prolongs it. */
SERVED(linger, is_bounded_in_time, "LingerTimeout 300ms")
{
    uint64_t t0;

    cl_open(c, f);
    c->patience = SCALED(5000);
    cl_puts(c, POST1 "Content-Length: 2000000000\r\n\r\n");
    t0 = now_ms();
    while (now_ms() - t0 < 5000 && cl_send(c, "xxxx", 4) == 0)
        nap(10);
    CHECK_IN(now_ms() - t0, 250, SCALED(2000));
}

/* LimitLingerBytes bounds the input that a refused connection may still
 * send. */
SERVED(linger, is_bounded_in_bytes, "LimitLingerBytes 1048576")
{
    char block[65536];
    size_t sent = 0;

    memset(block, 'x', sizeof block);
    cl_open(c, f);
    c->patience = SCALED(2000);
    cl_puts(c, POST1 "Content-Length: 2000000000\r\n\r\n");
    while (sent < 100000000 && cl_send(c, block, sizeof block) == 0)
        sent += sizeof block;
    CHECK_IN(sent, 1 << 19, 60000000);
    cl_close(c);
    CHECK_INT(get_status(f, "/hello"), 200);
}

/* A connection without unread input is closed at once and does not linger. */
SERVED_HERE(linger, plain_close_when_nothing_is_unread, NULL)
{
    client cs[50];
    int i, fds;

    fds = open_fds();
    for (i = 0; i < 50; i++) {
        CHECK_INT(ask(f, &cs[i], GET1 "Connection: close\r\n\r\n"), 200);
        CHECK_FIN(&cs[i]);
    }
    /* only our ends are still open although none of us has closed */
    CHECK_SOON(open_fds() <= fds + 50, 1000);
    cl_close_all(cs, 50);
}

/* ---------------------------------------------------------------------------
 * >>suspend -- waiting without a worker; tickets
 * ------------------------------------------------------------------------- */

/* A suspended request is called once per reason: resumed, timed out,
 * half-closed, gone. A used ticket is EMPM_EGONE. */
SERVED(suspend, every_reason, LONG_TIMES)
{
    client d;
    uint64_t t0;

    cl_open(&d, f);
    cl_open(c, f);
    /* resumed */
    cl_puts(c, "GET /park?slot=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_ticket(1) != 0, 2000);
    CHECK_OPEN(c);
    CHECK_INT(cl_get(&d, "/unpark?slot=1"), 200);
    CHECK_STR(d.body.p, "0");
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "why=1 wakes=1 slot=1\n");
    CHECK_INT(cl_get(&d, "/unpark?slot=1"), 200);
    CHECK_STR(d.body.p, "-5");      /* EMPM_EGONE */
    check_in_step(c);
    /* resumed before the handler has returned */
    CHECK_INT(cl_get(c, "/park?slot=2&how=now"), 200);
    CHECK_STR(c->body.p, "why=1 wakes=1 slot=2\n");
    /* timed out, not early */
    t0 = now_ms();
    CHECK_INT(cl_get(c, "/park?slot=3&ms=120"), 200);
    CHECK_STR(c->body.p, "why=2 wakes=1 slot=3\n");
    CHECK_IN(now_ms() - t0, 120, 120 + LATE);
    CHECK_INT(cl_get(&d, "/unpark?slot=3"), 200);
    CHECK_STR(d.body.p, "-5");
    /* again and again */
    t0 = now_ms();
    CHECK_INT(cl_get(c, "/park?slot=4&ms=50&how=again"), 200);
    CHECK_STR(c->body.p, "why=2 wakes=3 slot=4\n");
    CHECK_IN(now_ms() - t0, 150, 150 + LATE);
    /* what is written before is sent while it waits */
    cl_puts(c, "GET /park?slot=5&how=flush HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_ticket(5) != 0, 2000);
    CHECK_INT(cl_readable(c, 2000), 1);
    CHECK_INT(cl_get(&d, "/unpark?slot=5"), 200);
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "wait...\nwhy=1 wakes=1 slot=5\n");
    /* what is pipelined behind waits, too */
    cl_puts(c, "GET /park?slot=6&ms=60 HTTP/1.1\r\nHost: "
            "a\r\n\r\n" GET1 "\r\n");
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "why=2 wakes=1 slot=6\n");
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "Hello, world!\n");
    /* half-closed: told, answers */
    cl_puts(c, "GET /park?slot=7 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_ticket(7) != 0, 2000);
    t0 = now_ms();
    cl_shut(c);
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "why=3 wakes=1 slot=7\n");
    CHECK_FIN(c);
    CHECK_IN(now_ms() - t0, 0, AT_ONCE);
    cl_close(c);
    /* half-closed with the request itself; holds on, and is resumed */
    cl_send_fin(c, "GET /park?slot=8&how=hold HTTP/1.1\r\nHost: a\r\n\r\n",
                47);
    CHECK_SOON(get_int(&shm->slots[8].wakes) == 1, 2000);
    CHECK_INT(get_int(&shm->slots[8].why), EMPM_HALF_CLOSED);
    CHECK_OPEN(c);
    CHECK_INT(cl_get(&d, "/unpark?slot=8"), 200);
    CHECK_STR(d.body.p, "0");
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "why=1 wakes=2 slot=8\n");
    CHECK_FIN(c);
    cl_close(c);
    /* gone */
    cl_puts(c, "GET /park?slot=9 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_ticket(9) != 0, 2000);
    cl_reset(c);
    CHECK_SOON(get_int(&shm->slots[9].wakes) == 1, 2000);
    CHECK_INT(get_int(&shm->slots[9].why), EMPM_GONE);
    CHECK_INT(cl_get(&d, "/unpark?slot=9"), 200);
    CHECK_STR(d.body.p, "-5");
    cl_close(&d);
}

/* A stop calls each suspended request with EMPM_STOPPING, and its answer is
 * sent. */
SERVED(suspend, stopping, LONG_TIMES)
{
    cl_puts(c, "GET /park?slot=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_ticket(1) != 0, 2000);
    if (f->forked)
        signal_process(f->pid, SIGTERM);
    else
        empm_stop(f->s);
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "why=5 wakes=1 slot=1\n");
    CHECK_INT(c->closes, 1);
    CHECK_FIN(c);
    if (f->forked) {
        CHECK(fx_wait(f, PATIENCE));
    } else {
        CHECK_INT(empm_wait(f->s, PATIENCE), EMPM_OK);
        CHECK_INT(empm_resume(f->s, get_ticket(1)), EMPM_EGONE);
    }
    CHECK_INT(get_int(&shm->slots[1].wakes), 1);
}

/* A graceful stop waits for suspended requests: for times that pass, for calls
 * that resume, and for requests that suspend once more. */
SERVED(suspend, a_graceful_stop_lets_them_wait, LONG_TIMES)
{
    client again = client_of(f), d = client_of(f);

    check_in_step(&d);
    cl_puts(&again, "GET /park?slot=1&ms=200&how=again HTTP/1.1\r\nHost: "
            "a\r\n\r\n");
    cl_puts(c, "GET /park?slot=2 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_ticket(1) != 0 && get_ticket(2) != 0, 4000);
    if (f->forked) {
        signal_process(f->pid, SIGWINCH);
        CHECK_SOON(fx_log_has(f, "EMPM0492"), 4000);
    } else {
        CHECK_INT(empm_draining(f->s), 0);
        empm_stop_graceful(f->s);
        CHECK_SOON(empm_draining(f->s), 4000);
    }
    CHECK_INT(cl_reply(&again), 200);
    CHECK_STR(again.body.p, "why=2 wakes=3 slot=1\n");
    CHECK_INT(again.closes, 1);
    CHECK_OPEN(c);
    CHECK_INT(cl_get(&d, "/unpark?slot=2"), 200);
    CHECK_STR(d.body.p, "0");
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "why=1 wakes=1 slot=2\n");
    CHECK_INT(c->closes, 1);
    cl_close(c);
    cl_close(&again);
    cl_close(&d);
    if (f->forked) {
        CHECK(fx_wait(f, PATIENCE));
        if (CHECK(fx_reap(f, f->pid, SCALED(3000))))
            f->pid = 0;
    } else {
        CHECK_INT(empm_wait(f->s, PATIENCE), EMPM_OK);
    }
}

/* A drain ends suspended requests at its limit, and tells them the reason. */
SERVED(suspend, a_drain_ends_them_at_its_limit,
       LONG_TIMES "GracefulShutdownTimeout 300ms")
{
    uint64_t t0;

    cl_puts(c, "GET /park?slot=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_ticket(1) != 0, 4000);
    t0 = now_ms();
    if (f->forked)
        signal_process(f->pid, SIGWINCH);
    else
        empm_stop_graceful(f->s);
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "why=5 wakes=1 slot=1\n");
    CHECK_IN(now_ms() - t0, 300, 20000);
    cl_close(c);
    if (f->forked) {
        CHECK(fx_wait(f, PATIENCE));
        if (CHECK(fx_reap(f, f->pid, SCALED(3000))))
            f->pid = 0;
    }
}

/* A stream of events is one chunked answer of a request that is suspended in
 * between; the connection stays in step. */
SERVED(suspend, server_sent_events, NULL)
{
    CHECK_INT(cl_get(c, "/events?n=5"), 200);
    CHECK_STR(cl_header(c, "Content-Type"), "text/event-stream");
    CHECK_INT(c->chunked, 1);
    CHECK_STR(c->body.p, "data: 5\n\ndata: 4\n\ndata: 3\n\ndata: 2\n\ndata: "
              "1\n\n");
    check_in_step(c);
}

/* A suspension that has begun gets its one call, even if a later step of the
 * request fails. */
SERVED(suspend, told_whatever_fails,
       LONG_TIMES "LimitResponseSpool 4000000; LogLevel emerg")
{
    static const struct { const char *script; int reset_ms, why; } rows[] = {
        /* the client goes while the handler still runs */
        { "h=defer,suspend.60000,nap.150,write.200000,wait", 1, EMPM_GONE },
        { "h=defer,suspend.60000,nap.150,write.60000,wait", 1, EMPM_GONE },
        { "h=defer,suspend.60000,nap.150,wait", 1, EMPM_GONE },
        /* there is no room for what it writes */
        { "h=defer,suspend.60000,write.9000000,wait", 0, EMPM_GONE },
        /* the client takes nothing, then goes: it waits, or is being called */
        { "h=defer,write.1000000,suspend.60000,wait", 50, EMPM_GONE },
        { "h=defer,write.65536,suspend.5,wait&"
          "w=nap.2,write.65536,suspend.5,wait", 700, 0 }
    };

    EACH(rows, i) {
        slot *s = &shm->slots[i];
        cl_connect_port(c, f->port, 8192);
        cl_printf(c, "GET /script?slot=%d&%s HTTP/1.1\r\nHost: a\r\n\r\n",
                  (int)i, rows[i].script);
        if (rows[i].reset_ms > 0) {
            CHECK_SOON(get_ticket((int)i) != 0, 4000);
            nap(rows[i].reset_ms);
            cl_reset(c);
        }
        CHECK_SOON(get_int(&shm->cleanups) == (int)i + 1, 5000);
        CHECK(get_int(&s->pieces) > 0);
        CHECK_INT(get_int(&s->wakes), get_int(&s->pieces));
        if (rows[i].why != 0)
            CHECK_INT(get_int(&s->why), rows[i].why);
        cl_close(c);
    }
}

/* A ticket is stale once its function has been told of a half-closed client and
 * has answered. */
SERVED(suspend, an_answer_to_half_closed_ends_the_ticket, LONG_TIMES)
{
    client d;

    cl_open(&d, f);
    cl_connect_port(c, f->port, 8192);       /* the answer takes its time */
    cl_puts(c, "GET /script?slot=3&h=defer,suspend.60000,wait&w=write.9000000 "
            "HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_ticket(3) != 0, 2000);
    cl_shut(c);
    CHECK_SOON(get_int(&shm->cleanups) == 1, 4000);
    CHECK_INT(cl_get(&d, "/unpark?slot=3"), 200);
    CHECK_STR(d.body.p, "-5");               /* EMPM_EGONE */
    CHECK_INT(cl_reply(c), 200);
    CHECK_INT(c->body.n, 9000000);
    cl_close(&d);
}

/* Hundreds of suspended requests hold no worker, and a ticket that is not in
 * use resumes nothing. */
SERVED_HERE(suspend, hundreds_hold_no_worker, LONG_TIMES "ThreadsPerChild 2")
{
    enum { N = 300 };
    static client cs[N];
    int i;

    for (i = 0; i < N; i++) {
        cl_open(&cs[i], f);
        cl_printf(&cs[i], "GET /park?slot=%d HTTP/1.1\r\nHost: a\r\n\r\n", i);
    }
    for (i = 0; i < N; i++)
        CHECK_SOON(get_ticket(i) != 0, 4000);
    CHECK_INT(get_status(f, "/hello"), 200);
    for (i = 0; i < N; i++)
        CHECK_INT(empm_resume(f->s, get_ticket(i)), EMPM_OK);
    for (i = 0; i < N; i++) {
        char want[64];
        snprintf(want, sizeof want, "why=1 wakes=1 slot=%d\n", i);
        CHECK_INT(cl_reply(&cs[i]), 200);
        CHECK_STR(cs[i].body.p, want);
        cl_close(&cs[i]);
    }
    for (i = 0; i < N; i++)
        CHECK_INT(empm_resume(f->s, get_ticket(i)), EMPM_EGONE);
    CHECK_INT(empm_resume(f->s, 0), EMPM_EGONE);
    CHECK_INT(empm_resume(f->s, ~(empm_ticket)0), EMPM_EGONE);
    CHECK_INT(empm_resume(f->s, 1), EMPM_EGONE);
    CHECK_INT(empm_resume(f->s, get_ticket(0) + 1), EMPM_EGONE);
}

typedef struct resumer {
    pthread_t    thread;
    empm_server *s;
    int         *stop;
    unsigned     seed;
    int          n;
} resumer;

static void *resumer_run(void *arg)
{
    resumer *r = (resumer *)arg;

    while (!get_int(r->stop)) {
        empm_ticket t;
        r->seed = r->seed * 1103515245u + 12345u;
        t = get_ticket((int)(r->seed >> 16) % 16);
        if (r->seed & 0x800)        /* a stale or a wrong one */
            t -= (r->seed >> 12) & 3;
        empm_resume(r->s, t);
        r->n++;
        if (r->n % 64 == 0)
            nap(1);
    }
    return NULL;
}

/* Eight threads resume stale tickets while requests time out: no other request
 * is touched, and every wake comes once. */
TEST(suspend, stale_tickets_from_eight_threads)
{
    enum { N = 16, ROUNDS = 60 };
    fixture f;
    client c[N];
    resumer r[8];
    int i, round, stop = 0;

    fx_init(&f);
    long_times(&f);
    f.cfg.max_keep_alive_requests = 7;      /* so that records are reused */
    if (!fx_up(&f))
        return;
    memset(r, 0, sizeof r);
    for (i = 0; i < 8; i++) {
        r[i].s = f.s;
        r[i].stop = &stop;
        r[i].seed = (unsigned)i * 7919u + 1u;
        pthread_create(&r[i].thread, NULL, resumer_run, &r[i]);
    }
    for (i = 0; i < N; i++)
        cl_init(&c[i]);
    for (round = 0; round < ROUNDS && get_int(&g_failures) < 5; round++) {
        for (i = 0; i < N; i++) {
            if (c[i].fd < 0 || c[i].closes) {
                cl_close(&c[i]);
                cl_open(&c[i], &f);
            }
            set_int(&shm->slots[i].wakes, 0);
            cl_printf(&c[i], "GET /park?slot=%d&ms=%d HTTP/1.1\r\nHost: "
                      "a\r\n\r\n", i, 1 + (round + i) % 9);
        }
        for (i = 0; i < N; i++) {
            char one[64], two[64];
            context("round %d, slot %d", round, i);
            CHECK_INT(cl_reply(&c[i]), 200);
            snprintf(one, sizeof one, "why=1 wakes=1 slot=%d\n", i);
            snprintf(two, sizeof two, "why=2 wakes=1 slot=%d\n", i);
            if (strcmp(c[i].body.p, one) != 0)
                CHECK_STR(c[i].body.p, two);
        }
    }
    no_context();
    set_int(&stop, 1);
    for (i = 0; i < 8; i++)
        pthread_join(r[i].thread, NULL);
    cl_close_all(c, N);
    fx_down(&f);
}

/* empm_should_stop() tells a running handler of a half-closed client, a lost
 * client, its deadline and the server's stop. */
SERVED(suspend, should_stop, LONG_TIMES)
{
    cl_puts(c, "GET /until-stop HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_int(&shm->at_gate) == 1, 3000);
    cl_shut(c);
    CHECK_INT(cl_reply(c), 200);
    CHECK_INT(get_int(&shm->rc[0]), EMPM_STOP_HALF_CLOSED);
    cl_close(c);
    cl_puts(c, "GET /until-stop HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_int(&shm->at_gate) == 1, 3000);
    set_int(&shm->rc[0], 0);
    cl_reset(c);
    CHECK_SOON(get_int(&shm->rc[0]) != 0, 3000);
    CHECK(get_int(&shm->rc[0]) & EMPM_STOP_GONE);
    CHECK_SOON(get_int(&shm->at_gate) == 0, 3000);
    set_int(&shm->rc[0], 0);
    CHECK_INT(cl_ask(c, "GET /deadline HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    CHECK_INT(get_int(&shm->rc[0]), EMPM_STOP_DEADLINE);
    cl_close(c);
    cl_open(c, f);
    set_int(&shm->rc[0], 0);
    cl_puts(c, "GET /until-stop HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_int(&shm->at_gate) == 1, 3000);
    if (f->forked)
        signal_process(f->pid, SIGTERM);
    else
        empm_stop(f->s);
    CHECK_INT(cl_reply(c), 200);
    CHECK_INT(get_int(&shm->rc[0]), EMPM_STOP_STOPPING);
}

/* ---------------------------------------------------------------------------
 * >>files -- below the root, nowhere else
 * ------------------------------------------------------------------------- */

static void make_tree(void)
{
    char path[512], *big;
    static const struct { const char *name, *data; } files[] = {
        { "www/index.html", "<p>index" }, { "www/a.txt", "0123456789" },
        { "www/empty.txt", "" }, { "www/b.css", "b{}" }, { "www/c.js", "c" },
        { "www/d.json", "{}" }, { "www/e.png", "png" }, { "www/f.svg",
                                                         "<svg/>" },
        { "www/g.unknown", "?" }, { "www/sp ace.txt", "space" },
        { "www/per%cent.txt", "percent" }, { "www/.secret", "dot" },
        { "www/H.HTML", "upper" }, { "www/noext", "none" },
        { "www/sub/index.html", "sub index" }, { "www/sub/x.txt", "sub x" },
        { "www/sub/.hidden/y.txt", "hidden" }, { "www/bare/z.txt", "z" },
        { "outside.txt", "outside" }, { "www-twin/secret.txt", "twin" }
    };
    static const char *const dirs[] = { "www", "www/sub", "www/sub/.hidden",
                                        "www/bare", "www-twin" };
    size_t i;

    for (i = 0; i < sizeof dirs / sizeof dirs[0]; i++)
        mkdir(tmp_path(path, sizeof path, dirs[i]), 0755);
    for (i = 0; i < sizeof files / sizeof files[0]; i++)
        write_file(tmp_path(path, sizeof path, files[i].name), files[i].data,
                   strlen(files[i].data));
    big = (char *)malloc(300000);
    if (big != NULL) {
        pattern_fill(big, 300000, 0);
        write_file(tmp_path(path, sizeof path, "www/big.bin"), big, 300000);
        free(big);
    }
    CHECK_INT(symlink("../outside.txt", tmp_path(path, sizeof path,
                                                 "www/link-out.txt")), 0);
    CHECK_INT(symlink("..", tmp_path(path, sizeof path, "www/dir-out")), 0);
    CHECK_INT(symlink("/etc", tmp_path(path, sizeof path, "www/etc")), 0);
    CHECK_INT(mkfifo(tmp_path(path, sizeof path, "www/fifo"), 0644), 0);
}

static const empm_route file_routes[] = {
    EMPM_ROUTE("GET /hello/{name}", h_hello, NULL),
    EMPM_ROUTE("GET /hello",        h_hello, NULL),
    EMPM_FILES("GET /",             NULL),
    EMPM_ROUTES_END
};

static const empm_route files_of_any_method[] = {
    EMPM_ROUTE("/hello/{name}", h_hello, NULL),
    EMPM_FILES("/", NULL), EMPM_ROUTES_END
};

#define SERVED_FILES(section, name, settings)                                 \
    SERVED_WITH(section, name, T_LIVE,                                        \
                fx_init(f); f->cfg.routes = file_routes, settings)

static int files_up(fixture *f)
{
    fx_init(f);
    f->cfg.routes = file_routes;
    return fx_up(f);
}

/* Each name is served from below the root or not at all: no spelling of ".."
 * leaves it, no link leads out, no hidden file is seen. */
SERVED_FILES(files, names, NULL)
{
    static const struct { const char *target; int status; const char *body;
                          const char *type; } rows[] = {
        { "/",                  200, "<p>index",   "text/html" },
        { "/index.html",        200, "<p>index",   "text/html" },
        { "/a.txt",             200, "0123456789", "text/plain" },
        { "/a.txt?query",       200, "0123456789", "text/plain" },
        { "/a%2etxt",           200, "0123456789", "text/plain" },
        { "/empty.txt",         200, "",           "text/plain" },
        { "/b.css",             200, "b{}",        "text/css" },
        { "/c.js",              200, "c",          "text/javascript" },
        { "/d.json",            200, "{}",         "application/json" },
        { "/e.png",             200, "png",        "image/png" },
        { "/f.svg",             200, "<svg/>",     "image/svg+xml" },
        { "/g.unknown",         200, "?",          NULL },
        { "/H.HTML",            200, "upper",      "text/html" },
        { "/noext",             200, "none",       NULL },
        { "/sp%20ace.txt",      200, "space",      "text/plain" },
        { "/per%25cent.txt",    200, "percent",    "text/plain" },
        { "/sub/",              200, "sub index",  "text/html" },
        { "/sub/x.txt",         200, "sub x",      "text/plain" },
        { "/bare/z.txt",        200, "z",          "text/plain" },
        { "/nothing.txt",       404, NULL,         NULL },
        { "/sub/nothing",       404, NULL,         NULL },
        { "/nothing/x",         404, NULL,         NULL },
        { "/a.txt/",            404, NULL,         NULL },
        { "/a.txt/x",           404, NULL,         NULL },
        { "/A.TXT",             404, NULL,         NULL },
        { "/per%2525cent.txt",  404, NULL,         NULL },  /* decoded once */
        { "/fifo",              0,   NULL,         NULL },
        { "/bare/",             0,   NULL,         NULL },
        /* nothing outside of the root, however it is written */
        { "/../outside.txt",    0,   NULL,         NULL },
        { "/sub/../a.txt",      200, "0123456789", "text/plain" },
        { "/./a.txt",           200, "0123456789", "text/plain" },
        { "//sub//%2e./a.txt",  200, "0123456789", "text/plain" },
        { "/sub/../../outside.txt", 0, NULL,       NULL },
        { "/..",                0,   NULL,         NULL },
        { "/../",               0,   NULL,         NULL },
        { "/../www/a.txt",      0,   NULL,         NULL },
        { "/../www-twin/secret.txt", 0, NULL,      NULL },
        { "/%2e%2e/outside.txt", 0,  NULL,         NULL },
        { "/.%2e/outside.txt",  0,   NULL,         NULL },
        { "/%2E./outside.txt",  0,   NULL,         NULL },
        { "/..%2foutside.txt",  0,   NULL,         NULL },
        { "/%2e%2e%2foutside.txt", 0, NULL,        NULL },
        { "/sub%2fx.txt",       0,   NULL,         NULL },
        { "/sub%2Fx.txt",       0,   NULL,         NULL },
        { "/sub%5cx.txt",       0,   NULL,         NULL },
        { "/..%5coutside.txt",  0,   NULL,         NULL },
        { "/..\\outside.txt",   0,   NULL,         NULL },
        { "/a.txt%00",          0,   NULL,         NULL },
        { "/a.txt%00.html",     0,   NULL,         NULL },
        { "/%00",               0,   NULL,         NULL },
        { "/%252e%252e/outside.txt", 0, NULL,      NULL },
        { "/%c0%ae%c0%ae/outside.txt", 0, NULL,    NULL },
        { "//a.txt",            -1,  NULL,         NULL },
        { "//etc/passwd",       0,   NULL,         NULL },
        { "/sub//x.txt",        -1,  NULL,         NULL },
        { "/./a.txt",           -1,  NULL,         NULL },
        { "/.",                 -1,  NULL,         NULL },
        { "/.secret",           0,   NULL,         NULL },
        { "/%2esecret",         0,   NULL,         NULL },
        { "/sub/.hidden/y.txt", 0,   NULL,         NULL },
        { "/link-out.txt",      0,   NULL,         NULL },
        { "/dir-out/outside.txt", 0, NULL,         NULL },
        { "/etc/passwd",        0,   NULL,         NULL },
        { "/a.txt::$DATA",      0,   NULL,         NULL },
        { "/a.txt%20",          0,   NULL,         NULL },
        { "/a.txt.",            0,   NULL,         NULL }
    };

    EACH(rows, i) {
        int status;
        context("%s", rows[i].target);
        status = cl_get(c, rows[i].target);
        if (rows[i].status == 0)            /* refused, one way or another */
            CHECK(status == 400 || status == 403 || status == 404);
        else if (rows[i].status < 0)        /* refused, or the clean path */
            CHECK((status >= 300 && status < 500) || status == 200);
        else
            CHECK_INT(status, rows[i].status);
        CHECK(strstr(c->body.p, "outside") == NULL || status == 404);
        CHECK(strstr(c->body.p, "root:") == NULL);
        if (rows[i].body != NULL)
            CHECK_STR(c->body.p, rows[i].body);
        if (rows[i].type != NULL) {
            const char *type = cl_header(c, "Content-Type");
            CHECK(type != NULL && strncmp(type, rows[i].type,
                                          strlen(rows[i].type)) == 0);
        }
        if (status == 200 && rows[i].status == 200) {
            CHECK_INT(c->declared, strlen(rows[i].body));
            check_in_step(c);
        }
        cl_close(c);
    }
}

/* A folder without its slash is redirected within this host; a file knows GET,
 * HEAD and OPTIONS. */
LIVE(files, directories_and_methods)
{
    fixture f;
    client c;
    const char *to;

    if (!files_up(&f))
        return;
    CHECK_INT(ask(&f, &c, "GET /sub?q=1 HTTP/1.1\r\nHost: evil\r\n\r\n") / 100,
              3);
    to = cl_header(&c, "Location");
    CHECK_STR(to, "/sub/?q=1");
    cl_close(&c);
    cl_open(&c, &f);
    cl_puts(&c, "HEAD /big.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(cl_reply_with(&c, 1), 200);
    CHECK_INT(c.declared, 300000);
    check_in_step(&c);
    CHECK_INT(cl_get(&c, "/big.bin"), 200);
    CHECK_INT(c.body.n, 300000);
    CHECK_INT(pattern_fault(c.body.p, c.body.n, 0), -1);
    check_in_step(&c);
    cl_close(&c);
    CHECK_INT(ask(&f, &c, "POST /a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 0"
                          "\r\n\r\n"), 405);
    cl_close(&c);
    CHECK_INT(ask(&f, &c, "DELETE /a.txt HTTP/1.1\r\nHost: a\r\n\r\n"), 405);
    cl_close(&c);
    fx_down(&f);

    /* a pattern for all methods is asked itself */
    fx_init(&f);
    f.cfg.routes = files_of_any_method;
    if (!fx_up(&f))
        return;
    CHECK_INT(ask(&f, &c, "OPTIONS /a.txt HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    CHECK_STR(cl_header(&c, "Allow"), "GET, HEAD, OPTIONS");
    CHECK_INT(c.body.n, 0);
    check_in_step(&c);
    cl_close(&c);
    CHECK_INT(ask(&f, &c, "PUT /a.txt HTTP/1.1\r\nHost: a\r\n"
                          "Content-Length: 0\r\n\r\n"), 405);
    CHECK_STR(cl_header(&c, "Allow"), "GET, HEAD, OPTIONS");
    cl_close(&c);
    fx_down(&f);
}

/* All fields that are lists are read by one reader: an element counts
 * between empty ones and in a field of its own, and does not in quotes. */
SERVED_FILES(files, fields_that_are_lists, NULL)
{
    static const struct { const char *name, *before, *element; int status;
                          int quoted; } rows[] = {
        { "Connection", "", "close", 200, 200 },
        { "Expect", "", "other", 417, 417 },
        { "Transfer-Encoding", "", "chunked", 200, 400 },
        { "Range", "bytes=", "0-0", 206, 200 },
        { "If-None-Match", "", "*", 304, 200 },
        { "If-Match", "", "\"x\"", 412, 412 }
    };

    EACH(rows, i) {
        const int body = strcmp(rows[i].name, "Transfer-Encoding") == 0;
        const int sole = strcmp(rows[i].name, "Range") == 0;
        int way;
        for (way = 0; way < 4; way++) {
            const char *const e = rows[i].element;
            char value[200];
            context("%s, way %d", rows[i].name, way);
            if (way == 3)
                snprintf(value, sizeof value, "\"a, %s, b\"", e);
            else
                snprintf(value, sizeof value, "%s%s%s",
                         way == 1 ? " ,\t, " : "", e, way == 1 ? "\t,, " : "");
            cl_printf(c, "GET /a.txt HTTP/1.1\r\nHost: a\r\n");
            if (way == 2 && !sole)
                cl_printf(c, "%s: ,\r\n", rows[i].name);
            cl_printf(c, "%s: %s%s\r\n\r\n%s", rows[i].name, rows[i].before,
                      value, body ? "0\r\n\r\n" : "");
            CHECK_INT(cl_reply(c), way == 3 ? rows[i].quoted : rows[i].status);
            if (i == 0)
                CHECK_INT(c->closes, way != 3);
            cl_close(c);
        }
    }
}

/* Conditions of a request are judged by RFC 9110 13: entity tags before dates,
 * lists as lists, nonsense as absent. */
SERVED_FILES(files, conditions, NULL)
{
    char etag[128], date[64];
    static const struct { const char *fmt; int status; } rows[] = {
        { "If-None-Match: %s\r\n",                                304 },
        { "If-None-Match: *\r\n",                                 304 },
        { "If-None-Match: \"other\", %s\r\n",                     304 },
        { "If-None-Match: W/%s\r\n",                              304 },
        { "If-None-Match: \"other\"\r\n",                         200 },
        { "If-None-Match: \"other\"\r\nIf-Modified-Since: %s\r\n", 200 },
        { "If-None-Match: garbage\r\n",                           200 },
        { "If-None-Match: \"other\"\r\nIf-None-Match: ,%s\r\n",    304 },
        { "If-None-Match: \"a,*,b\"\r\n",                         200 },
        { "If-None-Match: \"a\\\", %s\r\n",                        304 },
        { "If-Match: \"other\"\r\nIf-Match: , ,%s ,\r\n",          200 },
        { "If-Match: \"a,*,b\"\r\n",                              412 },
        { "If-Match: \"x\", \"a, *\r\n",                           412 },
        { "If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT\r\n", 200 },
        { "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n", -1 },
        { "If-Modified-Since: garbage\r\n",                       200 },
        { "If-Match: %s\r\n",                                     200 },
        { "If-Match: *\r\n",                                      200 },
        { "If-Match: \"other\"\r\n",                              412 },
        { "If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 GMT\r\n", 412 },
        { "If-Unmodified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n", 200 }
    };

    CHECK_INT(cl_get(c, "/a.txt"), 200);
    if (!CHECK(cl_header(c, "ETag") != NULL) || !CHECK(c->value[0] == '"')) {
        cl_close(c);
        return;
    }
    snprintf(etag, sizeof etag, "%.100s", c->value);
    CHECK(cl_header(c, "Last-Modified") != NULL);
    snprintf(date, sizeof date, "%.60s", c->value);
    CHECK_INT(strlen(date), 29);
    EACH(rows, i) {
        char fields[512], *at;
        const char *put = strstr(rows[i].fmt, "Since: %s") ? date : etag;
        context("%s", rows[i].fmt);
        snprintf(fields, sizeof fields, "%s", rows[i].fmt);
        at = strstr(fields, "%s");
        if (at != NULL)
            snprintf(at, sizeof fields - (size_t)(at - fields), "%s%s", put,
                     strstr(rows[i].fmt, "%s") + 2);
        cl_printf(c, "GET /a.txt HTTP/1.1\r\nHost: a\r\n%s\r\n", fields);
        cl_reply(c);
        if (rows[i].status > 0)
            CHECK_INT(c->status, rows[i].status);
        else
            CHECK(c->status == 200 || c->status == 304);
        if (c->status == 304) {
            CHECK_STR(cl_header(c, "ETag"), etag);
            CHECK(cl_header(c, "Content-Length") == NULL || c->declared == 10);
        }
        if (c->closes)
            cl_close(c);
        check_in_step(c);
    }
    cl_printf(c, "GET /a.txt HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: "
              "%s\r\n\r\n", date);
    CHECK_INT(cl_reply(c), 304);
    check_in_step(c);
}

/* A range is served by RFC 9110 14: 206 with its part, 416 beyond the end, and
 * the whole file for a range that is not well formed. */
SERVED_FILES(files, ranges, NULL)
{
    static const struct { const char *range; int status; const char *body;
                          const char *content_range; } rows[] = {
        { "bytes=0-0",     206, "0",          "bytes 0-0/10" },
        { "bytes=0-9",     206, "0123456789", "bytes 0-9/10" },
        { "bytes=0-",      206, "0123456789", "bytes 0-9/10" },
        { "bytes=9-9",     206, "9",          "bytes 9-9/10" },
        { "bytes=3-5",     206, "345",        "bytes 3-5/10" },
        { "bytes=8-100",   206, "89",         "bytes 8-9/10" },
        { "bytes=5-",      206, "56789",      "bytes 5-9/10" },
        { "bytes=-1",      206, "9",          "bytes 9-9/10" },
        { "bytes=-3",      206, "789",        "bytes 7-9/10" },
        { "bytes=-100",    206, "0123456789", "bytes 0-9/10" },
        { "bytes=1-99999999999999999999999", 206, "123456789", "bytes 1-9/10" },
        { "bytes=10-",     416, NULL,         "bytes */10" },
        { "bytes=10-20",   416, NULL,         "bytes */10" },
        { "bytes=-0",      416, NULL,         "bytes */10" },
        { "bytes=18446744073709551616-", 416, NULL, "bytes */10" },
        { "bytes=10-,2-3", 206, "23",         "bytes 2-3/10" },
        { "bytes=-0,2-3,10-12", 206, "23",    "bytes 2-3/10" },
        { "bytes= 2-3",    206, "23",         "bytes 2-3/10" },
        { "bytes=2-3 ",    206, "23",         "bytes 2-3/10" },
        { "bytes=,2-3",    206, "23",         "bytes 2-3/10" },
        { "bytes=, ,\t2-3 , ,", 206, "23",    "bytes 2-3/10" },
        { "BYTES=2-3",     206, "23",         "bytes 2-3/10" },
        { "bytes=10-,20-30,-0", 416, NULL,    "bytes */10" },
        { "bytes=,",       200, "0123456789", NULL },
        { "bytes=2 -3",    200, "0123456789", NULL },
        { "bytes=2- 3",    200, "0123456789", NULL },
        { "bytes =2-3",    200, "0123456789", NULL },
        { "bytes=2-3,x",   200, "0123456789", NULL },
        { "bytes=2-3,5-4", 200, "0123456789", NULL },
        { "bytes=2-3;4-5", 200, "0123456789", NULL },
        { "bytes=0x2-3",   200, "0123456789", NULL },
        { "byte=2-3",      200, "0123456789", NULL },
        { "bytes=5-3",     200, "0123456789", NULL },
        { "bytes=x",       200, "0123456789", NULL },
        { "bytes=",        200, "0123456789", NULL },
        { "bytes=-",       200, "0123456789", NULL },
        { "bytes=+1-2",    200, "0123456789", NULL },
        { "bytes=1-2x",    200, "0123456789", NULL },
        { "bytes=--1",     200, "0123456789", NULL },
        { "lines=1-2",     200, "0123456789", NULL },
        { "1-2",           200, "0123456789", NULL }
    };
    char etag[128], date[64];

    EACH(rows, i) {
        context("%s", rows[i].range);
        cl_printf(c, "GET /a.txt HTTP/1.1\r\nHost: a\r\nRange: %s\r\n\r\n",
                  rows[i].range);
        CHECK_INT(cl_reply(c), rows[i].status);
        if (rows[i].body != NULL)
            CHECK_STR(c->body.p, rows[i].body);
        if (rows[i].content_range != NULL)
            CHECK_STR(cl_header(c, "Content-Range"), rows[i].content_range);
        else
            CHECK(cl_header(c, "Content-Range") == NULL);
        if (c->closes)
            cl_close(c);
    }
    check_in_step(c);
    CHECK_INT(cl_get(c, "/a.txt"), 200);
    snprintf(etag, sizeof etag, "%.100s", cl_header(c, "ETag") ? c->value
                                                                : "-");
    snprintf(date, sizeof date, "%.60s", cl_header(c, "Last-Modified") ?
             c->value : "-");
    cl_printf(c, "GET /a.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=1-2\r\n"
              "If-Range: %s\r\n\r\n", etag);
    CHECK_INT(cl_reply(c), 206);
    cl_puts(c, "GET /a.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=1-2\r\n"
                "If-Range: \"other\"\r\n\r\n");
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "0123456789");
    cl_puts(c, "GET /a.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=1-2\r\n"
                "If-Range: Sat, 01 Jan 2000 00:00:00 GMT\r\n\r\n");
    CHECK_INT(cl_reply(c), 200);
    cl_puts(c, "GET /big.bin HTTP/1.1\r\nHost: a\r\nRange: "
            "bytes=100001-250000\r\n"
                "\r\n");
    CHECK_INT(cl_reply(c), 206);
    CHECK_INT(c->body.n, 150000);
    CHECK_INT(pattern_fault(c->body.p, c->body.n, 100001), -1);
    cl_puts(c, "HEAD /a.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=1-2\r\n\r\n");
    CHECK_INT(cl_reply_with(c, 1), 200);   /* a range is for GET only */
    CHECK_INT(c->declared, 10);
    cl_puts(c, "GET /empty.txt HTTP/1.1\r\nHost: a\r\nRange: "
            "bytes=0-\r\n\r\n");
    CHECK_INT(cl_reply(c), 416);
    CHECK_STR(cl_header(c, "Content-Range"), "bytes */0");
    cl_puts(c, "GET /empty.txt HTTP/1.1\r\nHost: a\r\nRange: "
            "bytes=-5\r\n\r\n");
    CHECK_INT(cl_reply(c), 200);           /* satisfiable, by nothing */
    cl_puts(c, "GET /a.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=1-2\r\n"
                "Range: bytes=1-2\r\n\r\n");
    CHECK_INT(cl_reply(c), 200);           /* once only, or it means nothing */
    if (c->closes)
        cl_close(c);
    check_in_step(c);
}

/* The modification time of a file, in whole seconds. */
static void set_mtime(const char *path, long long t)
{
    struct timespec ts[2];

    memset(ts, 0, sizeof ts);
    ts[0].tv_sec = ts[1].tv_sec = (time_t)t;
    CHECK_INT(utimensat(AT_FDCWD, path, ts, 0), 0);
}

/* A field of which two came has no meaning. If-Range lets a range pass only if
 * it names exactly this content (RFC 9110 13.1.5): weak tags, lists, "*" and a
 * date whose second is not over never do. */
SERVED_FILES(files, if_range, NULL)
{
    static const struct { const char *field; int status; } rows[] = {
        { "If-Range: %t\r\n",                            206 },
        { "If-Range: W/%t\r\n",                          200 },
        { "If-Range: \"other\"\r\n",                     200 },
        { "If-Range: %t, \"other\"\r\n",                 200 },
        { "If-Range: \"other\", %t\r\n",                 200 },
        { "If-Range: %t\r\nIf-Range: %t\r\n",            200 },
        { "If-Range: %t\r\nIf-Range: \"other\"\r\n",     200 },
        { "If-Range: *\r\n",                             200 },
        { "If-Range:\r\n",                               200 },
        { "If-Range: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 206 },
        { "If-Range: Sunday, 06-Nov-94 08:49:37 GMT\r\n", 206 },
        { "If-Range: Sun, 06 Nov 1994 08:49:36 GMT\r\n", 200 },
        { "If-Range: Sun, 06 Nov 1994 08:49:38 GMT\r\n", 200 },
        { "If-Range: Fri, 01 Jan 2100 00:00:00 GMT\r\n", 200 },
        { "If-Range: Thu, 01 Jan 1970 00:00:00 GMT\r\n", 200 },
        { "If-Range: yesterday\r\n",                     200 },
        /* the preconditions come first, in their order */
        { "If-None-Match: %t\r\n",                       304 },
        { "If-None-Match: \"other\"\r\nIf-Range: %t\r\n", 206 },
        { "If-Match: \"other\"\r\nIf-Range: %t\r\n",     412 },
        { "If-Match: W/%t\r\n",                          412 },
        { "If-Match: \"other\"\r\nIf-None-Match: %t\r\n", 412 },
        { "If-Match: %t\r\nIf-Unmodified-Since: "
          "Thu, 01 Jan 1970 00:00:01 GMT\r\n",           206 },
        { "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:01 GMT\r\n"
          "If-None-Match: %t\r\n",                       412 },
        { "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:01 GMT\r\n"
          "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:01 GMT\r\n", 206 },
        { "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 304 },
        { "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n", 304 },
        { "If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n", 304 },
        { "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n", 206 },
        { "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
          "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 206 },
        { "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT; length=10\r\n",
          206 }
    };
    char etag[64], date[64], path[512];

    write_file(tmp_path(path, sizeof path, "www/dated.txt"), "0123456789", 10);
    set_mtime(path, 784111777);
    CHECK_INT(cl_get(c, "/dated.txt"), 200);
    snprintf(etag, sizeof etag, "%.60s", cl_header(c, "ETag") ? c->value : "-");
    CHECK_STR(cl_header(c, "Last-Modified"), "Sun, 06 Nov 1994 08:49:37 GMT");
    EACH(rows, i) {
        const char *p;
        context("%s", rows[i].field);
        cl_puts(c, "GET /dated.txt HTTP/1.1\r\nHost: a\r\nRange: "
                "bytes=2-4\r\n");
        for (p = rows[i].field; *p != 0; p++)
            if (p[0] == '%' && p[1] == 't') {
                cl_puts(c, etag);
                p++;
            } else
                cl_send(c, p, 1);
        cl_puts(c, "\r\n");
        CHECK_INT(cl_reply(c), rows[i].status);
        if (c->status < 300)
            CHECK_STR(c->body.p, c->status == 206 ? "234" : "0123456789");
        if (c->status == 304) {          /* RFC 9110 15.4.5 */
            CHECK_STR(cl_header(c, "ETag"), etag);
            CHECK(cl_header(c, "Date") != NULL);
            CHECK(cl_header(c, "Content-Type") == NULL);
        }
        if (c->closes)
            cl_close(c);
    }
    /* of now, and not later than now: RFC 9110 8.8.2.1 */
    set_mtime(path, (long long)time(NULL) + 86400);
    CHECK_INT(cl_get(c, "/dated.txt"), 200);
    CHECK(cl_header(c, "Last-Modified") != NULL);
    snprintf(date, sizeof date, "%.60s", c->value);
    CHECK(empm__date_parse(date, 0) <= (int64_t)time(NULL));
    cl_printf(c, "GET /dated.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=2-4\r\n"
              "If-Range: %s\r\n\r\n", date);
    CHECK_INT(cl_reply(c), 200);
    check_in_step(c);
    cl_close(c);
    unlink(path);
}

/* The text of an answer of several ranges of the file `text`, as RFC 9110 14.6
 * has it; `b` is its boundary. */
static void parts_text(str *s, const char *b, const char *type,
                       const char *text, long size, const empm__range *r, int n)
{
    int i;

    str_free(s);
    for (i = 0; i < n; i++)
        str_addf(s, "\r\n--%s\r\nContent-Type: %s\r\nContent-Range: bytes "
                 "%ld-%ld/%ld\r\n\r\n%.*s", b, type, (long)r[i].from,
                 (long)r[i].to - 1, size, (int)(r[i].to - r[i].from),
                 text + r[i].from);
    str_addf(s, "\r\n--%s--\r\n", b);
}

/* Several ranges are parts, in the order of asking; bounded (RFC 9110 14.2). */
LIVE(files, several_ranges)
{
    static const struct {
        const char *range;
        int         n;
        empm__range r[3];
    } rows[] = {
        { "0-0,2-3",        2, { { 0, 1 }, { 2, 4 }, { 0, 0 } } },
        { "5-6,0-1",        2, { { 5, 7 }, { 0, 2 }, { 0, 0 } } },
        { "-1,0-0",         2, { { 9, 10 }, { 0, 1 }, { 0, 0 } } },
        { "0-1, 4-5 ,8-",   3, { { 0, 2 }, { 4, 6 }, { 8, 10 } } },
        { ",0-1,,\t 4-5,",  2, { { 0, 2 }, { 4, 6 }, { 0, 0 } } },
        { "0-1,99-,4-5,-0", 2, { { 0, 2 }, { 4, 6 }, { 0, 0 } } },
        { "0-4,5-9",        2, { { 0, 5 }, { 5, 10 }, { 0, 0 } } },
        { "0-2,1-4",        2, { { 0, 3 }, { 1, 5 }, { 0, 0 } } },
        { "0-2,1-4,2-3",    0, { { 0, 0 }, { 0, 0 }, { 0, 0 } } },
        { "0-,0-",          0, { { 0, 0 }, { 0, 0 }, { 0, 0 } } },
        { "0-,-1",          0, { { 0, 0 }, { 0, 0 }, { 0, 0 } } },
        { "8-8,6-6,4-4,2-2", 0, { { 0, 0 }, { 0, 0 }, { 0, 0 } } }
    };
    fixture f;
    client c;
    str want = STR_EMPTY;
    char *big = (char *)malloc(300000), *b;
    int i;

    if (big == NULL || !files_up(&f)) {
        free(big);
        return;
    }
    cl_open(&c, &f);
    for (i = 0; i < (int)EMPM__COUNT(rows); i++) {
        context("%s", rows[i].range);
        cl_printf(&c, "GET /a.txt HTTP/1.1\r\nHost: a\r\nRange: "
                  "bytes=%s\r\n\r\n", rows[i].range);
        CHECK_INT(cl_reply(&c), rows[i].n > 0 ? 206 : 200);
        CHECK(cl_header(&c, "Content-Range") == NULL);
        CHECK(cl_header(&c, "ETag") != NULL);
        CHECK(cl_header(&c, "Content-Type") != NULL);
        if (rows[i].n > 0 &&
            CHECK(strncmp(c.value, "multipart/byteranges; boundary=",
                          31) == 0)) {
            parts_text(&want, c.value + 31, "text/plain; charset=utf-8",
                       "0123456789", 10, rows[i].r, rows[i].n);
            CHECK_STR(c.body.p, want.p);
            CHECK_INT(c.declared, want.n);
        } else
            CHECK_STR(c.body.p, "0123456789");
    }
    no_context();
    cl_puts(&c, "HEAD /a.txt HTTP/1.1\r\nHost: a\r\nRange: "
            "bytes=0-0,2-3\r\n\r\n");
    CHECK_INT(cl_reply_with(&c, 1), 200);
    CHECK_INT(c.declared, 10);

    /* long ones, of a file that is not in memory; pipelined with the next */
    pattern_fill(big, 300000, 0);
    cl_puts(&c, "GET /big.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=100-100099,"
                "200000-299999,0-9\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: "
            "a\r\n\r\n");
    CHECK_INT(cl_reply(&c), 206);
    b = strstr(c.body.p, "Content-Range: bytes 100-100099/300000\r\n\r\n");
    CHECK(b != NULL && memcmp(b + 42, big + 100, 100000) == 0);
    CHECK_INT(c.body.n, c.declared);
    for (i = (int)c.body.n; i > 0 && b != NULL; i--)
        if (memcmp(c.body.p + c.body.n - i, "bytes "
                   "200000-299999/300000\r\n\r\n", 30) == 0)
            break;
    CHECK(i > 100030 &&
          memcmp(c.body.p + c.body.n - i + 30, big + 200000, 100000) == 0);
    CHECK_INT(cl_reply(&c), 200);
    CHECK_STR(c.body.p, "0123456789");

    /* 16 small ones are parts, 17 are not; of large ones, EMPM_RANGES */
    for (i = 0; i < 4; i++) {
        const int step = i < 2 ? 200 : 4000, len = i < 2 ? 100 : 2000;
        const int n = i == 0 ? 16 : i == 1 ? 17 : EMPM_RANGES + i - 2;
        int k;
        cl_puts(&c, "GET /big.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=");
        for (k = 0; k < n; k++)
            cl_printf(&c, "%s%d-%d", k > 0 ? "," : "", k * step,
                      k * step + len - 1);
        cl_puts(&c, "\r\n\r\n");
        CHECK_INT(cl_reply(&c), i % 2 == 0 ? 206 : 200);
    }
    check_in_step(&c);
    cl_close(&c);
    free(big);
    str_free(&want);
    fx_down(&f);
}

/* The reader of Range, where sizes and positions come near their ends. */
TEST(files, ranges_near_the_limits)
{
    static const struct { const char *text; int64_t size; int n;
                          int64_t from, to; } rows[] = {
        { "bytes=0-9223372036854775806", INT64_MAX, 1, 0, INT64_MAX },
        { "bytes=0-9223372036854775807", INT64_MAX, 1, 0, INT64_MAX },
        { "bytes=9223372036854775806-",  INT64_MAX, 1, INT64_MAX - 1,
         INT64_MAX },
        { "bytes=9223372036854775807-",  INT64_MAX, -1, 0, 0 },
        { "bytes=-9223372036854775807",  INT64_MAX, 1, 0, INT64_MAX },
        { "bytes=-99999999999999999999", 10, 1, 0, 10 },
        { "bytes=99999999999999999999-5", 10, 0, 0, 0 },
        { "bytes=99999999999999999999-", 10, -1, 0, 0 },
        { "bytes=4294967296-4294967297", INT64_C(5000000000), 1,
          INT64_C(4294967296), INT64_C(4294967298) },
        { "bytes=0-,0-",                 INT64_MAX, 0, 0, 0 },
        { "bytes=0-0",                   0, -1, 0, 0 },
        { "bytes=-1",                    0, 0, 0, 0 },
        { "bytes=-0",                    0, -1, 0, 0 },
        { "bytes",                       9, 0, 0, 0 },
        { "",                            9, 0, 0, 0 }
    };
    empm__range r[EMPM_RANGES];

    EACH(rows, i) {
        context("%s of %lld", rows[i].text, (long long)rows[i].size);
        CHECK_INT(empm__range_parse_all(rows[i].text, rows[i].size, r),
                  rows[i].n);
        if (rows[i].n > 0) {
            CHECK_INT(r[0].from, rows[i].from);
            CHECK_INT(r[0].to, rows[i].to);
        }
    }
}

/* What a handler sends: with any method and status. */
static int h_any_file(empm_request *req, void *user)
{
    char path[512];
    const char *v;

    (void)user;
    if ((v = empm_query(req, "type")) != NULL)
        empm_set_header(req, "Content-Type", v);
    if ((v = empm_query(req, "coding")) != NULL)
        empm_set_header(req, "Content-Encoding", v);
    if ((v = empm_query(req, "cache")) != NULL)
        empm_set_header(req, "Cache-Control", v);
    if ((v = empm_query(req, "status")) != NULL)
        empm_status(req, (int)strtol(v, NULL, 10));
    if ((v = empm_query(req, "path")) == NULL)
        v = tmp_path(path, sizeof path, "www/a.txt");
    set_int(&shm->rc[0], empm_send_file(req, v));
    set_int(&shm->rc[1], get_int(&shm->rc[0]) == EMPM_OK &&
                             empm_query(req, "more") != NULL
                             ? empm_write(req, "more", 4) : 1);
    return get_int(&shm->rc[0]);
}

static const empm_route any_file_routes[] = {
    EMPM_ROUTE("/hello/{name}", h_hello, NULL),
    EMPM_ROUTE("/any", h_any_file, NULL),
    EMPM_FILES("/self/", "/proc/self"),
    EMPM_FILES("/proc/", "/proc"),
    EMPM_FILES("/", NULL),
    EMPM_ROUTES_END
};

/* RFC 9110 13.1.2, 13.1.3: 304 is an answer to GET and HEAD; other methods get
 * 412, and If-Modified-Since is not for them. 13.2.1: nor is any of it for an
 * answer that is no success. */
SERVED_WITH(files, conditions_of_other_methods, T_LIVE,
            fx_init(f); f->cfg.routes = any_file_routes, NULL)
{
    static const struct { const char *method, *query, *fields; int status; }
    rows[] = {
        { "GET",    "", "If-None-Match: *\r\n", 304 },
        { "HEAD",   "", "If-None-Match: *\r\n", 304 },
        { "POST",   "", "If-None-Match: *\r\n", 412 },
        { "PUT",    "", "If-None-Match: *\r\n", 412 },
        { "DELETE", "", "If-None-Match: *\r\n", 412 },
        { "PATCH",  "", "If-None-Match: *\r\n", 412 },
        { "POST",   "", "If-None-Match: \"other\"\r\n", 200 },
        { "POST",   "", "If-Match: *\r\n", 200 },
        { "POST",   "", "If-Match: \"other\"\r\n", 412 },
        { "GET",    "", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n",
          304 },
        { "POST",   "", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n",
          200 },
        { "DELETE", "", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n",
          200 },
        { "DELETE", "", "If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 "
         "GMT\r\n",
          412 },
        { "POST",   "", "Range: bytes=1-2\r\n", 200 },
        { "GET",    "?status=203", "If-None-Match: *\r\n", 304 },
        { "GET",    "?status=203", "Range: bytes=1-2\r\n", 203 },
        { "GET",    "?status=404", "If-None-Match: *\r\n", 404 },
        { "GET",    "?status=404", "If-Match: \"other\"\r\n", 404 },
        { "GET",    "?status=404", "Range: bytes=1-2\r\n", 404 },
        { "GET",    "?status=404", "Range: bytes=99-\r\n", 404 }
    };

    EACH(rows, i) {
        context("%s %s %s", rows[i].method, rows[i].query, rows[i].fields);
        cl_printf(c, "%s /any%s HTTP/1.1\r\nHost: a\r\n%s"
                  "Content-Length: 0\r\n\r\n", rows[i].method, rows[i].query,
                  rows[i].fields);
        CHECK_INT(cl_reply_with(c, rows[i].method[0] == 'H'), rows[i].status);
        if (c->status == 404) {          /* a page, not the content of a name */
            CHECK_STR(c->body.p, "0123456789");
            CHECK(cl_header(c, "ETag") == NULL);
            CHECK(cl_header(c, "Last-Modified") == NULL);
            CHECK(cl_header(c, "Accept-Ranges") == NULL);
            CHECK(cl_header(c, "Content-Type") != NULL);
        }
        check_in_step(c);
        cl_close(c);
    }

    /* a 304 keeps what the 200 would have said of caching, RFC 9110 15.4.5 */
    cl_puts(c, "GET /any?cache=max-age=60&type=a/b HTTP/1.1\r\nHost: a\r\n"
                "If-None-Match: *\r\n\r\n");
    CHECK_INT(cl_reply(c), 304);
    CHECK_STR(cl_header(c, "Cache-Control"), "max-age=60");
    CHECK(cl_header(c, "Content-Type") == NULL);
    CHECK(cl_header(c, "ETag") != NULL);

    /* parts have the handler's type; what is coded is not cut into parts */
    cl_puts(c, "GET /any?type=a/b HTTP/1.1\r\nHost: a\r\n"
                "Range: bytes=0-0,2-2\r\n\r\n");
    CHECK_INT(cl_reply(c), 206);
    CHECK(strstr(c->body.p, "\r\nContent-Type: a/b\r\n") != NULL);
    CHECK(cl_header(c, "Content-Type") != NULL &&
          strncmp(c->value, "multipart/byteranges;", 21) == 0);
    cl_puts(c, "GET /any?coding=gzip HTTP/1.1\r\nHost: a\r\n"
                "Range: bytes=0-0,2-2\r\n\r\n");
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "0123456789");
    check_in_step(c);
}

/* A file of /proc or /sys says a size of 0 or of one page, and is sent whole
 * all the same, by name and by route. */
LIVE(files, without_a_size)
{
    static const char *const names[] = {
        "/proc/version", "/proc/self/maps", "/proc/cpuinfo", "/proc/kallsyms",
        "/sys/kernel/mm/transparent_hugepage/enabled"
    };
    fixture f;
    client c;
    char line[64], text[4096];
    size_t i;

    fx_init(&f);
    f.cfg.routes = any_file_routes;
    f.cfg.limit_response_spool = 64 << 20;
    if (!fx_up(&f))
        return;
    cl_open(&c, &f);
    for (i = 0; i < EMPM__COUNT(names); i++) {
        FILE *from = fopen(names[i], "r");
        size_t n = from != NULL ? fread(text, 1, sizeof text, from) : 0;
        if (from != NULL)
            fclose(from);
        if (n == 0 || strstr(names[i], "self") != NULL)
            n = n > 0 ? 4 : 0;          /* another process: the form alone */
        context("%s", names[i]);
        snprintf(line, sizeof line, "/any?path=%s", names[i]);
        CHECK_INT(cl_get(&c, line), n > 0 ? 200 : c.status);
        CHECK(c.body.n >= n && memcmp(c.body.p, text, n > 4 ? n : 0) == 0);
        if (n > 0)
            CHECK(c.body.n > 0);
        if (strncmp(names[i], "/sys", 4) != 0) {
            CHECK(cl_header(&c, "ETag") == NULL);
            CHECK(cl_header(&c, "Accept-Ranges") == NULL);
            if (n == 4)                 /* a link: followed by openat2() only */
                continue;
            CHECK_INT(cl_get(&c, names[i]), n > 0 ? 200 : c.status);
            CHECK(c.body.n >= n && memcmp(c.body.p, text, n > 4 ? n : 0) == 0);
        }
    }
    no_context();
    CHECK_INT(cl_get(&c, "/any?path=/proc/version&type=a/b&more=1"), 200);
    CHECK_STR(cl_header(&c, "Content-Type"), "a/b");
    CHECK_INT(c.declared, c.body.n);
    CHECK_INT(get_int(&shm->rc[1]), EMPM_EMISUSE);   /* that was all */
    i = c.body.n;
    cl_puts(&c, "HEAD /proc/version HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(cl_reply_with(&c, 1), 200);
    CHECK_INT(c.declared, i);
    CHECK_INT(cl_get(&c, "/empty.txt"), 200);        /* this one is empty */
    CHECK_INT(c.declared, 0);
    CHECK(cl_header(&c, "ETag") != NULL);
    check_in_step(&c);
    /* EIO, and a line says it */
    CHECK_INT(cl_get(&c, "/self/mem"), 500);
    CHECK(fx_log_has(&f, "EMPM5016: mem: "));
    CHECK_INT(cl_get(&c, "/any?path=/proc/self/mem"), 500);
    CHECK_INT(get_int(&shm->rc[0]), EMPM_ESYS);
    cl_close(&c);
    fx_down(&f);

    /* and a limit has a name */
    fx_init(&f);
    f.cfg.routes = any_file_routes;
    f.cfg.limit_response_spool = 10;
    if (!fx_up(&f))
        return;
    cl_open(&c, &f);
    cl_get(&c, "/proc/version");
    CHECK_INT(c.complete, 0);
    CHECK(fx_log_has(&f, "LimitResponseSpool"));
    cl_close(&c);
    fx_down(&f);
}

/* The reason why a name cannot be opened decides the status. The server's own
 * trouble is never "not found", as caches may keep that. */
SERVED_FILES(files, errors_have_their_status, NULL)
{
    char path[512], target[400];

    memset(target, 'n', sizeof target);
    memcpy(target, "/", 1);
    target[300] = 0;
    CHECK_INT(get_status(f, target), 404);          /* ENAMETOOLONG */
    CHECK_INT(symlink("loop", tmp_path(path, sizeof path, "www/loop")), 0);
    CHECK_INT(get_status(f, "/loop"), 404);         /* ELOOP */
    unlink(path);
    CHECK_INT(get_status(f, "/a.txt/x/y"), 404);    /* ENOTDIR */
    CHECK_INT(get_status(f, "/link-out.txt"), 404); /* EXDEV */
    CHECK_INT(get_status(f, "/fifo"), 404);
    if (geteuid() != 0) {
        write_file(tmp_path(path, sizeof path, "www/closed.txt"), "x", 1);
        CHECK_INT(chmod(path, 0), 0);
        CHECK_INT(get_status(f, "/closed.txt"), 403);
        unlink(path);
    }
    CHECK(!fx_log_has(f, "EMPM5016"));
}

static char *etag_of(client *c, const char *target, char to[64])
{
    CHECK_INT(cl_get(c, target), 200);
    snprintf(to, 64, "%.60s", cl_header(c, "ETag") ? c->value : "-");
    return to;
}

/* The time of the content can be set, as cp -p, rsync -t and tar do; a tag that
 * is strong must change with the content all the same. */
LIVE(files, etag_of_content_with_an_old_date)
{
    static const int kinds[] = { EMPM_ETAG_ALL,
                                EMPM_ETAG_MTIME | EMPM_ETAG_SIZE,
                                 0 };
    fixture f;
    client c;
    char path[512], other[512], was[64], is[64];

    EACH(kinds, i) {
        context("FileETag of %d", kinds[i]);
        fx_init(&f);
        f.cfg.routes = file_routes;
        f.cfg.file_etag = kinds[i];
        if (!fx_up(&f))
            return;
        write_file(tmp_path(path, sizeof path, "www/image.bin"), "one", 3);
        set_mtime(path, 1);
        write_file(tmp_path(other, sizeof other, "www/image.new"), "two", 3);
        set_mtime(other, 1);
        cl_open(&c, &f);
        etag_of(&c, "/image.bin", was);
        CHECK_STR(etag_of(&c, "/image.bin", is), was);
        CHECK_INT(rename(other, path), 0);           /* another inode */
        etag_of(&c, "/image.bin", is);
        CHECK_STR(c.body.p, "two");
        CHECK_INT(strcmp(is, was) == 0, kinds[i] != EMPM_ETAG_ALL);
        memcpy(was, is, sizeof was);
        nap(20);
        write_file(path, "six", 3);                  /* the same inode */
        set_mtime(path, 1);
        etag_of(&c, "/image.bin", is);
        CHECK_STR(c.body.p, "six");
        CHECK_INT(strcmp(is, was) == 0, kinds[i] != EMPM_ETAG_ALL);
        cl_printf(&c, "GET /image.bin HTTP/1.1\r\nHost: a\r\nIf-None-Match: ,%s"
                  "\r\n\r\n", kinds[i] != 0 ? was : ",");
        CHECK_INT(cl_reply(&c), kinds[i] == EMPM_ETAG_ALL || kinds[i] == 0
                                    ? 200 : 304);
        CHECK_INT(cl_header(&c, "ETag") != NULL, kinds[i] != 0);
        CHECK(cl_header(&c, "Last-Modified") != NULL);
        check_in_step(&c);
        cl_close(&c);
        unlink(path);
        fx_down(&f);
    }
}

/* openat2() takes O_PATH beside few other flags: a kept file below a directory
 * is the same one as long as nothing has changed. */
TEST(files, kept_below_a_directory)
{
    fixture f;
    client c;
    empm__files *kept;
    empm__file *was = NULL;
    uint32_t i;

    fx_init(&f);
    f.cfg.routes = file_routes;
    f.forked = 0;
    f.cfg.processes = 0;
    if (!fx_up(&f))
        return;
    cl_open(&c, &f);
    CHECK_INT(cl_get(&c, "/sub/x.txt"), 200);
    kept = f.s->engine.files;
    pthread_mutex_lock(&kept->lock);
    for (i = 0; i < kept->n && was == NULL; i++)
        was = kept->slots[i];
    if (was != NULL)
        /* its memory is not used for another */
        __atomic_add_fetch(&was->refs, 1u, __ATOMIC_ACQ_REL);
    pthread_mutex_unlock(&kept->lock);
    CHECK(was != NULL);
    CHECK_INT(cl_get(&c, "/sub/x.txt"), 200);
    CHECK_STR(c.body.p, "sub x");
    pthread_mutex_lock(&kept->lock);
    CHECK(was != NULL && i > 0 && kept->slots[i - 1] == was);
    pthread_mutex_unlock(&kept->lock);
    empm__file_unref(was);
    cl_close(&c);
    fx_down(&f);
}

/* The table of types is in order, as its search needs. Small and capital
 * letters are the same in any locale, and the types of common sites are
 * known. */
TEST(files, types)
{
    static const char *const known[] = {
        "m3u8", "vtt", "mov", "flac", "log", "avif", "heic", "apk", "deb",
            "iso",
        "jsonl", "toml", "yaml", "yml", "md", "mjs", "wasm", "map", "woff2",
        "opus", "m4a", "aac", "webp", "jxl", "bmp", "tiff", "epub", "7z", "xz",
        "bz2", "zst", "br", "rar", "dmg", "csv", "ics", "vcf", "atom", "rss",
        "xhtml", "xsl", "ttml", "srt", "glb", "gltf", "otf", "eot", "GIF",
        "HTML", "SVG", "M3U8", "Js", "ts", "mkv", "docx"
    };

    EACH(empm__types_known, i) {
        char name[40];
        const empm__type *t = &empm__types_known[i];
        context("%s", t->ext);
        CHECK(i == 0 || strcmp(t[-1].ext, t->ext) < 0);
        CHECK(strchr(t->type, '/') != NULL &&
              strlen(t->type) <= EMPM__TYPE_MAX);
        snprintf(name, sizeof name, "a.b/c.%s", t->ext);
        CHECK_STR(empm__types_of_name(NULL, name), t->type);
    }
    EACH(known, i) {
        char name[40];
        snprintf(name, sizeof name, "x.%s", known[i]);
        context("%s", name);
        CHECK(strcmp(empm__types_of_name(NULL, name),
                     "application/octet-stream") !=
              0);
    }
    CHECK_STR(empm__types_of_name(NULL, "a.html/b"),
              "application/octet-stream");
    CHECK_STR(empm__types_of_name(NULL, "html"), "application/octet-stream");
    CHECK_STR(empm__types_of_name(NULL, "a.htmlx"), "application/octet-stream");
    CHECK_STR(empm__types_of_name(NULL, "a.ht"), "application/octet-stream");
    CHECK_STR(empm__types_of_name(NULL, "a."), "application/octet-stream");
    CHECK_STR(empm__types_of_name(NULL, ""), "application/octet-stream");
    CHECK_STR(empm__types_of_name(NULL, "a.\xc4\xb0"),
              "application/octet-stream");
}

/* AddType, in Apache's words, goes before the table; the last one counts. */
LIVE(files, types_of_ones_own)
{
    static const char *const bad[] = {
        "video/x-matroska", "matroska .mkv", "video/x\x01 .mkv", "\"a/b .mkv",
        "a/b .", "a/b \"\"", "a/b tar.gz", "a/b x/y", ".mkv video/x-matroska",
        "a/12345678901234567890123456789012345678901234567890123456789012345678"
        "90123456789012345678901234567890123456789012345678901234567890 .x"
    };
    fixture f;
    client c;
    char path[512];

    fx_init(&f);
    f.cfg.routes = file_routes;
    f.cfg.add_type[0] = "text/x-first .unknown";
    f.cfg.add_type[1] = "video/x-matroska .MKV mk3d\t.unknown";
    f.cfg.add_type[2] = "\"text/css; charset=latin1\" .css";
    if (!fx_up(&f))
        return;
    write_file(tmp_path(path, sizeof path, "www/film.Mkv"), "film", 4);
    cl_open(&c, &f);
    CHECK_INT(cl_get(&c, "/film.Mkv"), 200);
    CHECK_STR(cl_header(&c, "Content-Type"), "video/x-matroska");
    CHECK_INT(cl_get(&c, "/g.unknown"), 200);
    CHECK_STR(cl_header(&c, "Content-Type"), "video/x-matroska");
    CHECK_INT(cl_get(&c, "/b.css"), 200);
    CHECK_STR(cl_header(&c, "Content-Type"), "text/css; charset=latin1");
    CHECK_INT(cl_get(&c, "/c.js"), 200);
    CHECK_STR(cl_header(&c, "Content-Type"), "text/javascript; charset=utf-8");
    cl_close(&c);
    unlink(path);
    fx_down(&f);

    EACH(bad, i) {
        empm_config cfg = empm_defaults();
        empm__report rep = hearing();
        context("AddType %s", bad[i]);
        cfg.routes = file_routes;
        cfg.document_root = cfg.spool_directory = g_tmp;
        cfg.add_type[0] = "a/b .c";
        cfg.add_type[1] = bad[i];
        CHECK(empm__check_all(&cfg, NULL, &rep) != EMPM_OK);
        CHECK_INT(heard(EMPM_LOG_ERROR, 5115), 1);
    }
}

/* empm_send_file() sends a regular file with ranges, and refuses all else
 * without waiting for it. */
SERVED(files, send_file_from_a_handler, NULL)
{
    CHECK_INT(cl_get(c, "/file/a.txt"), 200);
    CHECK_STR(c->body.p, "0123456789");
    CHECK_INT(cl_get(c, "/file/empty.txt"), 200);
    CHECK_INT(c->declared, 0);
    CHECK_INT(cl_get(c, "/file/big.bin"), 200);
    CHECK_INT(pattern_fault(c->body.p, c->body.n, 0), -1);
    cl_puts(c, "GET /file/a.txt HTTP/1.1\r\nHost: a\r\nRange: "
            "bytes=2-3\r\n\r\n");
    CHECK_INT(cl_reply(c), 206);
    CHECK_STR(c->body.p, "23");
    CHECK_INT(cl_get(c, "/file/nothing"), 404);
    CHECK_INT(get_int(&shm->rc[0]), EMPM_EINVAL);
    CHECK_INT(cl_get(c, "/file/sub"), 404);        /* no regular file */
    CHECK_INT(get_int(&shm->rc[0]), EMPM_EINVAL);
    /* and never waits for one */
    CHECK_INT(cl_get(c, "/file/fifo"), 404);
    check_in_step(c);
}

/* A file that shrinks while it is sent ends the connection, so that the client
 * sees the loss. */
LIVE(files, truncated_while_it_is_sent)
{
    fixture f;
    client c;
    char path[512], *big = (char *)calloc(1, 8000000);

    if (big == NULL || !files_up(&f)) {
        free(big);
        return;
    }
    write_file(tmp_path(path, sizeof path, "www/shrinks.bin"), big, 8000000);
    free(big);
    cl_connect_port(&c, f.port, 16384);
    cl_puts(&c, "GET /shrinks.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(cl_readable(&c, PATIENCE));
    CHECK_INT(truncate(path, 1000), 0);
    CHECK_INT(cl_reply(&c), 200);
    CHECK_INT(c.complete, 0);
    CHECK(c.end != 0);
    cl_close(&c);
    CHECK_INT(get_status(&f, "/a.txt"), 200);
    unlink(path);
    fx_down(&f);
}

/* A kept file is never served in an old state, whatever happens to its name. */
LIVE(files, kept_and_changed)
{
    fixture f;
    client c;
    char path[512], other[512], *big = (char *)malloc(300000);
    int i;

    if (big == NULL || !files_up(&f)) {
        free(big);
        return;
    }
    tmp_path(path, sizeof path, "www/kept.txt");
    tmp_path(other, sizeof other, "www/kept.new");
    write_file(path, "one", 3);
    cl_open(&c, &f);
    for (i = 0; i < 3; i++) {
        CHECK_INT(cl_get(&c, "/kept.txt"), 200);
        CHECK_STR(c.body.p, "one");
    }
    write_file(path, "two", 3);                     /* in place, same size */
    CHECK_INT(cl_get(&c, "/kept.txt"), 200);
    CHECK_STR(c.body.p, "two");
    write_file(other, "six", 3);                    /* renamed over it */
    CHECK_INT(rename(other, path), 0);
    CHECK_INT(cl_get(&c, "/kept.txt"), 200);
    CHECK_STR(c.body.p, "six");
    write_file(path, "longer", 6);
    CHECK_INT(cl_get(&c, "/kept.txt"), 200);
    CHECK_STR(c.body.p, "longer");
    cl_puts(&c, "GET /kept.txt HTTP/1.1\r\nHost: a\r\nRange: "
            "bytes=1-3\r\n\r\n");
    CHECK_INT(cl_reply(&c), 206);
    CHECK_STR(c.body.p, "ong");
    cl_puts(&c, "HEAD /kept.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(cl_reply_with(&c, 1), 200);
    CHECK_INT(c.declared, 6);
    /* now it is sent from its fd */
    pattern_fill(big, 300000, 7);
    write_file(path, big, 300000);
    for (i = 0; i < 3; i++) {
        CHECK_INT(cl_get(&c, "/kept.txt"), 200);
        CHECK_INT(pattern_fault(c.body.p, c.body.n, 7), -1);
    }
    pattern_fill(big, 300000, 9);
    write_file(other, big, 300000);
    CHECK_INT(rename(other, path), 0);
    CHECK_INT(cl_get(&c, "/kept.txt"), 200);
    CHECK_INT(pattern_fault(c.body.p, c.body.n, 9), -1);
    CHECK_INT(unlink(path), 0);
    CHECK_INT(cl_get(&c, "/kept.txt"), 404);
    CHECK_INT(mkdir(path, 0755), 0);
    CHECK_INT(cl_get(&c, "/kept.txt"), 301);
    CHECK_INT(rmdir(path), 0);
    check_in_step(&c);
    cl_close(&c);
    free(big);
    fx_down(&f);
}

/* A file of which less can be read than its size says has a head all the
 * same. */
LIVE(files, shorter_than_its_size)
{
    static const char name[] = "/sys/kernel/mm/transparent_hugepage/enabled";
    static const empm_route routes[] = {
        EMPM_FILES("GET /sys/", "/sys"), EMPM_ROUTES_END
    };
    fixture f;
    client c;

    if (access(name, R_OK) != 0)
        return;
    fx_init(&f);
    f.cfg.routes = routes;
    if (!fx_up(&f))
        return;
    cl_open(&c, &f);
    CHECK_INT(cl_get(&c, name), 200);
    CHECK(strstr(c.body.p, "never") != NULL);
    CHECK_INT(cl_get(&c, name), 200);
    cl_close(&c);
    fx_down(&f);
}

/* A kept file is out of reach as soon as its directory is, though its inode
 * and all its times stay the same. */
SERVED_FILES(files, kept_and_moved_out, NULL)
{
    char dir[512], out[512], file[512];

    tmp_path(dir, sizeof dir, "www/moves");
    tmp_path(out, sizeof out, "moved-out");
    CHECK_INT(mkdir(dir, 0755), 0);
    write_file(tmp_path(file, sizeof file, "www/moves/a.txt"), "secret", 6);
    CHECK_INT(cl_get(c, "/moves/a.txt"), 200);
    CHECK_INT(cl_get(c, "/moves/a.txt"), 200);
    CHECK_INT(rename(dir, out), 0);
    CHECK_INT(cl_get(c, "/moves/a.txt"), 404);
    CHECK_INT(symlink(out, dir), 0);
    CHECK_INT(cl_get(c, "/moves/a.txt"), 404);
    CHECK_INT(unlink(dir), 0);
    CHECK_INT(rename(out, dir), 0);
    CHECK_INT(cl_get(c, "/moves/a.txt"), 200);
    CHECK_INT(unlink(file), 0);
    CHECK_INT(rmdir(dir), 0);
}

/* A folder that is not there is warned of, and is 404: the rest is served.
 * Where there is no file, the route's own handler answers, and nowhere else. */
LIVE(files, missing_root_and_else)
{
    static const empm_route routes[] = {
        EMPM_ROUTE("GET /hello/{name}", h_hello, NULL),
        EMPM_FILES("GET /none/", "./no-such-folder"),
        EMPM_FILES_ELSE("GET /or/", "./no-such-folder", h_hello, NULL),
        EMPM_FILES_ELSE("GET /", NULL, h_hello, NULL),
        EMPM_ROUTES_END
    };
    fixture f;
    client c;

    fx_init(&f);
    f.cfg.routes = routes;
    if (!fx_up(&f))
        return;
    CHECK_SOON(fx_log_has(&f, "EMPM0112: GET /none/: the folder "
                              "./no-such-folder: No such file"), 1000);
    cl_open(&c, &f);
    CHECK_INT(cl_get(&c, "/none/"), 404);
    CHECK_INT(cl_get(&c, "/none/a.txt"), 404);
    CHECK_INT(cl_get(&c, "/or/a.txt"), 200);
    CHECK_STR(c.body.p, "Hello, world!\n");
    CHECK_INT(cl_get(&c, "/"), 200);             /* an index.html wins */
    CHECK(strstr(c.body.p, "<p>index") == c.body.p);
    CHECK_INT(cl_get(&c, "/sub"), 301);
    CHECK_INT(cl_get(&c, "/nothing.txt"), 200);
    CHECK_STR(c.body.p, "Hello, world!\n");
    CHECK_INT(cl_get(&c, "/bare/"), 200);
    CHECK_STR(c.body.p, "Hello, world!\n");
    check_in_step(&c);
    cl_close(&c);
    fx_down(&f);
}

/* A kept file that nobody asks for any more is closed without a request. */
TEST(files, kept_are_closed_at_rest)
{
    fixture f;
    client c;
    int fds;

    fx_init(&f);
    f.cfg.routes = file_routes;
    f.cfg.keep_alive_timeout_ms = 60000;
    if (!fx_up(&f))
        return;
    cl_open(&c, &f);
    CHECK_INT(cl_get(&c, "/hello"), 200);
    fds = open_fds();
    CHECK_INT(cl_get(&c, "/big.bin"), 200);
    CHECK_INT(open_fds(), fds + 1);
    CHECK_INT(cl_get(&c, "/big.bin"), 200);
    CHECK_INT(open_fds(), fds + 1);
    CHECK_INT(cl_get(&c, "/a.txt"), 200);           /* is kept in memory */
    CHECK_INT(open_fds(), fds + 1);
    CHECK_SOON(open_fds() == fds, 2000);
    cl_close(&c);
    fx_down(&f);

    fx_init(&f);
    f.cfg.routes = file_routes;
    f.cfg.open_file_cache = 0;
    if (!fx_up(&f))
        return;
    cl_open(&c, &f);
    CHECK_INT(cl_get(&c, "/big.bin"), 200);
    CHECK_INT(cl_get(&c, "/big.bin"), 200);
    CHECK_INT(pattern_fault(c.body.p, c.body.n, 0), -1);
    cl_close(&c);
    fx_down(&f);
}

/* ---------------------------------------------------------------------------
 * >>fastcgi -- a back end of the test's own, and PHP-FPM where it is installed
 *
 * The back end is a thread of the test: it reads a request to its end and
 * answers with the row whose number is the query. A row is text; a letter and
 * a colon at the beginning of each piece say what record it is.
 * ------------------------------------------------------------------------- */

#ifndef EVENTMPM_NO_FASTCGI

/* One record, padded as `pad` says. */
static void fcgi_record(str *to, int type, const void *data, size_t n, int pad)
{
    unsigned char head[8] = { 0 };

    empm__fcgi_head_write(head, (enum empm__fcgi_type)type, n);
    head[6] = (unsigned char)pad;
    str_add(to, head, 8);
    str_add(to, data, n);
    str_add(to, "paddingpadding", (size_t)pad);
}

static void fcgi_end_record(str *to, int protocol)
{
    char end[8] = { 0 };

    end[4] = (char)protocol;
    fcgi_record(to, EMPM__FCGI_END, end, 8, 0);
}

/* Pieces are the same, wherever the stream is cut and whatever the padding. */
TEST(fastcgi, records_are_read_however_they_are_cut)
{
    str s = { 0 }, out = { 0 }, err = { 0 };
    size_t step;

    fcgi_record(&s, EMPM__FCGI_STDOUT, "abc", 3, 5);
    fcgi_record(&s, EMPM__FCGI_STDERR, "oh\n", 3, 0);
    fcgi_record(&s, EMPM__FCGI_STDOUT, "", 0, 8);
    fcgi_record(&s, EMPM__FCGI_STDOUT, "defgh", 5, 3);
    fcgi_end_record(&s, 0);
    for (step = 1; step <= s.n; step++) {
        empm__fcgi_reader r;
        size_t from = 0;
        int type = EMPM__MORE;

        memset(&r, 0, sizeof r);
        out.n = err.n = 0;
        while (from < s.n && type != EMPM__FCGI_END) {
            const char *at = s.p + from, *piece, *why;
            const char *end = at + (s.n - from < step ? s.n - from : step);
            size_t n;

            while ((type = empm__fcgi_read(&r, &at, end, &piece, &n, &why)) ==
                       EMPM__FCGI_STDOUT || type == EMPM__FCGI_STDERR)
                str_add(type == EMPM__FCGI_STDOUT ? &out : &err, piece, n);
            if (type == EMPM__FCGI_BAD)
                break;
            from += step;
        }
        CHECK_INT(type, EMPM__FCGI_END);
        CHECK(out.n == 8 && memcmp(out.p, "abcdefgh", 8) == 0);
        CHECK(err.n == 3 && memcmp(err.p, "oh\n", 3) == 0);
    }
    str_free(&s);
    str_free(&out);
    str_free(&err);
}

/* A stream that is no FastCGI, or has no end, is refused. */
TEST(fastcgi, streams_that_are_none_are_refused)
{
    static const struct { const char *bytes; int n; } rows[] = {
        { "HTTP/1.1 200 OK\r\n\r\n", 19 },       /* another protocol */
        { "\2\6\0\1\0\1\0\0x", 9 },              /* another version */
        { "\1\4\0\1\0\1\0\0x", 9 },              /* PARAMS are ours to send */
        { "\1\13\0\0\0\0\0\0", 8 },              /* UNKNOWN_TYPE */
        { "\1\6\0\2\0\1\0\0x", 9 },              /* another request */
        { "\1\3\0\1\0\4\0\0\0\0\0\0", 12 },      /* a short END_REQUEST */
    };
    empm__fcgi_reader r;
    const char *at, *piece, *why = NULL;
    str s = { 0 };
    size_t n;
    int i, type;

    EACH(rows, k) {
        memset(&r, 0, sizeof r);
        at = rows[k].bytes;
        CHECK_INT(empm__fcgi_read(&r, &at, rows[k].bytes + rows[k].n, &piece,
                                  &n, &why), EMPM__FCGI_BAD);
        CHECK(why != NULL);
    }
    for (i = 0; i < 1100; i++)
        fcgi_record(&s, EMPM__FCGI_STDOUT, "", 0, 0);
    memset(&r, 0, sizeof r);
    at = s.p;
    type = empm__fcgi_read(&r, &at, s.p + s.n, &piece, &n, &why);
    CHECK_INT(type, EMPM__FCGI_BAD);
    CHECK_INT((int)(at - s.p) / 8, 1001);
    str_free(&s);
}

/* No pair is split between two records; one that fits none is told; and a
 * writer without room counts what it needs. */
TEST(fastcgi, pairs_are_not_split_between_records)
{
    static const size_t sizes[] = { 0, 1, 127, 128, 300, 30000, 35510, 35511,
                                    35512, 60000, 65000 };
    static char big[70000], to[400000];
    empm__fcgi_writer w;
    size_t i, at, all, pairs = 0;

    memset(big, 'v', sizeof big);
    empm__fcgi_begin(&w, to, sizeof to, 0);
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++)
        empm__fcgi_param_n(&w, "NAME", big, sizes[i]);
    all = empm__fcgi_end(&w);
    for (at = 16; at + 8 <= all;) {              /* BEGIN_REQUEST is 16 bytes */
        const unsigned char *p = (unsigned char *)to + at;
        const size_t n = (size_t)p[4] << 8 | p[5], end = at + 8 + n;

        CHECK_INT(p[1], EMPM__FCGI_PARAMS);
        for (at += 8; at < end; pairs++) {
            size_t len[2];
            int k;

            for (k = 0; k < 2; k++) {
                p = (unsigned char *)to + at;
                len[k] = p[0] < 128 ? p[0]
                         : (size_t)(p[0] & 127) << 24 | (size_t)p[1] << 16 |
                           (size_t)p[2] << 8 | p[3];
                at += p[0] < 128 ? 1 : 4;
            }
            CHECK_INT((int)len[0], 4);
            CHECK_INT((int)len[1], (int)sizes[pairs]);
            at += len[0] + len[1];
        }
        CHECK_INT((int)at, (int)end);
        if (n == 0)
            break;
    }
    CHECK_INT((int)pairs, (int)(sizeof sizes / sizeof *sizes));
    CHECK_INT((int)(at), (int)all);
    empm__fcgi_begin(&w, NULL, 0, 0);
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++)
        empm__fcgi_param_n(&w, "NAME", big, sizes[i]);
    CHECK_INT((int)empm__fcgi_end(&w), (int)all);
    empm__fcgi_begin(&w, to, sizeof to, 0);
    empm__fcgi_param_n(&w, "NAME", big, 65535);
    CHECK_INT((int)empm__fcgi_end(&w), 0);
}

/* A body goes on at any byte as it would have gone on there: heads, content and
 * the record that ends it. */
TEST(fastcgi, a_body_goes_on_at_any_byte)
{
    static const int sizes[] = { 0, 1, 65527, 65528, 65529, 131056, 200000 };
    static char body[200000];
    size_t i;

    for (i = 0; i < sizeof body; i++)
        body[i] = (char)(i * 7);
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t len = sizes[i], all = empm__fcgi_body_bytes(len);
        str want = { 0 };
        int64_t at;

        for (at = 0; at < len; at += 65528)
            fcgi_record(&want, EMPM__FCGI_STDIN, body + at,
                        (size_t)(len - at < 65528 ? len - at : 65528), 0);
        fcgi_record(&want, EMPM__FCGI_STDIN, "", 0, 0);
        CHECK_INT((int)want.n, (int)all);
        for (at = 0; at < all; at += at % 65536 < 12 ? 1 : 997) {
            struct iovec v[EMPM__FCGI_IOV];
            unsigned char heads[EMPM__FCGI_IOV / 2][EMPM__FCGI_HEAD];
            int k, n = empm__fcgi_body_gather(body, len, at, v, heads);
            int64_t from = at;

            CHECK(n > 0);
            for (k = 0; k < n; k++) {
                CHECK(memcmp(want.p + from, v[k].iov_base, v[k].iov_len) == 0);
                from += (int64_t)v[k].iov_len;
            }
            CHECK_INT((int)from, (int)all);
        }
        str_free(&want);
    }
}

/* --- a back end ----------------------------------------------------------- */

enum { FB_STREAM, FB_EARLY, FB_CLOSE, FB_HANG, FB_ECHO };

typedef struct fb_row {
    int         how;                /* FB_* */
    const char *say;                /* FB_STREAM: pieces "o:...", "e:...", with
                                       '|' between them; "$" ends the request,
                                       "$N": with a status, "!" closes */
    int         cut;                /* bytes of a write; 0: all */
} fb_row;

typedef struct fb {                 /* the back end */
    char          path[300];
    int           fd;
    pthread_t     thread;
    const fb_row *rows;
    int           conns, stop;      /* atomic */
    int           reads_slowly;
} fb;

/* Reads the records of one request: its parameters as lines, and its body. */
static int fb_read(int fd, str *params, str *body)
{
    unsigned char head[8];

    for (;;) {
        static __thread char data[65536];
        size_t n, got = 0;
        ssize_t r;

        if (recv(fd, head, 8, MSG_WAITALL) != 8)
            return -1;
        n = ((size_t)head[4] << 8 | head[5]) + head[6];
        while (got < n && (r = recv(fd, data + got, n - got, 0)) > 0)
            got += (size_t)r;
        if (got < n)
            return -1;
        n -= head[6];
        if (head[1] == EMPM__FCGI_STDIN && n == 0)
            return 0;
        if (head[1] == EMPM__FCGI_STDIN)
            str_add(body, data, n);
        if (head[1] == EMPM__FCGI_PARAMS) {
            const unsigned char *p = (unsigned char *)data, *end = p + n;

            while (p < end) {
                size_t len[2];
                int k;

                for (k = 0; k < 2; k++) {
                    len[k] = *p < 128 ? *p
                             : (size_t)(p[0] & 127) << 24 |
                               (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
                    p += *p < 128 ? 1 : 4;
                }
                str_add(params, p, len[0]);
                str_add(params, "=", 1);
                str_add(params, p + len[0], len[1]);
                str_add(params, "\n", 1);
                p += len[0] + len[1];
            }
        }
    }
}

static int fb_write(int fd, const char *p, size_t n, int cut)
{
    while (n > 0) {
        const size_t some = cut > 0 && (size_t)cut < n ? (size_t)cut : n;
        const ssize_t r = send(fd, p, some, MSG_NOSIGNAL);

        if (r < 0)
            return -1;
        p += r;
        n -= (size_t)r;
    }
    return 0;
}

/* The records of a row's text. Returns 1 if the connection closes early. */
static int fb_stream(str *to, const char *say)
{
    for (;;) {
        const size_t n = strcspn(say, "|");

        if (*say == '!')
            return 1;
        if (*say == '$')
            fcgi_end_record(to, atoi(say + 1));
        else if (n >= 2)
            fcgi_record(to, *say == 'e' ? EMPM__FCGI_STDERR : EMPM__FCGI_STDOUT,
                        say + 2, n - 2, 3);
        if (say[n] == '\0')
            return 0;
        say += n + 1;
    }
}

static void *fb_run(void *arg)
{
    fb *b = (fb *)arg;

    while (!get_int(&b->stop)) {
        struct pollfd p;
        str params = { 0 }, body = { 0 }, out = { 0 };
        const fb_row *row = NULL;
        const char *q;
        char one;
        int fd;

        p.fd = b->fd;
        p.events = POLLIN;
        if (poll(&p, 1, 20) <= 0 || (fd = accept(b->fd, NULL, NULL)) < 0)
            continue;
        add_int(&b->conns, 1);
        if (b->rows[0].how == FB_CLOSE) {
            close(fd);
            continue;
        }
        if (b->rows[0].how == FB_EARLY) {
            fb_stream(&out, b->rows[0].say);
            fb_write(fd, out.p, out.n, 0);
            close(fd);
            str_free(&out);
            continue;
        }
        if (fb_read(fd, &params, &body) == 0) {
            str_add(&params, "", 1);
            q = strstr(params.p, "QUERY_STRING=");
            row = &b->rows[q != NULL ? atoi(q + 13) : 0];
            if (row->how == FB_ECHO) {
                str_addf(&out, "Content-Type: text/plain\r\n\r\n");
                str_add(&out, params.p, params.n - 1);
                str_addf(&out, "BODY=");
                str_add(&out, body.p, body.n);
                params.n = 0;
                fcgi_record(&params, EMPM__FCGI_STDOUT, out.p, out.n, 0);
                fcgi_end_record(&params, 0);
                fb_write(fd, params.p, params.n, 0);
            } else if (row->how == FB_STREAM) {
                const int early = fb_stream(&out, row->say);
                fb_write(fd, out.p, out.n, row->cut);
                if (early) {
                    close(fd);
                    fd = -1;
                }
            }
        }
        /* as PHP-FPM: nobody else before the other side has closed */
        while (fd >= 0 && !get_int(&b->stop)) {
            p.fd = fd;
            if (poll(&p, 1, 20) > 0 && recv(fd, &one, 1, 0) <= 0)
                break;
        }
        if (fd >= 0)
            close(fd);
        str_free(&params);
        str_free(&body);
        str_free(&out);
    }
    return NULL;
}

static void fb_up(fb *b, const char *name, const fb_row *rows)
{
    struct sockaddr_un a;

    memset(b, 0, sizeof *b);
    memset(&a, 0, sizeof a);
    b->rows = rows;
    tmp_path(b->path, sizeof b->path, name);
    unlink(b->path);
    a.sun_family = AF_UNIX;
    snprintf(a.sun_path, sizeof a.sun_path, "%s", b->path);
    b->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(b->fd, (struct sockaddr *)&a, sizeof a) < 0 ||
        listen(b->fd, 64) < 0)
        abort();
    pthread_create(&b->thread, NULL, fb_run, b);
}

static void fb_down(fb *b)
{
    add_int(&b->stop, 1);
    pthread_join(b->thread, NULL);
    close(b->fd);
    unlink(b->path);
}

static char fb_address[2][320];      /* "unix:" and the path */

static const empm_route fb_routes[] = {
    EMPM_FASTCGI("/app/", fb_address[0]),
    EMPM_FASTCGI("/two/", fb_address[1]),
    EMPM_PHP("/php/", NULL, fb_address[0]),
    EMPM_FILES("/", NULL), EMPM_ROUTES_END
};

static fb fb_one, fb_two;

/* Two back ends, and a server that asks them. */
static void fb_init(fixture *f, const fb_row *one, const fb_row *two)
{
    fb_up(&fb_one, "fb1", one);
    fb_up(&fb_two, "fb2", two);
    snprintf(fb_address[0], sizeof fb_address[0], "unix:%s", fb_one.path);
    snprintf(fb_address[1], sizeof fb_address[1], "unix:%s unix:%s",
             fb_one.path, fb_two.path);
    fx_init(f);
    f->cfg.routes = fb_routes;
}

static void fb_end(fixture *f)
{
    fx_down(f);
    fb_down(&fb_one);
    fb_down(&fb_two);
}

static const fb_row fb_echo[] = { { FB_ECHO, NULL, 0 } };

/* The answer of a CGI program becomes an HTTP answer by the rules of RFC 3875
 * 6; where it contradicts itself the client gets 502, never half an answer. */
LIVE(fastcgi, answers)
{
    static const struct { fb_row row; int status; const char *body, *field; }
        rows[] = {
        { { FB_STREAM, "o:Content-Type: text/x\r\n\r\nhello|$", 0 },
          200, "hello", "Content-Type: text/x" },
        { { FB_STREAM, "o:Content-Type: a/b\n\nlf|$", 0 }, 200, "lf", NULL },
        { { FB_STREAM, "o:Content-Type: a/b\r|o:\n\r|o:\nin |o:pieces|$", 0 },
          200, "in pieces", NULL },
        { { FB_STREAM, "o:Content-Type: a/b\r\n\r\nbytewise|$", 1 },
          200, "bytewise", NULL },
        { { FB_STREAM, "e:before\n|o:A: b\r|e:within\n|o:\n\r\nx|e:after|$",
            7 }, 200, "x", "A: b" },
        { { FB_STREAM, "o:Status: 404 Nobody\r\n\r\nno|$", 0 }, 404, "no",
          NULL },
        { { FB_STREAM, "o:HTTP/1.1 418 Teapot\r\nA: b\r\n\r\n|$", 0 }, 418, "",
          "A: b" },
        { { FB_STREAM, "o:Location: /else\r\n\r\n|$", 0 }, 302, "",
          "Location: /else" },
        { { FB_STREAM, "o:Set-Cookie: a=1\nSet-Cookie: b=2\n\n|$", 0 }, 200, "",
          "Set-Cookie: b=2" },
        { { FB_STREAM, "o:Status: 204 x\r\n\r\ndropped|$", 0 }, 204, "", NULL },
        { { FB_STREAM, "o:Content-Length: 5\r\n\r\nhello and more|$", 0 },
          200, "hello", "Content-Length: 5" },
        { { FB_STREAM, "o:Transfer-Encoding: chunked\nServer: evil\n"
                       "X-Sendfile: /etc/passwd\nX-Accel-Redirect: /x\n\n"
                       "body|$", 0 }, 200, "body", NULL },
        { { FB_STREAM, "o:A: b\n\n|o:|o:last|o:|$", 0 }, 200, "last", NULL },
        /* an end that is none, but the length says that it is all */
        { { FB_STREAM, "o:Content-Length: 2\r\n\r\nok|!", 0 }, 200, "ok",
          NULL },
        { { FB_STREAM, "o:Content-Length: 50\r\n\r\nshort|$", 0 }, 502, NULL,
          NULL },
        { { FB_STREAM, "o:Content-Type: a/b\r\n\r\nno end|!", 0 }, 502, NULL,
          NULL },
        { { FB_STREAM, "o:Content-Type: a/b\r\n|$", 0 }, 502, NULL, NULL },
        { { FB_STREAM, "o:Content-Type: a/b\r\n|!", 0 }, 502, NULL, NULL },
        { { FB_STREAM, "$", 0 }, 502, NULL, NULL },
        { { FB_STREAM, "$3", 0 }, 502, NULL, NULL },
        { { FB_STREAM, "$2", 0 }, 503, NULL, "Retry-After: 1" },
        { { FB_STREAM, "o:no colon\r\n\r\n|$", 0 }, 502, NULL, NULL },
        { { FB_STREAM, "o:: no name\r\n\r\n|$", 0 }, 502, NULL, NULL },
        { { FB_STREAM, "o:bad name: x\r\n\r\n|$", 0 }, 502, NULL, NULL },
        { { FB_STREAM, "o:A: cr\rlf\n\n|$", 0 }, 502, NULL, NULL },
        { { FB_STREAM, "o:Status: abc\r\n\r\n|$", 0 }, 502, NULL, NULL },
        { { FB_STREAM, "o:Status: 99\r\n\r\n|$", 0 }, 502, NULL, NULL },
        { { FB_STREAM, "o:Content-Length: -1\n\n|$", 0 }, 502, NULL, NULL },
        { { FB_STREAM, "o:Content-Length: 1\nContent-Length: 2\n\nx|$", 0 },
          502, NULL, NULL },
        { { FB_STREAM, "o:Content-Type: a/b\nContent-Type: c/d\n\nx|$", 0 },
          502, NULL, NULL },
        { { FB_STREAM, "o:Content-Type: a/b\nContent-Type: a/b\n\nx|$", 0 },
          200, "x", NULL },
    };
    static fb_row plan[sizeof rows / sizeof *rows];
    fixture f;
    client c;
    size_t n;

    EACH(rows, i)
        plan[i] = rows[i].row;
    fb_init(&f, plan, fb_echo);
    if (!fx_up(&f))
        return;
    cl_init(&c);
    c.port = f.port;
    EACH(rows, i) {
        const char *field = rows[i].field;
        char target[64], name[32];
        int k, found = 0;

        snprintf(target, sizeof target, "/app/x?%d", (int)i);
        CHECK_INT(cl_get(&c, target), rows[i].status);
        if (rows[i].body != NULL)
            CHECK_STR(c.body.n > 0 ? c.body.p : "", rows[i].body);
        CHECK(cl_header(&c, "X-Sendfile") == NULL);
        CHECK(cl_header(&c, "X-Accel-Redirect") == NULL);
        if (field != NULL) {
            n = strcspn(field, ":");
            snprintf(name, sizeof name, "%.*s", (int)n, field);
            for (k = 0; k < 5 && !found; k++) {
                const char *v = cl_header_nth(&c, name, k);
                found = v != NULL && strcmp(v, field + n + 2) == 0;
            }
            CHECK(found);
        }
    }
    CHECK(fx_log_has(&f, "says: before"));
    CHECK(fx_log_has(&f, "says: within"));
    CHECK(fx_log_has(&f, "says: after"));
    CHECK(fx_log_has(&f, "sends less than its Content-Length"));
    cl_close(&c);
    fb_end(&f);
}

/* Is the line there, whole? */
static int fb_has(const client *c, const char *line)
{
    const size_t n = strlen(line);
    const char *p = c->body.p;

    for (; p != NULL && *p != '\0'; p = strchr(p, '\n')) {
        p += *p == '\n';
        if (strncmp(p, line, n) == 0 && p[n] == '\n')
            return 1;
    }
    return 0;
}

/* A program sees the variables of RFC 3875 4.1, each once; two fields of one
 * name are one variable; what could be taken for another field, or for a
 * program's setting, is not passed on. */
LIVE(fastcgi, variables)
{
    static const char *const has[] = {
        "GATEWAY_INTERFACE=CGI/1.1", "SERVER_PROTOCOL=HTTP/1.1",
        "REQUEST_METHOD=POST", "REDIRECT_STATUS=200", "SCRIPT_NAME=/app",
        "PATH_INFO=/a b/c/d", "REQUEST_URI=/app/a%20b/./c/d?0&q=%20",
        "QUERY_STRING=0&q=%20", "SERVER_NAME=example.org",
        "REMOTE_ADDR=127.0.0.1", "REQUEST_SCHEME=http", "CONTENT_LENGTH=4",
        "CONTENT_TYPE=text/odd", "HTTP_HOST=example.org:99",
        "HTTP_X_ONE=a, b", "HTTP_COOKIE=a=1; b=2", "HTTP_AUTHORIZATION=Basic x"
    };
    static const char *const lacks[] = {
        "HTTP_PROXY=", "HTTP_X_TWO=", "HTTP_CONTENT_LENGTH=",
        "HTTP_CONTENT_TYPE=", "HTTP_CONNECTION=", "HTTP_X_HOP=", "HTTPS=",
        "HTTP_TE=", "HTTP_TRANSFER_ENCODING=", "HTTP_X_DOT="
    };
    fixture f;
    client c;

    fb_init(&f, fb_echo, fb_echo);
    if (!fx_up(&f))
        return;
    cl_init(&c);
    c.port = f.port;
    CHECK_INT(cl_ask(&c, "POST /app/a%20b/./c/d?0&q=%20 HTTP/1.1\r\n"
                     "Host: example.org:99\r\nContent-Type: text/odd\r\n"
                     "X-One: a\r\nCookie: a=1\r\nX_Two: spoofed\r\n"
                     "Proxy: http://evil/\r\nX-One: b\r\nCookie: b=2\r\n"
                     "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\n"
                     "X.Dot: 1\r\nTE: trailers\r\nAuthorization: Basic x\r\n"
                     "Transfer-Encoding: chunked\r\n\r\n"
                     "2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"), 200);
    EACH(has, i)
        if (!fb_has(&c, has[i]))
            CHECK_STR(has[i], "a variable that is there");
    EACH(lacks, i)
        if (c.body.p != NULL && strstr(c.body.p, lacks[i]) != NULL)
            CHECK_STR(lacks[i], "no variable");
    CHECK(c.body.p != NULL && strstr(c.body.p, "BODY=abcd") != NULL);
    CHECK_INT(cl_get(&c, "/app/"), 200);
    CHECK(fb_has(&c, "PATH_INFO=/"));
    CHECK(c.body.p != NULL && strstr(c.body.p, "CONTENT_LENGTH=") == NULL);
    /* a POST without a body has a length, or the back end waits for it */
    CHECK_INT(cl_ask(&c, "POST /app/ HTTP/1.1\r\nHost: a\r\n"
                     "Content-Length: 0\r\n\r\n"), 200);
    CHECK(fb_has(&c, "CONTENT_LENGTH=0"));
    cl_close(&c);
    fb_end(&f);
}

/* A back end that closes at once: a safe method is asked of the other one, a
 * POST is never sent twice. */
LIVE(fastcgi, a_reset_is_asked_elsewhere_if_that_is_safe)
{
    static const fb_row closes[] = { { FB_CLOSE, NULL, 0 } };
    fixture f;
    client c;
    int i, bad = 0;

    fb_init(&f, closes, fb_echo);
    if (!fx_up(&f))
        return;
    cl_init(&c);
    c.port = f.port;
    for (i = 0; i < 8; i++)
        CHECK_INT(cl_get(&c, "/two/?0"), 200);
    f.cfg.log_level = f.cfg.log_level;
    for (i = 0; i < 4; i++) {
        const int status = cl_ask(&c, "POST /app/?0 HTTP/1.1\r\nHost: a\r\n"
                                  "Content-Length: 2\r\n\r\nab");
        bad += status != 502;
    }
    CHECK_INT(bad, 0);
    cl_close(&c);
    fb_end(&f);
}

/* Nobody listens: 503 with Retry-After, and the log names the cause. One that
 * hangs: 504 after ProxyTimeout. Files are served all the time. */
LIVE(fastcgi, back_ends_that_are_not_there_or_hang)
{
    static const fb_row hangs[] = { { FB_HANG, NULL, 0 } };
    fixture f;
    client c;

    fb_init(&f, hangs, fb_echo);
    unlink(fb_two.path);
    snprintf(fb_address[1], sizeof fb_address[1], "unix:%s", fb_two.path);
    f.cfg.proxy_timeout_ms = 100;
    f.cfg.threads_per_child = 1;
    if (!fx_up(&f))
        return;
    cl_init(&c);
    c.port = f.port;
    CHECK_INT(cl_get(&c, "/two/?0"), 503);
    CHECK_STR(cl_header(&c, "Retry-After"), "1");
    CHECK(fx_log_has(&f, "No such file"));
    CHECK_INT(cl_get(&c, "/app/?0"), 504);
    CHECK_INT(cl_get(&c, "/a.txt"), 200);
    cl_close(&c);
    fb_end(&f);
}

/* A script is a file: what is not there is 404 and asks no back end, its source
 * is never sent, what follows its name is PATH_INFO, another spelling of the
 * extension is another one. */
LIVE(fastcgi, scripts_are_files)
{
    static const struct { const char *target; int status; const char *line; }
        rows[] = {
        { "/php/s.php?0",           200, "SCRIPT_NAME=/php/s.php" },
        { "/php/s.php/x/y?0",       200, "PATH_INFO=/x/y" },
        { "/php/%73.php?0",         200, "SCRIPT_NAME=/php/s.php" },
        { "/php/scripts/?0",        200, "SCRIPT_NAME=/php/scripts/index.php" },
        { "/php/none.php?0",        404, NULL },
        { "/php/a.txt/x.php?0",     404, NULL },
        { "/php/s.php%00.txt?0",    400, NULL },
        { "/php/s.php/%0a?0",       404, NULL },
        { "/php/s.PHP?0",           404, NULL },
        { "/php/a.txt",             200, NULL },
        { "/php/scripts",           301, NULL },
    };
    char path[400];
    fixture f;
    client c;

    fb_init(&f, fb_echo, fb_echo);
    snprintf(path, sizeof path, "%s/s.php", f.www);
    write_file(path, "<?php secret", 12);
    snprintf(path, sizeof path, "%s/scripts", f.www);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/scripts/index.php", f.www);
    write_file(path, "<?php secret", 12);
    if (!fx_up(&f))
        return;
    cl_init(&c);
    c.port = f.port;
    EACH(rows, i) {
        cl_close(&c);                /* a 400 closes */
        CHECK_INT(cl_get(&c, rows[i].target), rows[i].status);
        if (rows[i].line != NULL && !fb_has(&c, rows[i].line))
            CHECK_STR(c.body.p, rows[i].line);
        CHECK(c.body.n == 0 || strstr(c.body.p, "secret") == NULL);
    }
    cl_close(&c);
    fb_end(&f);
    unlink(path);
    snprintf(path, sizeof path, "%s/scripts", f.www);
    rmdir(path);
    snprintf(path, sizeof path, "%s/s.php", f.www);
    unlink(path);
}

#endif /* EVENTMPM_NO_FASTCGI */

/* ---------------------------------------------------------------------------
 * >>status -- the scoreboard for people and for programs
 * ------------------------------------------------------------------------- */

/* a route of any kind */
static int any_status(empm_request *req, void *user)
{
    return empm_status_page(req, user);
}

static const empm_route status_routes[] = {
    EMPM_ROUTE("GET /hello",         h_hello,          NULL),
    EMPM_ROUTE("GET /gate",          h_gate,           NULL),
    EMPM_ROUTE("GET /crash",         h_crash,          NULL),
    EMPM_ROUTE("GET /park",          h_park,           NULL),
    EMPM_ROUTE("GET /server-status", empm_status_page, NULL),
    EMPM_ROUTE("GET /metrics",       empm_status_page, EMPM_TEXT("prometheus")),
    EMPM_ROUTE("GET /auto",          empm_status_page, EMPM_TEXT("auto")),
    EMPM_ROUTE("/any",               any_status,       EMPM_TEXT("json")),
    EMPM_ROUTES_END
};

static void status_init(fixture *f)
{
    fx_init(f);
    f->cfg.routes = status_routes;
    f->cfg.server_name = "https://www.example.com:8443";
    f->cfg.extended_status = 1;
}

/* The page at `target`; the caller frees. */
static char *status_page(const fixture *f, const char *target, const char *type)
{
    client c;
    char *text = NULL;

    if (cl_open(&c, f) == 0 && CHECK_INT(cl_get(&c, target), 200)) {
        CHECK_STR(cl_header(&c, "Content-Type"), type);
        CHECK_STR(cl_header(&c, "Cache-Control"), "no-store");
        text = strdup(c.body.p);
    }
    cl_close(&c);
    return text != NULL ? text : strdup("");
}

static char *status_auto(const fixture *f)
{
    return status_page(f, "/server-status?auto",
                       "text/plain; charset=ISO-8859-1");
}

/* The value of a line "key: value", or -1. */
static double auto_number(const char *text, const char *key)
{
    char line[64];
    const char *at;

    snprintf(line, sizeof line, "\n%s: ", key);
    at = strstr(text, line);
    return at != NULL ? strtod(at + strlen(line), NULL) : -1;
}

/* What scrapers rely on: which lines, in which order, and what is in them.
 * n: digits; f: digits and perhaps a fraction; t: text; s: the scoreboard.
 * '?': may be missing; 'x': is there with ExtendedStatus. */
static const struct auto_line {
    const char *key, *kind;
} auto_lines[] = {
    { "ServerVersion", "t" }, { "ServerMPM", "t" }, { "Server Built", "t" },
    { "CurrentTime", "t" }, { "RestartTime", "t" },
    { "ParentServerConfigGeneration", "n" }, { "ParentServerMPMGeneration",
                                              "n" },
    { "ServerUptimeSeconds", "n" }, { "ServerUptime", "t" }, { "Load1", "f" },
    { "Load5", "f" }, { "Load15", "f" }, { "Total Accesses", "nx" },
    { "Total kBytes", "nx" }, { "Total Duration", "nx" }, { "CPUUser", "fx" },
    { "CPUSystem", "fx" }, { "CPUChildrenUser", "fx" },
    { "CPUChildrenSystem", "fx" }, { "CPULoad", "fx?" }, { "Uptime", "nx" },
    { "ReqPerSec", "fx?" }, { "BytesPerSec", "fx?" }, { "BytesPerReq", "fx?" },
    { "DurationPerReq", "fx?" }, { "BusyWorkers", "n" },
    { "GracefulWorkers", "n" }, { "IdleWorkers", "n" }, { "Processes", "n" },
    { "Stopping", "n" }, { "ConnsTotal", "n" }, { "ConnsAsyncWaitIO", "n" },
    { "ConnsAsyncWriting", "n" }, { "ConnsAsyncKeepAlive", "n" },
    { "ConnsAsyncClosing", "n" }, { "Scoreboard", "s" }
};

static int is_number(const char *s, int fraction)
{
    const size_t n = strspn(s, "0123456789");

    if (n == 0 || s[n] == 0)
        return n > 0;
    return fraction && s[n] == '.' && s[n + 1] != 0 &&
           strspn(s + n + 1, "0123456789") == strlen(s + n + 1);
}

/* The keys that the list of states gives, NULL where Apache's have to do. */
#define STATE_KEY(name, letter, column, label, key) key,
#define STATE_NO_KEY(name, letter) NULL,
static const char *const state_keys[] = {
    EMPM__STATE_LIST(STATE_KEY, STATE_NO_KEY)
};

/* Holds a page against the contract. Returns the number of lines. */
static int check_auto(const char *text, int extended)
{
    char *copy = strdup(text), *save = NULL, *line = strtok_r(copy, "\n",
                                                              &save);
    char *seen[200];
    size_t next = 0, n = 0, k;

    CHECK(text[0] != 0 && text[strlen(text) - 1] == '\n');
    CHECK_STR(line, "www.example.com");
    while ((line = strtok_r(NULL, "\n", &save)) != NULL && n < 200) {
        char *value = strstr(line, ": ");
        const char *kind = "f";             /* our own: numbers all */
        context("%.40s", line);
        if (!CHECK(value != NULL))
            break;
        *value = 0;
        value += 2;
        for (k = 0; k < n; k++)
            if (strcmp(seen[k], line) == 0)
                fail(__FILE__, __LINE__, "%s is there twice", line);
        seen[n++] = line;
        while (next < sizeof auto_lines / sizeof auto_lines[0] &&
               strcmp(line, auto_lines[next].key) != 0) {
            if (strchr(auto_lines[next].kind, '?') == NULL &&
                (extended || strchr(auto_lines[next].kind, 'x') == NULL))
                fail(__FILE__, __LINE__, "%s is not where it should be",
                     auto_lines[next].key);
            next++;
        }
        if (next < sizeof auto_lines / sizeof auto_lines[0]) {
            kind = auto_lines[next++].kind;
            CHECK(extended || strchr(kind, 'x') == NULL);
        }
        if (*kind == 'n' || *kind == 'f')
            CHECK(is_number(value, *kind == 'f'));
        if (*kind == 's')
            CHECK(strspn(value, "_SRWKDCLGI.") == strlen(value) &&
                  strlen(value) > 0 && strlen(value) < 65536 - 12);
        CHECK(strlen(line) + strlen(value) < 65536);
        if (next == sizeof auto_lines / sizeof auto_lines[0] && *kind == 's')
            next++;                         /* from here: our own */
    }
    CHECK(next > sizeof auto_lines / sizeof auto_lines[0]);
    EACH(state_keys, i) {                   /* each state that waits is shown */
        if (state_keys[i] == NULL)
            continue;
        for (k = 0; k < n && strcmp(seen[k], state_keys[i]) != 0;)
            k++;
        context("%s", state_keys[i]);
        CHECK(k < n);
    }
    no_context();
    free(copy);
    return (int)n;
}

/* --- a strict reader of JSON: the end of the value, or NULL
 * ---------------- */

static const char *json_value(const char *s, int depth);

static const char *json_space(const char *s)
{
    return s + strspn(s, " \t\r\n");
}

static const char *json_string(const char *s)
{
    if (*s++ != '"')
        return NULL;
    for (; *s != '"'; s++) {
        if ((unsigned char)*s < 32 || (unsigned char)*s > 126)
            return NULL;                    /* ours is ASCII */
        if (*s == '\\') {
            if (*++s == 'u') {
                if (strspn(s + 1, "0123456789abcdef") < 4)
                    return NULL;
                s += 4;
            } else if (*s == 0 || strchr("\"\\/bfnrt", *s) == NULL)
                return NULL;
        }
    }
    return s + 1;
}

static const char *json_list(const char *s, int depth)
{
    const char end = *s == '{' ? '}' : ']';
    const int keys = *s == '{';

    s = json_space(s + 1);
    if (*s == end)
        return s + 1;
    for (;;) {
        if (keys) {
            s = json_string(s);
            if (s == NULL || *(s = json_space(s)) != ':')
                return NULL;
            s++;
        }
        s = json_value(json_space(s), depth + 1);
        if (s == NULL)
            return NULL;
        s = json_space(s);
        if (*s == end)
            return s + 1;
        if (*s != ',')
            return NULL;
        s = json_space(s + 1);
    }
}

static const char *json_value(const char *s, int depth)
{
    size_t n;

    if (*s == '"')
        return json_string(s);
    if (*s == '{' || *s == '[')
        return depth < 10 ? json_list(s, depth) : NULL;
    if (strncmp(s, "true", 4) == 0 || strncmp(s, "null", 4) == 0)
        return s + 4;
    if (strncmp(s, "false", 5) == 0)
        return s + 5;
    n = strspn(s, "0123456789");
    if (n == 0 || (n > 1 && *s == '0'))
        return NULL;
    s += n;
    if (*s == '.') {
        n = strspn(s + 1, "0123456789");
        if (n == 0)
            return NULL;
        s += n + 1;
    }
    return s;
}

static void check_json(const char *text)
{
    const char *end = *text == '{' ? json_value(text, 0) : NULL;

    CHECK(end != NULL && *json_space(end) == 0);
}

/* --- and of Prometheus' text, as promtool would read it
 * -------------------- */

static void check_prometheus(const char *text)
{
    static const char name_bytes[] = "abcdefghijklmnopqrstuvwxyz_0123456789";
    char *copy = strdup(text), *save = NULL, *line;
    char helped[80] = "", typed[80] = "", *series[300], *types[100];
    int counter = 0, n = 0, ntypes = 0, k;

    CHECK(text[0] != 0 && text[strlen(text) - 1] == '\n');
    for (line = strtok_r(copy, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        size_t len;
        context("%.60s", line);
        if (strncmp(line, "# HELP ", 7) == 0) {
            CHECK(sscanf(line + 7, "%79s", helped) == 1);
            CHECK(strlen(line) > 8 + strlen(helped));
            continue;
        }
        if (strncmp(line, "# TYPE ", 7) == 0) {
            char type[20] = "";
            CHECK(sscanf(line + 7, "%79s %19s", typed, type) == 2);
            CHECK_STR(typed, helped);
            counter = strcmp(type, "counter") == 0;
            CHECK(counter || strcmp(type, "gauge") == 0);
            len = strlen(typed);
            CHECK(counter == (len > 6 &&
                              strcmp(typed + len - 6, "_total") == 0));
            for (k = 0; k < ntypes; k++)
                CHECK(strcmp(types[k], line) != 0);
            if (CHECK(ntypes < 100))
                types[ntypes++] = line;
            continue;
        }
        len = strspn(line, name_bytes);
        CHECK(len == strlen(typed) && strncmp(line, typed, len) == 0);
        CHECK(strncmp(line, "eventmpm_", 9) == 0);
        if (line[len] == '{') {
            size_t label = strspn(line + len + 1, name_bytes), value;
            CHECK(label > 0 && strncmp(line + len + 1 + label, "=\"", 2) == 0);
            len += 1 + label + 2;
            value = strcspn(line + len, "\"\\");
            CHECK(value > 0 && strncmp(line + len + value, "\"}", 2) == 0);
            len += value + 2;
        }
        if (!CHECK(line[len] == ' '))
            continue;
        line[len] = 0;
        CHECK(is_number(line + len + 1, 1));
        for (k = 0; k < n; k++)
            CHECK(strcmp(series[k], line) != 0);
        if (CHECK(n < 300))
            series[n++] = line;
    }
    no_context();
    CHECK(n > 20);
    free(copy);
}

/* ?auto has the keys that Telegraf, apache_exporter, Datadog, Netdata and
 * collectd read of Apache. */
LIVE(status, auto_is_what_scrapers_of_apache_read)
{
    enum { N = 20 };
    fixture f;
    client c;
    char *text;
    int i;

    status_init(&f);
    if (!fx_up(&f))
        return;
    cl_open(&c, &f);
    for (i = 0; i < N; i++)
        CHECK_INT(cl_get(&c, "/hello"), 200);
    CHECK_SOON(status_number(&f, "ConnsAsyncKeepAlive") == 1, 2000);
    nap(1100);                              /* so that there are rates */
    CHECK_INT(cl_get(&c, "/nothing"), 404);
    text = status_auto(&f);
    CHECK(check_auto(text, 1) > 36);
    CHECK(strstr(text, "\nServerVersion: eventmpm/" EMPM_VERSION " (Unix)\n"
                       "ServerMPM: event\nServer Built: compiler ") != NULL);
    CHECK(auto_number(text, "Total Accesses") >= N + 1);
    CHECK(auto_number(text, "ReqPerSec") > 0);
    CHECK(auto_number(text, "BytesPerReq") > 100);
    CHECK(auto_number(text, "Uptime") >= 1);
    CHECK(auto_number(text, "CPULoad") >= 0 || f.forked);
    CHECK_INT(auto_number(text, "BusyWorkers"), 1);
    CHECK_INT(auto_number(text, "IdleWorkers"), 3);
    CHECK_INT(auto_number(text, "Processes"), 1);
    CHECK_INT(auto_number(text, "ConnsTotal"), 2);
    CHECK(strstr(text, "\nScoreboard: ") != NULL &&
          strcspn(strstr(text, "\nScoreboard: ") + 13, "\n") == 4);
    free(text);
    cl_close(&c);
    fx_down(&f);

    status_init(&f);
    f.cfg.extended_status = 0;
    if (!fx_up(&f))
        return;
    text = status_auto(&f);
    check_auto(text, 0);
    free(text);
    text = status_page(&f, "/server-status?json", "application/json");
    CHECK(strstr(text, "GET /") == NULL && strstr(text, "127.0.0.1") == NULL);
    free(text);
    fx_down(&f);
}

/* A counter of the list stands in ?json, in ?prometheus with its help and its
 * type, and in ?auto under its key, if Apache has no line for it. */
TEST(status, every_counter_is_told_everywhere)
{
#define TOLD(type, field, name, key, is_time, help) { name, key, help },
    static const struct { const char *name, *key, *help; } rows[] = {
        EMPM__COUNTER_LIST(TOLD, TOLD)
    };
#undef TOLD
    char *text[3], line[300];
    fixture f;
    int i;
    status_init(&f);
    if (!fx_up(&f))
        return;
    text[0] = status_page(&f, "/server-status?json", "application/json");
    text[1] = status_page(&f, "/metrics",
                          "text/plain; version=0.0.4; charset=utf-8");
    text[2] = status_auto(&f);
    EACH(rows, i) {
        context("%s", rows[i].name);
        snprintf(line, sizeof line, "\n\"%s\":", rows[i].name);
        CHECK(strstr(text[0], line) != NULL);
        snprintf(line, sizeof line, "# HELP eventmpm_%s %s\n# TYPE eventmpm_%s "
                 "counter\neventmpm_%s ", rows[i].name, rows[i].help,
                 rows[i].name, rows[i].name);
        CHECK(strstr(text[1], line) != NULL);
        CHECK(rows[i].key == NULL || auto_number(text[2], rows[i].key) >= 0);
    }
    for (i = 0; i < 3; i++)
        free(text[i]);
    fx_down(&f);
}

/* Every request is counted once, whether a handler or the server has answered
 * it. */
LIVE(status, totals_are_the_requests_made)
{
    enum { N = 50 };
    fixture f;
    char *text;
    long before;
    int i;

    status_init(&f);
    if (!fx_up(&f))
        return;
    before = status_number(&f, "Total Accesses");
    for (i = 0; i < N; i++)
        CHECK_INT(get_status(&f, i % 5 == 0 ? "/nothing" : "/hello"),
                  i % 5 == 0 ? 404 : 200);
    CHECK_INT(before, 0);
    CHECK_SOON(status_number(&f, "Total Accesses") > before + N, 2000);
    /* the last may be under way, and this */
    text = status_auto(&f);
    CHECK_IN(auto_number(text, "Total Accesses"), N + 1, N + 40);
    CHECK_IN(auto_number(text, "Total Accesses") -
             auto_number(text, "ConnsAccepted"), -2, 0);
    free(text);
    fx_down(&f);
}

/* Each format of the status page passes a strict reader of its kind and shows
 * the connections that wait. */
LIVE(status, every_format_is_strict)
{
    fixture f;
    client c[3];
    char *text;
    int i;

    status_init(&f);
    if (!fx_up(&f))
        return;
    for (i = 0; i < 3; i++) {
        cl_open(&c[i], &f);
        cl_puts(&c[i], i == 0 ? "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n" :
                       i == 1 ? "GET /park?slot=1 HTTP/1.1\r\nHost: a\r\n\r\n" :
                                "GET /he");
    }
    CHECK_SOON(get_int(&shm->at_gate) == 1, 4000);
    CHECK_SOON(status_number(&f, "ConnsAsyncSuspended") == 1, 2000);
    CHECK_SOON(status_number(&f, "ConnsAsyncReadHead") == 1, 2000);
    text = status_page(&f, "/metrics",
                       "text/plain; version=0.0.4; charset=utf-8");
    check_prometheus(text);
    CHECK(strstr(text, "\neventmpm_workers{state=\"working\"} ") != NULL);
    CHECK(strstr(text, "\neventmpm_connections{state=\"suspended\"} "
                 "1\n") != NULL);
    free(text);
    text = status_page(&f, "/any", "application/json");
    check_json(text);
    CHECK(strstr(text, "\"request\":\"GET /gate HTTP/1.1\"") != NULL);
    CHECK(strstr(text, "\"client\":\"127.0.0.1\"") != NULL);
    free(text);
    text = status_page(&f, "/auto", "text/plain; charset=ISO-8859-1");
    check_auto(text, 1);
    free(text);
    text = status_page(&f, "/auto?html&notable", "text/html; charset=utf-8");
    CHECK(strstr(text, "<h2>Slowest") != NULL);
    CHECK(strstr(text, "<h2>Requests by worker") == NULL);
    free(text);
    text = status_page(&f, "/server-status", "text/html; charset=utf-8");
    CHECK(strstr(text, "<h2>Requests by worker") != NULL);
    CHECK(strstr(text, "://") == NULL);     /* nothing from elsewhere */
    free(text);
    set_int(&shm->gate, 1);
    for (i = 0; i < 3; i++)
        cl_close(&c[i]);
    cl_open(&c[0], &f);
    CHECK_INT(cl_get(&c[0], "/server-status?refresh"), 200);
    CHECK_STR(cl_header(&c[0], "Refresh"), "10");
    CHECK_INT(cl_get(&c[0], "/server-status?refresh=3&notable"), 200);
    CHECK_STR(cl_header(&c[0], "Refresh"), "3");
    CHECK_INT(cl_get(&c[0], "/server-status?refresh=-1%0d%0aX"), 200);
    CHECK_STR(cl_header(&c[0], "Refresh"), "10");
    cl_puts(&c[0], "POST /any HTTP/1.1\r\nHost: a\r\nContent-Length: "
            "0\r\n\r\n");
    CHECK_INT(cl_reply(&c[0]), 405);
    CHECK_STR(cl_header(&c[0], "Allow"), "GET, HEAD");
    cl_close(&c[0]);
    fx_down(&f);
}

/* The text of a hostile request is shown and does nothing. */
LIVE(status, hostile_requests_are_shown_harmlessly)
{
    static const char *const pages[] = {
        "/server-status", "/server-status?json", "/auto", "/metrics"
    };
    fixture f;
    client c;
    size_t i;

    status_init(&f);
    if (!fx_up(&f))
        return;
    cl_open(&c, &f);
    cl_puts(&c, "GET /gate?<script>alert('1')</script>&\"\\ HTTP/1.1\r\n"
                "Host: a'b.example\r\n\r\n");
    CHECK_SOON(get_int(&shm->at_gate) == 1, 4000);
    for (i = 0; i < 4; i++) {
        client p;
        context("%s", pages[i]);
        cl_open(&p, &f);
        CHECK_INT(cl_get(&p, pages[i]), 200);
        CHECK(strstr(p.body.p, "<script") == NULL);
        CHECK(strstr(p.body.p, "alert('") == NULL);
        if (i == 0)
            CHECK(strstr(p.body.p, "GET /gate?&#60;script&#62;alert(&#39;1"
                                   "&#39;)&#60;/script&#62;&#38;&#34;&#92; "
                                   "HTTP/1.1") != NULL);
        if (i == 1) {
            check_json(p.body.p);
            CHECK(strstr(p.body.p, "/gate?\\u003cscript\\u003ealert(") != NULL);
        }
        cl_close(&p);
    }
    no_context();
    set_int(&shm->gate, 1);
    cl_close(&c);
    fx_down(&f);
}

/* Looking at the status touches no memory of children that were never there:
 * with a large ServerLimit that would be all of it. */
TEST(status, slots_without_children_cost_nothing)
{
    fixture f;
    char line[256];
    long kids[16];
    int n, kb = 0;

    fx_init_forked(&f, 1);
    f.cfg.server_limit = 3000;
    if (!fx_up(&f))
        return;
    CHECK_INT(get_status(&f, "/server-status?auto"), 200);
    CHECK_INT(get_status(&f, "/server-status?json"), 200);
    for (n = children_of(f.pid, kids, 16); n-- > 0;) {
        status_line(kids[n], "RssShmem:", line, sizeof line);
        if (sscanf(line, "RssShmem: %d", &kb) == 1)
            CHECK_IN(kb, 0, 6000);
    }
    fx_down(&f);
}

/* A child may write anything into its memory: the page stays well formed. */
TEST(status, a_scoreboard_gone_mad_is_shown_harmlessly)
{
    static const char bad[] = "\r\nX: y\033[2J<b>\"'&\\\377\300\001GET / "
                              "HTTP/1.1012345678901234567890123456789012345"
                              "6789012345678901234567890123456789";
    fixture f;
    empm__score_worker *w;
    empm__score_child *ch;
    char *text;

    status_init(&f);
    if (!fx_up(&f))
        return;
    CHECK_INT(get_status(&f, "/hello"), 200);
    w = empm__score_worker_at(&f.s->score, 1, 0);   /* nobody else's slot */
    ch = empm__score_at(&f.s->score, 1);
    empm__store(&empm__score_slot_at(&f.s->score, 1)->used, 1u);
    empm__store(&empm__score_slot_at(&f.s->score, 1)->pid, 4711u);
    empm__store(&ch->accepted, 1u);
    empm__score_store_text(w->request, sizeof w->request, bad,
                           EMPM__SCORE_REQUEST);
    empm__score_store_text(w->host, sizeof w->host, bad, EMPM__SCORE_HOST);
    memset((void *)w->client, 0xee, sizeof w->client);
    empm__bump(&w->accesses, 1u);
    empm__store(&w->began_us, UINT64_MAX);
    empm__store(&w->status, 0xffffff41u);           /* 'A', and more */
    empm__bump(&w->parked[EMPM__WRITE], 0x80000000u);
    empm__bump(&ch->unparked[EMPM__KEEPALIVE], 7u);
    empm__store(&ch->queued, 1u);
    text = status_auto(&f);
    check_auto(text, 1);
    CHECK_INT(auto_number(text, "ConnsAsyncWriting"), 0);
    CHECK_INT(auto_number(text, "ConnsAsyncKeepAlive"), 0);
    CHECK(strstr(text, "\nScoreboard: ") != NULL &&
          strncmp(strstr(text, "\nScoreboard: ") + 17, "....\n", 5) == 0);
    free(text);
    text = status_page(&f, "/server-status?json", "application/json");
    check_json(text);
    CHECK(strstr(text, "\\u000d\\u000aX: "
                 "y\\u001b[2J\\u003cb\\u003e\\u0022\\u0027"
                       "\\u0026\\u005c\\u00ff\\u00c0\\u0001GET / "
                 "HTTP") != NULL);
    free(text);
    empm__store(&w->status, (uint32_t)'W');
    text = status_page(&f, "/server-status", "text/html; charset=utf-8");
    CHECK(strstr(text, "\\x0d\\x0aX: y\\x1b[2J&#60;b&#62;&#34;&#39;&#38;&#92;"
                       "\\xff\\xc0\\x01GET / HTTP") != NULL);
    CHECK(strchr(text, '\033') == NULL && strchr(text, '\r') == NULL);
    free(text);
    text = status_page(&f, "/metrics",
                       "text/plain; version=0.0.4; charset=utf-8");
    check_prometheus(text);
    free(text);
    fx_down(&f);
}

/* The next tenant of a slot may have fewer workers than the last one. */
TEST(status, a_slot_is_empty_for_its_next_tenant)
{
    empm__score sb;
    int t;

    CHECK_INT(empm__score_init(&sb, 1, 8, 0), EMPM_OK);
    for (t = 0; t < 8; t++)
        empm__score_worker_at(&sb, 0, t)->parked[EMPM__KEEPALIVE] = 25;
    empm__score_at(&sb, 0)->unparked[EMPM__KEEPALIVE] = 200;
    empm__score_at(&sb, 0)->connections = 7;
    empm__score_gauges(&sb, 0);
    for (t = 0; t < 8; t++)
        CHECK_INT(empm__score_worker_at(&sb, 0, t)->parked[EMPM__KEEPALIVE], 0);
    CHECK_INT(empm__score_at(&sb, 0)->unparked[EMPM__KEEPALIVE], 0);
    CHECK_INT(empm__score_at(&sb, 0)->connections, 0);
    empm__score_free(&sb);
}

/* Connections that owe a PROXY header are among the states, so that the sum is
 * right. */
TEST(status, who_owes_a_proxy_header_is_counted)
{
    fixture f;
    client c;

    status_init(&f);
    f.cfg.listen[1] = "127.0.0.1:0 proxy";
    if (!fx_up(&f))
        return;
    CHECK_INT(cl_connect_port(&c, empm_port(f.s, 1), 0), 0);
    CHECK_SOON(status_number(&f, "ConnsAsyncHandshake") == 1, 2000);
    CHECK_INT(status_number(&f, "ConnsAsyncReadHead"), 0);
    cl_close(&c);
    CHECK_SOON(status_number(&f, "ConnsAsyncHandshake") == 0, 2000);
    fx_down(&f);
}

/* empm_wait() waits as long as it was told, whatever clients are at the admin
 * listener. */
TEST(status, an_admin_client_does_not_hold_empm_wait)
{
    fixture f;
    client c;
    uint64_t began;

    status_init(&f);
    f.cfg.listen[1] = "127.0.0.1:0 admin";
    f.cfg.stop_timeout_ms = 1500;
    if (!fx_up(&f))
        return;
    CHECK_INT(cl_connect_port(&c, empm_port(f.s, 1), 0), 0);
    cl_puts(&c, "GET / HT");
    nap(50);
    began = now_ms();
    empm_stop(f.s);
    while (empm_wait(f.s, 100) == EMPM_ETIMEDOUT && now_ms() - began < 1000)
        if (f.s->engine.joined)
            break;
    CHECK(now_ms() - began < 1000);
    CHECK_INT(empm_wait(f.s, -1), EMPM_OK);
    cl_close(&c);
    fx_down(&f);
}

/* G: a child that leaves serves nobody new, so its workers are neither busy nor
 * idle. */
TEST(status, a_leaving_child_is_graceful)
{
    fixture f;
    client c;
    char *text;

    status_init(&f);
    if (!fx_up(&f))
        return;
    cl_open(&c, &f);
    CHECK_INT(cl_get(&c, "/hello"), 200);
    empm__store(&empm__score_slot_at(&f.s->score, 0)->leaving, 1u);
    text = status_auto(&f);
    check_auto(text, 1);
    CHECK(strstr(text, "\nScoreboard: GGGG\n") != NULL);
    CHECK_INT(auto_number(text, "GracefulWorkers"), 4);
    CHECK_INT(auto_number(text, "BusyWorkers"), 0);
    CHECK_INT(auto_number(text, "IdleWorkers"), 0);
    CHECK_INT(auto_number(text, "Stopping"), 1);
    CHECK_INT(auto_number(text, "Processes"), 1);
    free(text);
    nap(150);                               /* who is idle is not slow */
    text = status_page(&f, "/server-status", "text/html; charset=utf-8");
    CHECK(strstr(text, "None takes longer") != NULL);
    free(text);
    cl_close(&c);
    fx_down(&f);
}

/* A worker's record is about the request that it works for, though that may
 * have begun on another worker. */
LIVE(status, a_request_is_seen_on_the_worker_that_has_it)
{
    fixture f;
    client c[3];
    char *text;

    status_init(&f);
    f.cfg.threads_per_child = 2;
    if (!fx_up(&f))
        return;
    cl_open(&c[0], &f);
    CHECK_INT(cl_get(&c[0], "/hello"), 200);
    CHECK_INT(cl_get(&c[0], "/hello"), 200);
    cl_puts(&c[0], "GET /gate?third HTTP/1.1\r\nHost: one.example\r\n\r\n");
    CHECK_SOON(get_int(&shm->at_gate) == 1, 4000);
    nap(150);
    text = status_page(&f, "/server-status?json", "application/json");
    CHECK(strstr(text, "\"host\":\"one.example\","
                       "\"request\":\"GET /gate?third HTTP/1.1\"") != NULL);
    CHECK(strstr(text, "\"accesses_connection\":3,") != NULL);
    free(text);
    text = status_page(&f, "/server-status?html", "text/html; charset=utf-8");
    CHECK(strstr(text, " ms<td class=x>GET /gate?third HTTP/1.1") != NULL);
    free(text);
    set_int(&shm->gate, 1);
    CHECK_INT(cl_reply(&c[0]), 200);
    CHECK_SOON(status_number(&f, "Total Duration") >= 150, 2000);
    cl_close(&c[0]);
    fx_down(&f);
}

#if !defined(EVENTMPM_NO_FORK)
/* The totals of a dead child stay in its slot. */
TEST(status, counters_never_go_back)
{
    static const char *const keys[] = {
        "Total Accesses", "Total kBytes", "Total Duration", "ConnsAccepted",
        "CPUUser", "CPUSystem", "CPUChildrenUser", "CPUChildrenSystem",
        "Uptime", "ChildrenDied"
    };
    fixture f;
    char *before, *text;
    size_t i;
    int k;

    status_init(&f);
    fx_close_files(&f);
    fx_init_forked(&f, 2);
    f.cfg.routes = status_routes;
    f.cfg.server_name = "www.example.com";
    f.deaths_ok = 1;
    if (!fx_up(&f))
        return;
    for (k = 0; k < 200; k++)
        CHECK_INT(get_status(&f, "/hello"), 200);
    CHECK_SOON(status_number(&f, "Processes") == 2, 4000);
    before = status_auto(&f);
    check_auto(before, 1);
    for (k = 1; k <= 4; k++) {
        CHECK(get_status(&f, "/crash") != 200);
        CHECK_SOON(status_number(&f, "ChildrenDied") == k, 4000);
        text = status_auto(&f);
        check_auto(text, 1);
        for (i = 0; i < sizeof keys / sizeof keys[0]; i++) {
            context("%s", keys[i]);
            CHECK(auto_number(text, keys[i]) >= auto_number(before, keys[i]));
        }
        no_context();
        free(before);
        before = text;
    }
    CHECK(auto_number(before, "Total Accesses") >= 200);
    for (k = 0; k < 1000 && auto_number(before, "CPUChildrenUser") +
                            auto_number(before, "CPUChildrenSystem") <=
         0; k++) {
        free(before);                   /* the kernel's tick is 10 ms */
        before = status_auto(&f);
    }
    CHECK(k < 1000 && auto_number(before, "CPULoad") > 0);
    free(before);
    fx_down(&f);
}

/* Lines for readers end below 64 KiB: with thousands of slots one letter
 * stands for several. */
TEST(status, thousands_of_slots_fit_into_a_line)
{
    fixture f;
    char *text;

    status_init(&f);
    fx_close_files(&f);
    fx_init_forked(&f, -1);
    f.cfg.routes = status_routes;
    f.cfg.server_name = "www.example.com";
    f.cfg.start_servers = 1;
    f.cfg.server_limit = 2000;
    f.cfg.threads_per_child = f.cfg.thread_limit = 64;
    f.cfg.max_request_workers = 128000;
    f.cfg.min_spare_threads = 1;
    f.cfg.max_spare_threads = 200;
    if (!fx_up(&f))
        return;
    CHECK_SOON(status_number(&f, "IdleWorkers") == 63, 4000);
    text = status_auto(&f);
    check_auto(text, 1);
    CHECK_INT(auto_number(text, "ScoreboardScale"), 2);
    CHECK(strstr(text, "\nScoreboard: ") != NULL);
    CHECK_IN(strcspn(strstr(text, "\nScoreboard: ") + 13, "\n"), 64000, 64003);
    free(text);
    text = status_page(&f, "/server-status?json", "application/json");
    check_json(text);
    free(text);
    text = status_page(&f, "/server-status", "text/html; charset=utf-8");
    free(text);
    fx_down(&f);
}
#endif

/* The admin listener answers while all workers are blocked. */
LIVE(status, admin_answers_while_all_workers_are_blocked)
{
    enum { N = 10 };
    fixture f;
    client c[N], a;
    char listen1[40];
    int i, admin_port = 0, fd = -1;

    status_init(&f);
    f.cfg.listen[1] = "127.0.0.1:0 admin";
    if (f.forked) {
        fd = listening_socket(&admin_port);
        snprintf(listen1, sizeof listen1, "fd:%d admin", fd);
        f.cfg.listen[1] = listen1;
    }
    i = fx_up(&f);
    if (fd >= 0)
        close(fd);
    if (!i)
        return;
    if (!f.forked)
        admin_port = empm_port(f.s, 1);
    CHECK_INT(get_status(&f, "/hello"), 200);
    for (i = 0; i < N; i++) {
        cl_open(&c[i], &f);
        cl_puts(&c[i], "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    CHECK_SOON(get_int(&shm->at_gate) == 4, 4000);
    if (CHECK(cl_connect_port(&a, admin_port, 0) == 0)) {
        CHECK_INT(cl_get(&a, "/server-status?auto"), 200);  /* it is up */
        for (i = 0; i < 5; i++) {
            const uint64_t t0 = now_ms();
            CHECK_INT(cl_get(&a, i < 4 ? "/server-status?auto" : "/"), 200);
            CHECK_IN(now_ms() - t0, 0, SCALED(100));
            if (i < 4) {
                check_auto(a.body.p, 1);
                CHECK_INT(auto_number(a.body.p, "BusyWorkers"), 4);
                CHECK_INT(auto_number(a.body.p, "IdleWorkers"), 0);
                CHECK_INT(auto_number(a.body.p, "Processes"), 1);
                CHECK(strstr(a.body.p, "\nScoreboard: WWWW\n") != NULL);
            } else
                CHECK(strstr(a.body.p, "All 4 workers are busy") != NULL);
        }
        CHECK_INT(cl_get(&a, "/metrics"), 200);
        check_prometheus(a.body.p);
        CHECK_INT(cl_get(&a, "/hello"), 404);
        cl_close(&a);
    }
    set_int(&shm->gate, 1);
    for (i = 0; i < N; i++)
        cl_close(&c[i]);
    fx_down(&f);
}

/* ---------------------------------------------------------------------------
 * >>health -- may a balancer send more?
 * ------------------------------------------------------------------------- */

/* /health is 200 while the server takes requests, and 503 on every listener
 * once it drains. */
SERVED_WITH(health, says_when_to_go_elsewhere, T_PLAIN,
            fx_init(f); f->cfg.listen[1] = "127.0.0.1:0 admin", NULL)
{
    client d;

    CHECK_INT(cl_get(c, "/health"), 200);
    CHECK_STR(c->body.p, "OK\n");
    CHECK_STR(cl_header(c, "Cache-Control"), "no-store");
    CHECK_INT(cl_connect_port(&d, empm_port(f->s, 1), 0), 0);
    CHECK_INT(cl_get(&d, "/health"), 200);
    empm__store(&empm__score_server_at(&f->s->score)->draining, 1u);
    CHECK_INT(cl_get(c, "/health"), 503);
    CHECK_STR(c->body.p, "draining\n");
    CHECK_STR(cl_header(c, "Cache-Control"), "no-store");
    CHECK(cl_header(c, "Retry-After") == NULL);
    CHECK_INT(c->closes, 0);             /* all else goes on */
    CHECK_INT(cl_get(&d, "/health"), 503);
    check_in_step(c);
    empm__store(&empm__score_server_at(&f->s->score)->draining, 0u);
    CHECK_INT(cl_get(c, "/health"), 200);
    empm_stop_graceful(f->s);
    CHECK_SOON(empm__load(&f->s->engine.stopping) != 0, 2000);
    CHECK_INT(cl_get(&d, "/health"), 503);
    CHECK_INT(cl_get(c, "/health"), 503);
    CHECK_INT(c->closes, 1);
    cl_close(&d);
}

/* A child that leaves does not turn /health to 503: the server goes on. */
SERVED_BY(health, a_child_may_leave_and_the_server_stay, 1,
          "MaxConnectionsPerChild 1")
{
    f->deaths_ok = 1;
    CHECK_INT(cl_get(c, "/health"), 200);
    CHECK_STR(c->body.p, "OK\n");
    CHECK_INT(c->closes, 0);              /* another child takes it over */
    CHECK_INT(cl_get(c, "/health"), 200);
}

/* ---------------------------------------------------------------------------
 * >>load -- slow clients, greedy clients, all workers busy
 * ------------------------------------------------------------------------- */

/* All four workers are free: they meet. */
static void check_four_workers_free(const fixture *f)
{
    client c[4];
    uint64_t t0 = now_ms();
    int i;

    set_int(&shm->meeting, 0);
    for (i = 0; i < 4; i++) {
        cl_open(&c[i], f);
        cl_puts(&c[i], "GET /meet?n=4 HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for (i = 0; i < 4; i++) {
        CHECK_INT(cl_reply(&c[i]), 200);
        cl_close(&c[i]);
    }
    CHECK_IN(now_ms() - t0, 0, SCALED(1500));
}

/* Clients that wait, in whatever state, hold no worker: four remain free of
 * four. */
SERVED(load, slow_clients_hold_no_worker, LONG_TIMES "SendBufferSize 16384")
{
    enum { N = 240 };
    static client cs[N];
    int i;

    for (i = 0; i < N; i++) {
        cl_connect_port(&cs[i], f->port, 8192);
        switch (i % 12) {
        case 0:  cl_puts(&cs[i], "GET /hel"); break;
        case 1:  cl_puts(&cs[i], CL("99"));                           break;
        case 2:  cl_puts(&cs[i], CHUNK "5\r\nhel"); break;
        case 3:  cl_puts(&cs[i], "POST /sum-any HTTP/1.1\r\nHost: a\r\n"
                         "Content-Length: 900000\r\n\r\nhello"); break;
        case 4:  cl_puts(&cs[i], "POST /count?slot=1 HTTP/1.1\r\nHost: a\r\n"
                         "Content-Length: 99\r\n\r\nhello"); break;
        case 5:  cl_puts(&cs[i], "GET /big?bytes=900000 HTTP/1.1\r\nHost: a\r\n"
                         "\r\n"); break;
        case 6:  cl_puts(&cs[i], "GET /produce?bytes=900000 HTTP/1.1\r\n"
                         "Host: a\r\n\r\n"); break;
        case 7:  cl_puts(&cs[i], "GET /file/big.bin HTTP/1.1\r\nHost: "
                         "a\r\n\r\n");
                 break;
        case 8:
            cl_puts(&cs[i], "GET /park?slot=2 HTTP/1.1\r\nHost: a\r\n\r\n");
            break;
        case 9:  cl_puts(&cs[i], GET1 "\r\n"); break;
        case 10: cl_puts(&cs[i], POST1 "Content-Length: 99999999\r\n\r\nhello");
                 break;
        default: break;             /* says nothing at all */
        }
    }
    check_four_workers_free(f);
    CHECK_SOON(status_number(f, "BusyWorkers") == 1, 2000);    /* this one */
    CHECK_SOON(status_number(f, "IdleWorkers") == 3, 2000);
    CHECK_INT(status_number(f, "ConnsAsyncSuspended"), N / 12);
    CHECK_INT(status_number(f, "ConnsAsyncReadBody"), N / 12 * 4);
    CHECK_IN(status_number(f, "ConnsAsyncReadHead"), N / 12 * 2,
             N / 12 * 2 + 8);
    for (i = 0; i < N; i++)         /* a bit more of the same */
        if (i % 12 < 5)
            cl_puts(&cs[i], "X");
    check_four_workers_free(f);
    cl_close_all(cs, N);
    CHECK_INT(get_status(f, "/hello"), 200);
}

typedef struct greedy {
    pthread_t thread;
    int       port, rc;
    int      *stop;
    long long replies;
} greedy;

/* Sends requests without end, reads replies, never lets the pipe run dry. */
static void *greedy_run(void *arg)
{
    greedy *g = (greedy *)arg;
    client c;
    str s;
    size_t at = 0;
    char buf[65536];
    int i;

    memset(&s, 0, sizeof s);
    for (i = 0; i < 200; i++)
        str_addf(&s, GET1 "\r\n");
    if (cl_connect_port(&c, g->port, 0) != 0) {
        str_free(&s);
        return NULL;
    }
    while (!get_int(g->stop)) {
        struct pollfd w;
        ssize_t k;
        w.fd = c.fd;
        w.events = POLLIN | POLLOUT;
        w.revents = 0;
        poll(&w, 1, 50);
        if (w.revents & POLLIN) {
            k = recv(c.fd, buf, sizeof buf, MSG_DONTWAIT);
            if (k == 0)
                break;
            if (k > 0)
                g->replies += k;
        }
        if (w.revents & POLLOUT) {
            k = send(c.fd, s.p + at, s.n - at, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (k > 0)
                at = (at + (size_t)k) % s.n;
        }
    }
    cl_close(&c);
    str_free(&s);
    return NULL;
}

/* Clients that pipeline without end leave their turn to others. */
TEST(load, endless_pipeliners_starve_nobody)
{
    enum { WORKERS = 4, N = 7 };   /* the queue is never empty */
    greedy g[N];
    fixture f;
    int i, stop = 0, soon = 0;

    fx_init(&f);
    f.cfg.threads_per_child = WORKERS;
    f.cfg.max_keep_alive_requests = 0;
    if (!fx_up(&f))
        return;
    for (i = 0; i < N; i++) {
        memset(&g[i], 0, sizeof g[i]);
        g[i].port = f.port;
        g[i].stop = &stop;
        pthread_create(&g[i].thread, NULL, greedy_run, &g[i]);
    }
    nap(100);
    /* all are served, and as a rule soon: one */
    for (i = 0; i < 20; i++) {
        uint64_t t0 = now_ms();      /* may have waited for a busy machine */
        CHECK_INT(get_status(&f, "/hello"), 200);
        soon += now_ms() - t0 < (uint64_t)SCALED(500);
    }
    CHECK_IN(soon, 10, 20);
    set_int(&stop, 1);
    for (i = 0; i < N; i++) {
        pthread_join(g[i].thread, NULL);
        CHECK(g[i].replies > 0);
    }
    fx_down(&f);
}

/* Idle connections end in time while all workers are busy, and waiting
 * requests are not lost. */
TEST(load, idle_connections_end_while_all_workers_sleep)
{
    enum { N = 30 };
    fixture f;
    client idle[N], busy[4], fresh[5];
    int i;

    fx_init(&f);
    long_times(&f);
    f.cfg.keep_alive_timeout_ms = SCALED(300);
    f.cfg.header_timeout_ms = f.cfg.header_timeout_max_ms = SCALED(400);
    if (!fx_up(&f))
        return;
    for (i = 0; i < N; i++) {
        cl_open(&idle[i], &f);
        if (i % 3 != 0)
            check_in_step(&idle[i]);
    }
    for (i = 0; i < 4; i++) {
        cl_open(&busy[i], &f);
        cl_puts(&busy[i], "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    CHECK_SOON(get_int(&shm->at_gate) == 4, 4000);
    for (i = 0; i < 5; i++) {
        cl_open(&fresh[i], &f);     /* wait in the backlog, or in the queue */
        cl_puts(&fresh[i], GET1 "\r\n");
    }
    for (i = 0; i < N; i++) {
        context("idle %d", i);
        CHECK_INT(cl_end(&idle[i], SCALED(3000)), CL_FIN);
        cl_close(&idle[i]);
    }
    no_context();
    CHECK_INT(get_int(&shm->at_gate), 4);
    CHECK(!cl_readable(&fresh[0], 0));
    set_int(&shm->gate, 1);
    for (i = 0; i < 4; i++) {
        CHECK_INT(cl_reply(&busy[i]), 200);
        cl_close(&busy[i]);
    }
    for (i = 0; i < 5; i++) {       /* nothing accepted or queued is lost */
        CHECK_INT(cl_reply(&fresh[i]), 200);
        cl_close(&fresh[i]);
    }
    fx_down(&f);
}

/* At MaxOpenConnections the idle connections nearest to their end make room,
 * and no connection is reset. */
SERVED(load, max_open_connections, LONG_TIMES "MaxOpenConnections 20")
{
    enum { N = 60 };
    client cs[N];
    int i, fin = 0;

    /* the idle ones that are nearest to their end make room: all are served */
    for (i = 0; i < N; i++) {
        cl_open(&cs[i], f);
        check_in_step(&cs[i]);
    }
    nap(SCALED(50));
    for (i = 0; i < N; i++)
        if (cl_end(&cs[i], 0) == CL_FIN)
            fin++;
    CHECK_IN(fin, N - 20, N - 15);
    for (i = 0; i < N; i++)
        CHECK(cs[i].end != CL_RESET);
    check_in_step(&cs[N - 1]);
    cl_close_all(cs, N);
}

/* Several clients are served at full speed at the same time. */
SERVED(load, many_clients, NULL)
{
    enum { N = 4 };
    hammer h[N];
    int stop;

    hammers_start(h, N, f->port, &stop);
    nap(200);
    CHECK_SOON(get_int(&h[0].good) + get_int(&h[N - 1].good) > 500, 8000);
    hammers_stop(h, N, &stop);
}

/* ---------------------------------------------------------------------------
 * >>listen -- sockets of every kind
 * ------------------------------------------------------------------------- */

static void unix_address(struct sockaddr_un *a, const char *path)
{
    size_t n = strlen(path);

    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    if (n < sizeof a->sun_path)
        memcpy(a->sun_path, path, n);
}

static int connect_unix(client *c, const char *path)
{
    struct sockaddr_un a;

    cl_init(c);
    unix_address(&a, path);
    c->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (c->fd >= 0 && connect(c->fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(c->fd);
        c->fd = -1;
    }
    return c->fd >= 0 ? 0 : -1;
}

static int connect_6(client *c, int port)
{
    struct sockaddr_in6 a;

    cl_init(c);
    memset(&a, 0, sizeof a);
    a.sin6_family = AF_INET6;
    a.sin6_port = htons((uint16_t)port);
    a.sin6_addr = in6addr_loopback;
    c->fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (c->fd >= 0 && connect(c->fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(c->fd);
        c->fd = -1;
    }
    return c->fd >= 0 ? 0 : -1;
}

static int have_ipv6(void)
{
    struct sockaddr_in6 a;
    int fd = socket(AF_INET6, SOCK_STREAM, 0), ok;

    memset(&a, 0, sizeof a);
    a.sin6_family = AF_INET6;
    a.sin6_addr = in6addr_loopback;
    ok = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

/* Each Listen has its port, and empm_port() is -1 beyond them. */
TEST(listen, several_sockets_and_their_ports)
{
    fixture f;
    client c;
    int i;

    fx_init(&f);
    for (i = 0; i < 5; i++)
        f.cfg.listen[i] = "127.0.0.1:0";
    if (!fx_up(&f))
        return;
    for (i = 0; i < 5; i++) {
        CHECK(empm_port(f.s, i) > 0);
        if (CHECK_INT(cl_connect_port(&c, empm_port(f.s, i), 0), 0)) {
            check_in_step(&c);
            cl_close(&c);
        }
    }
    CHECK_INT(empm_port(f.s, 5), -1);
    CHECK_INT(empm_port(f.s, -1), -1);
    fx_down(&f);
}

/* Listens as `how` says; four, six: whether that address is to be served. -1:
 * at least one of them is. */
static void check_families(const char *how, int four, int six)
{
    fixture f;
    client c;
    int v4, v6;

    context("listen %s", how);
    fx_init(&f);
    f.cfg.listen[0] = how;
    if (!fx_up(&f))
        return;
    v4 = cl_connect_port(&c, f.port, 0) == 0;
    if (v4)
        check_in_step(&c);
    cl_close(&c);
    v6 = connect_6(&c, f.port) == 0;
    if (v6) {
        check_in_step(&c);
        CHECK_INT(cl_get(&c, "/dump/x"), 200);
        CHECK(strstr(c.body.p, "peer=[::1]:") != NULL);
    }
    cl_close(&c);
    if (four >= 0) {
        CHECK_INT(v4, four);
        CHECK_INT(v6, six);
    } else {
        CHECK(v4 || v6);
    }
    fx_down(&f);
    no_context();
}

/* [::] serves both families unless it says v6only; [::1] serves IPv6 only. */
TEST(listen, ipv6_and_dual)
{
    if (!have_ipv6())
        SKIP("no IPv6 here");
    check_families("[::1]:0", 0, 1);
    check_families("[::]:0", 1, 1);
    check_families("[::]:0 v6only", 0, 1);
    check_families("0", 1, 1);
}

/* Listen takes a name that the system resolves. */
TEST(listen, name)
{
    struct addrinfo *all;

    if (getaddrinfo("localhost", NULL, NULL, &all) != 0)
        SKIP("localhost has no address here");
    freeaddrinfo(all);
    check_families("localhost:0", -1, -1);
}

/* Two wildcards in either order are both served: IPv6 goes first, as in
 * httpd's listen.c. */
TEST(listen, both_wildcards_in_either_order)
{
    static const struct { const char *one, *two; int sockets; } rows[] = {
        { "0.0.0.0:%d", "[::]:%d", 1 }, { "[::]:%d", "0.0.0.0:%d", 1 },
        { "0.0.0.0:%d", "%d", 1 }, { "%d", "0.0.0.0:%d", 1 },
        { "*:%d", "0.0.0.0:%d admin", 1 },
        { "0.0.0.0:%d", "[::]:%d v6only", 2 },
        { "[::]:%d v6only", "0.0.0.0:%d", 2 }
    };

    if (!have_ipv6())
        SKIP("no IPv6 here");
    EACH(rows, i) {
        fixture f;
        client c;
        char text[2][64];
        int k, port, fd = listening_socket(&port);
        close(fd);
        context("%s, then %s", rows[i].one, rows[i].two);
        for (k = 0; k < 2; k++) {
            const char *how = k == 0 ? rows[i].one : rows[i].two,
                       *at = strstr(how, "%d");
            snprintf(text[k], sizeof text[k], "%.*s%d%s", (int)(at - how), how,
                     port, at + 2);
        }
        fx_init(&f);
        f.cfg.listen[0] = text[0];
        f.cfg.listen[1] = text[1];
        if (!fx_up(&f))
            continue;
        CHECK_INT(f.s->nendpoints, rows[i].sockets);
        CHECK_INT(fx_log_has(&f, "EMPM5113"), rows[i].sockets == 1);
        if (CHECK_INT(cl_connect_port(&c, port, 0), 0))
            check_in_step(&c);
        cl_close(&c);
        if (CHECK_INT(connect_6(&c, port), 0))
            check_in_step(&c);
        cl_close(&c);
        fx_down(&f);
    }
}

/* A unix socket has its mode and is removed at the stop. A stale one is
 * replaced, and a file that is no socket is left alone. */
TEST(listen, unix_socket)
{
    fixture f;
    client c;
    struct stat st;
    char path[300], spec[340];
    int round;

    snprintf(path, sizeof path, "/tmp/empm-test-%ld.sock", (long)getpid());
    snprintf(spec, sizeof spec, "unix:%s mode=640", path);
    for (round = 0; round < 2; round++) {
        fx_init(&f);
        f.cfg.listen[0] = spec;
        if (!CHECK_INT(empm_start(&f.cfg, &f.s), EMPM_OK)) {
            fx_close_files(&f);
            return;
        }
        CHECK_INT(empm_port(f.s, 0), 0);
        CHECK(stat(path, &st) == 0 && S_ISSOCK(st.st_mode));
        CHECK_INT(st.st_mode & 0777, 0640);
        if (CHECK_INT(connect_unix(&c, path), 0)) {
            check_in_step(&c);
            CHECK_INT(cl_get(&c, "/dump/x"), 200);
            CHECK(strstr(c.body.p, "peer=") != NULL);
            cl_puts(&c, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
            cl_shut(&c);
            CHECK_INT(cl_reply(&c), 200);
            CHECK_FIN(&c);
        }
        cl_close(&c);
        fx_down(&f);
    }
    /* a stale socket, left by a server that was killed, is in nobody's way */
    unlink(path);
    {
        struct sockaddr_un a;
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        unix_address(&a, path);
        CHECK_INT(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
        close(fd);
    }
    fx_init(&f);
    f.cfg.listen[0] = spec;
    CHECK_INT(empm_start(&f.cfg, &f.s), EMPM_OK);
    if (f.s != NULL && CHECK_INT(connect_unix(&c, path), 0))
        check_in_step(&c);
    cl_close(&c);
    fx_down(&f);
    /* but a file that is no socket is not removed */
    unlink(path);
    write_file(path, "precious", 8);
    fx_init(&f);
    f.cfg.listen[0] = spec;
    CHECK(empm_start(&f.cfg, &f.s) < 0);
    if (f.s != NULL)
        fx_down(&f);
    else
        fx_close_files(&f);
    CHECK(stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 8);
    unlink(path);
}

/* A link in the folder of a socket does not lead root's chmod elsewhere, at
 * the start or at a reload: the folder may belong to somebody else. */
TEST(listen, unix_mode_follows_no_link)
{
    empm__rights want;
    struct stat st;
    char file[300], link_to[300], twin[300], sock[300];
    struct sockaddr_un a;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    want.mode = 0666;
    want.uid = (uid_t)-1;
    want.gid = (gid_t)-1;
    tmp_path(file, sizeof file, "secret");
    tmp_path(link_to, sizeof link_to, "link.sock");
    tmp_path(twin, sizeof twin, "twin.sock");
    tmp_path(sock, sizeof sock, "own.sock");
    CHECK_INT(write_file(file, "x", 1), 0);
    chmod(file, 0600);
    CHECK_INT(symlink(file, link_to), 0);
    CHECK_INT(empm__endpoint_unix_rights(link_to, &want), -1);
    CHECK_INT(empm__endpoint_unix_rights(file, &want), -1);
    CHECK(stat(file, &st) == 0 && (st.st_mode & 0777) == 0600);
    unix_address(&a, sock);
    CHECK_INT(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    chmod(sock, 0600);
    CHECK_INT(link(sock, twin), 0);  /* somebody else's, by another name */
    CHECK_INT(empm__endpoint_unix_rights(twin, &want), -1);
    CHECK(stat(sock, &st) == 0 && (st.st_mode & 0777) == 0600);
    unlink(twin);
    CHECK_INT(empm__endpoint_unix_rights(sock, &want), 0);
    CHECK(stat(sock, &st) == 0 && (st.st_mode & 0777) == 0666);
    close(fd);
    unlink(sock);
    unlink(link_to);
    unlink(file);
}

/* A socket whose backlog is full has a server: a start neither waits for it
 * nor takes its name. */
TEST(listen, unix_socket_with_a_full_backlog_is_in_use)
{
    fixture f;
    struct sockaddr_un a;
    char path[300], spec[340];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), k, c[8];
    struct stat was, is;

    tmp_path(path, sizeof path, "full.sock");
    snprintf(spec, sizeof spec, "unix:%s", path);
    unix_address(&a, path);
    CHECK_INT(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    CHECK_INT(listen(fd, 0), 0);
    for (k = 0; k < 8; k++) {
        c[k] = socket(AF_UNIX, SOCK_STREAM, 0);
        fcntl(c[k], F_SETFL, O_NONBLOCK);
        if (connect(c[k], (struct sockaddr *)&a, sizeof a) != 0)
            CHECK_INT(errno, EAGAIN);
    }
    CHECK_INT(stat(path, &was), 0);
    fx_init(&f);
    f.cfg.listen[0] = spec;
    CHECK(empm_start(&f.cfg, &f.s) < 0);
    CHECK(fx_log_has(&f, "EMPM0072"));
    fx_close_files(&f);
    CHECK(stat(path, &is) == 0 && is.st_ino == was.st_ino);
    for (k = 0; k < 8; k++)
        close(c[k]);
    close(fd);
    unlink(path);
}


static struct addrinfo g_several[4];

static int test_getaddrinfo(const char *host, const char *port,
                            const struct addrinfo *hints,
                            struct addrinfo **list)
{
    static const uint32_t of[4] = { 0xc0000201u, 0x7f000001u, 0x7f000001u,
                                    0x7f000002u };
    static struct sockaddr_in at[4];
    int k;

    if (host != NULL && strcmp(host, "slow.test") == 0) {
        const uint64_t end = now_ms() + 10000;
        set_int(&shm->child_starts, 77);
        while (now_ms() < end)       /* EINTR or not: a resolver goes on */
            nap(1000);
    }
    if (host == NULL || strcmp(host, "several.test") != 0)
        return getaddrinfo(host, port, hints, list);
    for (k = 0; k < 4; k++) {
        memset(&g_several[k], 0, sizeof g_several[k]);
        memset(&at[k], 0, sizeof at[k]);
        at[k].sin_family = AF_INET;
        at[k].sin_port = htons((uint16_t)atoi(port));
        at[k].sin_addr.s_addr = htonl(of[k]);
        g_several[k].ai_family = AF_INET;
        g_several[k].ai_socktype = SOCK_STREAM;
        g_several[k].ai_addr = (struct sockaddr *)&at[k];
        g_several[k].ai_addrlen = sizeof at[k];
        g_several[k].ai_next = k < 3 ? &g_several[k + 1] : NULL;
    }
    *list = g_several;
    return 0;
}

static void test_freeaddrinfo(struct addrinfo *list)
{
    if (list != g_several)
        freeaddrinfo(list);
}

/* A name stands for all its addresses with one port, as in Apache, and an
 * address that the machine has not is left out. The list here has one address
 * twice, too. */
SERVED_WITH(listen, a_name_has_all_its_addresses, T_PLAIN,
            fx_init(f); f->cfg.listen[0] = "several.test:0", NULL)
{
    int k;

    CHECK_INT(f->s->nendpoints, 2);
    CHECK_INT(empm_port(f->s, 1), f->port);
    for (k = 1; k <= 2; k++) {
        struct sockaddr_in a;
        memset(&a, 0, sizeof a);
        a.sin_family = AF_INET;
        a.sin_port = htons((uint16_t)f->port);
        a.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)k - 1);
        cl_init(c);
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (CHECK_INT(connect(c->fd, (struct sockaddr *)&a, sizeof a), 0))
            check_in_step(c);
        cl_close(c);
    }
}

/* Listen fd:N serves on a socket that the program has opened. */
TEST(listen, inherited_descriptor)
{
    fixture f;
    char spec[32];
    int port, fd = listening_socket(&port);

    fx_init(&f);
    snprintf(spec, sizeof spec, "fd:%d", fd);
    f.cfg.listen[0] = spec;
    if (CHECK_INT(empm_start(&f.cfg, &f.s), EMPM_OK)) {
        f.port = empm_port(f.s, 0);
        CHECK_INT(f.port, port);
        CHECK_INT(get_status(&f, "/hello"), 200);
    }
    fx_down(&f);
    if (fcntl(fd, F_GETFD) != -1)   /* ours again, or closed: either is right */
        close(fd);
}

/* All who have the descriptor can shut it down, and accept() fails for ever
 * then: TCP listens again; the rest is served, and nobody spins. */
TEST(listen, somebody_shuts_a_socket_down)
{
    char path[300], text[320], tcp[32];
    struct rusage before, after;
    fixture f;
    client c;
    int k, port, fd = listening_socket(&port);

    close(fd);                       /* a port that was asked for is kept */
    fx_init(&f);
    snprintf(tcp, sizeof tcp, "127.0.0.1:%d", port);
    snprintf(text, sizeof text, "unix:%s", tmp_path(path, sizeof path, "shut"));
    f.cfg.listen[1] = tcp;
    f.cfg.listen[2] = text;
    if (!fx_up(&f))
        return;
    for (k = 1; k < 3; k++)
        shutdown(f.s->endpoints[k].fd, SHUT_RDWR);
    CHECK_SOON(fx_log_has(&f, "opened again") &&
               fx_log_has(&f, "until a restart"), 3000);
    getrusage(RUSAGE_SELF, &before);
    nap(100);
    getrusage(RUSAGE_SELF, &after);
    CHECK((after.ru_utime.tv_sec + after.ru_stime.tv_sec -
           before.ru_utime.tv_sec - before.ru_stime.tv_sec) * 1000000L +
              after.ru_utime.tv_usec + after.ru_stime.tv_usec -
              before.ru_utime.tv_usec - before.ru_stime.tv_usec < 50000);
    for (k = 0; k < 20; k++) {
        if (k == 10)
            f.port = port;
        cl_open(&c, &f);
        CHECK_INT(cl_get(&c, "/hello"), 200);
        cl_close(&c);
    }
    CHECK_INT(fx_log_lines(&f, "a process has shut it down"), 2);
    fx_down(&f);
}

/* ---------------------------------------------------------------------------
 * >>server -- starting and stopping
 * ------------------------------------------------------------------------- */

/* Names may take their time at the start; a stop does not. */
TEST(server, a_stop_ends_a_start_that_waits_for_names)
{
    static const int signals[] = { SIGTERM, SIGINT };
    int i;

    for (i = 0; i < 4; i++) {
        const int sig = signals[i % 2];
        fixture f;
        fx_init_forked(&f, i / 2);   /* without children, too */
        f.cfg.listen[1] = "slow.test:0";
        if (!fx_up(&f))
            return;
        CHECK_SOON(get_int(&shm->child_starts) == 77, 4000);
        signal_process(f.pid, SIGUSR1);      /* is no reason to end */
        nap(10);
        CHECK(!fx_wait(&f, 0));
        signal_process(f.pid, sig);
        CHECK(fx_wait(&f, 1000));
        CHECK(WIFSIGNALED(f.status) && WTERMSIG(f.status) == sig);
        set_int(&shm->child_starts, 0);
        f.status = 0;                /* that is no fault here */
        fx_down(&f);
    }
}

/* A server may start and stop any number of times in one process, and
 * empm_free() alone ends it. */
TEST(server, start_and_stop_many_times)
{
    int i;

    for (i = 0; i < 30; i++) {
        fixture f;
        fx_init(&f);
        if (!fx_up(&f))
            return;
        if (i % 3 != 0)
            CHECK_INT(get_status(&f, "/hello"), 200);
        if (i % 3 == 2) {
            empm_free(f.s);         /* stops and waits itself */
            f.s = NULL;
        }
        fx_down(&f);
    }
    empm_free(NULL);
}

/* A stop may be asked for again, before and after the end. */
SERVED_HERE(server, stop_is_idempotent, NULL)
{
    CHECK_INT(get_status(f, "/hello"), 200);
    empm_stop(f->s);
    empm_stop(f->s);
    empm_stop_graceful(f->s);
    CHECK_INT(empm_wait(f->s, PATIENCE), EMPM_OK);
    CHECK_INT(empm_wait(f->s, 0), EMPM_OK);
    empm_stop(f->s);
    CHECK_INT(get_status(f, "/hello"), -2);    /* refused */
}

/* Several servers in one process do not disturb each other, whichever ends
 * first. */
TEST(server, several_at_once)
{
    static const int order[] = { 1, 0, 3, 2 };
    fixture f[4];
    int i, k, up;

    for (up = 0; up < 4; up++) {
        fx_init(&f[up]);
        if (!fx_up(&f[up]))
            break;
    }
    for (i = 0; i < up; i++)
        CHECK_INT(get_status(&f[i], "/hello"), 200);
    for (i = 0; i < 4; i++) {            /* one goes, the others serve on */
        if (order[i] < up)
            fx_down(&f[order[i]]);
        for (k = i + 1; k < 4; k++)
            if (order[k] < up)
                CHECK_INT(get_status(&f[order[k]], "/hello"), 200);
    }
}

#define PARKED 1000

/* A stop with thousands of idle connections takes no longer than 50 ms. */
TEST(server, stops_fast_with_parked_connections)
{
    static client c[PARKED];
    uint64_t t0, best = 1000000;
    int i, n, round;
    struct rlimit r;

    getrlimit(RLIMIT_NOFILE, &r);
    if (r.rlim_cur < PARKED * 2 + 200)
        SKIP("not enough descriptors allowed");
    for (round = 0; round < 3 && best > 50; round++) {
        fixture f;
        fx_init(&f);
        f.cfg.keep_alive_timeout_ms = 60000;
        if (!fx_up(&f))
            return;
        for (n = 0; n < PARKED; n++) {
            if (cl_open(&c[n], &f) != 0)
                break;
            cl_puts(&c[n], "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        CHECK_INT(n, PARKED);
        for (i = 0; i < n; i++)
            CHECK_INT(cl_reply(&c[i]), 200);
        t0 = now_ms();
        empm_stop(f.s);
        CHECK_INT(empm_wait(f.s, PATIENCE), EMPM_OK);
        if (now_ms() - t0 < best)
            best = now_ms() - t0;
        for (i = 0; i < n; i++) {
            if (i < 20 || i > n - 20)
                CHECK_FIN(&c[i]);
            cl_close(&c[i]);
        }
        fx_down(&f);
    }
    CHECK_IN(best, 0, SCALED(50));
}

/* A stop right after the start waits for nothing. */
TEST(server, stop_before_anything_is_quick)
{
    uint64_t t0, best = 1000000;
    int i;

    /* the best of five: others use the CPU, too */
    for (i = 0; i < 5; i++) {
        fixture f;
        fx_init(&f);
        if (!fx_up(&f))
            return;
        t0 = now_ms();
        empm_stop(f.s);
        CHECK_INT(empm_wait(f.s, PATIENCE), EMPM_OK);
        if (now_ms() - t0 < best)
            best = now_ms() - t0;
        fx_down(&f);
    }
    CHECK_IN(best, 0, SCALED(20));
}

static void stop_on_signal(int sig)
{
    (void)sig;
    empm_stop(g_server);
}

/* empm_stop() may be called in a signal handler. */
SERVED_HERE(server, stop_from_a_signal_handler, NULL)
{
    struct sigaction sa, old;

    CHECK_INT(get_status(f, "/hello"), 200);
    g_server = f->s;
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = stop_on_signal;
    sigaction(SIGUSR2, &sa, &old);
    /* the workers block it: it comes to us */
    signal_process(getpid(), SIGUSR2);
    CHECK_INT(empm_wait(f->s, PATIENCE), EMPM_OK);
    sigaction(SIGUSR2, &old, NULL);
}

/* empm_stop() may be called by a handler, whose answer is still sent. */
SERVED_HERE(server, stop_from_a_handler, NULL)
{
    CHECK_INT(cl_ask(c, "GET /stop HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    CHECK_STR(c->body.p, "stopping\n");
    CHECK_FIN(c);
    cl_close(c);
    CHECK_INT(empm_wait(f->s, PATIENCE), EMPM_OK);
}

/* A stop waits for running handlers, sends their answers and closes their
 * connections. */
SERVED_HERE(server, stop_lets_running_requests_end, NULL)
{
    cl_puts(c, "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_int(&shm->at_gate) == 1, 3000);
    empm_stop(f->s);
    CHECK_INT(empm_wait(f->s, 50), EMPM_ETIMEDOUT);
    set_int(&shm->gate, 1);
    CHECK_INT(cl_reply(c), 200);
    CHECK_STR(c->body.p, "through\n");
    CHECK_INT(c->closes, 1);
    CHECK_FIN(c);
    CHECK_INT(empm_wait(f->s, PATIENCE), EMPM_OK);
}

/* StopTimeout ends connections whose clients read nothing or send half a
 * request. */
SERVED_HERE(server, stop_has_a_deadline_for_clients,
            "StopTimeout 200ms; SendBufferSize 16384")
{
    client d, e;
    uint64_t t0;

    cl_connect_port(c, f->port, 4096);      /* reads nothing */
    cl_puts(c, "GET /big?bytes=3000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    cl_open(&d, f);                        /* half a head */
    cl_puts(&d, "GET /hello HTTP/1.1\r\nHo");
    cl_open(&e, f);                        /* half a body */
    cl_puts(&e, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx");
    CHECK(cl_readable(c, PATIENCE));
    t0 = now_ms();
    empm_stop(f->s);
    CHECK_INT(empm_wait(f->s, PATIENCE), EMPM_OK);
    CHECK_IN(now_ms() - t0, 0, 200 + SCALED(1000));
    cl_close(&d);
    cl_close(&e);
}

/* A graceful stop serves one more request of each idle connection, says close
 * in it, and accepts none. */
SERVED_WITH(server, graceful_stop_closes_no_idle_connection, T_PLAIN,
            fx_init(f); f->cfg.keep_alive_timeout_ms = SCALED(600), NULL)
{
    client idle = client_of(f), lazy = client_of(f), busy = client_of(f);

    check_in_step(&idle);
    check_in_step(&lazy);
    cl_puts(&busy, "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_int(&shm->at_gate) == 1, 3000);
    empm_stop_graceful(f->s);
    CHECK_SOON(get_status(f, "/hello") == -2, 2000);   /* nobody new */
    CHECK_OPEN(&idle);
    CHECK_INT(cl_get(&idle, "/hello"), 200);
    CHECK_INT(idle.closes, 1);
    CHECK_FIN(&idle);
    set_int(&shm->gate, 1);
    CHECK_INT(cl_reply(&busy), 200);
    CHECK_INT(busy.closes, 1);
    CHECK_FIN(&busy);
    CHECK_INT(cl_end(&lazy, PATIENCE), CL_FIN);         /* by its own timeout */
    CHECK_INT(empm_wait(f->s, PATIENCE), EMPM_OK);
    cl_close(&idle);
    cl_close(&lazy);
    cl_close(&busy);
}

/* Lingering connections do not delay a stop, as they did in Apache 2.4.49. */
TEST(server, linger_does_not_delay_a_stop)
{
    int graceful;

    for (graceful = 0; graceful < 2; graceful++) {
        fixture f;
        client c;
        uint64_t t0;
        context("graceful %d", graceful);
        fx_init(&f);
        if (!fx_up(&f))
            return;
        /* refused, and never closed by the client */
        CHECK_INT(ask(&f, &c, "POST /echo HTTP/1.1\r\nHost: a\r\n"
                      "Content-Length: 99999999\r\n\r\nhello"), 413);
        t0 = now_ms();
        (graceful ? empm_stop_graceful : empm_stop)(f.s);
        CHECK_INT(empm_wait(f.s, PATIENCE), EMPM_OK);
        CHECK_IN(now_ms() - t0, 0, 200 + SCALED(500));
        cl_close(&c);
        fx_down(&f);
    }
    no_context();
}

/* GracefulShutdownTimeout ends a graceful stop. */
SERVED_HERE(server, graceful_stop_has_a_deadline,
            "KeepAliveTimeout 60; GracefulShutdownTimeout 200ms")
{
    client idle = client_of(f);
    uint64_t t0;

    check_in_step(&idle);
    t0 = now_ms();
    empm_stop_graceful(f->s);
    CHECK_INT(empm_wait(f->s, PATIENCE), EMPM_OK);
    CHECK_IN(now_ms() - t0, 190, 200 + SCALED(1500));
    cl_close(&idle);
}

/* empm_start() leaves the process's signals, masks, limits, umask and folder
 * as they are. */
SERVED_HERE(server, touches_nothing_of_the_process, NULL)
{
    static const int sigs[] = { SIGPIPE, SIGCHLD, SIGTERM, SIGINT, SIGHUP,
                                SIGUSR1, SIGUSR2, SIGALRM };
    struct sigaction before[8], after;
    sigset_t mask0, mask1;
    struct rlimit r0, r1;
    char cwd0[512], cwd1[512];
    mode_t um0, um1;
    size_t i;
    int j;

    for (i = 0; i < 8; i++)
        sigaction(sigs[i], NULL, &before[i]);
    sigemptyset(&mask0);
    sigemptyset(&mask1);
    pthread_sigmask(SIG_SETMASK, NULL, &mask0);
    getrlimit(RLIMIT_NOFILE, &r0);
    um0 = umask(022);
    umask(um0);
    CHECK(getcwd(cwd0, sizeof cwd0) != NULL);
    CHECK_INT(get_status(f, "/hello"), 200);
    for (i = 0; i < 8; i++) {
        sigaction(sigs[i], NULL, &after);
        CHECK(after.sa_handler == before[i].sa_handler);
    }
    pthread_sigmask(SIG_SETMASK, NULL, &mask1);
    for (j = 1; j < 32; j++)
        CHECK_INT(sigismember(&mask1, j), sigismember(&mask0, j));
    getrlimit(RLIMIT_NOFILE, &r1);
    um1 = umask(022);
    umask(um1);
    CHECK(getcwd(cwd1, sizeof cwd1) != NULL);
    CHECK(r0.rlim_cur == r1.rlim_cur && um0 == um1);
    CHECK_STR(cwd1, cwd0);
}

/* Its workers block the signals that are the program's, but not those that the
 * system, a debugger or a profiler sends to a thread. */
TEST(server, workers_block_what_is_not_theirs)
{
    static const int own[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT,
                              SIGTRAP,
                               SIGSYS, SIGPROF };
    unsigned long long blocked;
    fixture f;
    client c;

    fx_init(&f);
    if (f.forked || !have_proc()) {
        fx_close_files(&f);
        SKIP("for threads of a program with a /proc");
    }
    if (!fx_up(&f))
        return;
    CHECK_INT(ask(&f, &c, "GET /program HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    blocked = signals_in(c.body.p, "SigBlk:");
    EACH(own, i)
        CHECK_INT(blocked >> (own[i] - 1) & 1, 0);
    CHECK_INT(blocked >> (SIGTERM - 1) & 1, 1);
    CHECK_INT(blocked >> (SIGPIPE - 1) & 1, 1);
    cl_close(&c);
    fx_down(&f);
}

static int hk_thread_start(empm_server *s, void **data, void *user)
{
    static int numbers[64];
    int i = add_int(&shm->thread_starts, 1);

    (void)s;
    (void)user;
    numbers[i % 64] = i;
    *data = &numbers[i % 64];
    return 0;
}

static void hk_thread_stop(empm_server *s, void *data, void *user)
{
    (void)s;
    (void)user;
    CHECK(data != NULL);
    add_int(&shm->thread_stops, 1);
}

static void hk_child_stop(empm_server *s, void *user)
{
    (void)s;
    (void)user;
    add_int(&shm->child_stops, 1);
}

/* Each start and stop hook runs once per child and once per thread. */
LIVE(server, hooks)
{
    fixture f;
    client c;

    fx_init(&f);
    f.cfg.on_child_stop = hk_child_stop;
    f.cfg.on_thread_start = hk_thread_start;
    f.cfg.on_thread_stop = hk_thread_stop;
    if (!fx_up(&f))
        return;
    CHECK_INT(ask(&f, &c, "GET /thread HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    CHECK_IN(strtol(c.body.p, NULL, 10), 1, 4);
    cl_close(&c);
    fx_down(&f);
    CHECK_INT(get_int(&shm->thread_starts), 4);
    CHECK_INT(get_int(&shm->thread_stops), 4);
    CHECK_INT(get_int(&shm->child_starts), 1);
    CHECK_INT(get_int(&shm->child_stops), 1);
}

static int hk_give_up(empm_server *s, void *user)
{
    fx_child_start(s, user);
    return 1;
}

/* An on_child_start that fails makes empm_start() fail. */
TEST(server, child_hook_may_give_up)
{
    fixture f;

    fx_init(&f);
    f.cfg.on_child_start = hk_give_up;
    CHECK(empm_start(&f.cfg, &f.s) < 0);
    CHECK(f.s == NULL);
    fx_close_files(&f);
}

/* The third worker has no database, while shm->rc[0] says so; after a while. */
static int hk_third_thread_fails(empm_server *s, void **data, void *user)
{
    const int number = hk_thread_start(s, data, user) == 0
                           ? get_int(&shm->thread_starts) : 0;

    if (get_int(&shm->rc[0]) == 0 || number < 3)
        return 0;
    nap(get_int(&shm->rc[1]));
    add_int(&shm->rc[2], 1);
    return -42;
}

/* An on_thread_start that fails makes empm_start() fail, and each hook that
 * has begun has its end. */
TEST(server, thread_hook_may_give_up)
{
    fixture f;

    fx_init(&f);
    f.cfg.on_child_stop = hk_child_stop;
    f.cfg.on_thread_start = hk_third_thread_fails;
    f.cfg.on_thread_stop = hk_thread_stop;
    set_int(&shm->rc[0], 1);
    CHECK_INT(empm_start(&f.cfg, &f.s), EMPM_ESYS);
    CHECK(f.s == NULL);
    CHECK(fx_log_has(&f, "EMPM5007: on_thread_start has returned -42"));
    CHECK_INT(get_int(&shm->thread_starts), 4);
    /* who has begun well is ended as well */
    CHECK(get_int(&shm->rc[2]) > 0);
    CHECK_INT(get_int(&shm->thread_stops), 4 - get_int(&shm->rc[2]));
    CHECK_INT(get_int(&shm->child_starts), 1);
    CHECK_INT(get_int(&shm->child_stops), 1);
    fx_close_files(&f);
}

/* A child serves no request before all of its thread hooks have succeeded. */
TEST(server, nobody_is_served_before_the_hooks_are_done)
{
    fixture f;
    client c;

    fx_init_forked(&f, 1);
    f.cfg.on_thread_start = hk_third_thread_fails;
    f.deaths_ok = 1;
    f.failure_ok = 1;
    set_int(&shm->rc[0], 1);
    set_int(&shm->rc[1], 100);
    if (!fx_up(&f))
        return;
    cl_open(&c, &f);
    cl_puts(&c, GET1 "\r\n");
    CHECK_INT(cl_reply(&c), 0);      /* never: the start is given up instead */
    cl_close(&c);
    CHECK(fx_wait(&f, PATIENCE));
    CHECK(fx_log_has(&f, "EMPM5007: on_thread_start has returned -42"));
    CHECK(fx_log_has(&f, "EMPM2324"));
    fx_down(&f);
}

/* A stop under load ends: Apache bugs 56960 and 65769 were deadlocks of
 * listener and workers. */
TEST(server, stop_under_load)
{
    hammer h[4];
    int stop, round;

    for (round = 0; round < 10; round++) {
        fixture f;
        fx_init(&f);
        f.cfg.threads_per_child = 1 + round % 4;
        if (!fx_up(&f))
            return;
        hammers_start(h, 4, f.port, &stop);
        CHECK_SOON(fx_log_has(&f, "x") || get_status(&f, "/hello") == 200,
                   2000);
        nap(round);
        empm_stop(f.s);
        if (round & 1)
            empm_stop_graceful(f.s);
        CHECK_INT(empm_wait(f.s, PATIENCE), EMPM_OK);
        hammers_stop(h, 4, &stop);
        fx_down(&f);
    }
}

/* ---------------------------------------------------------------------------
 * >>process -- parent and children
 * ------------------------------------------------------------------------- */

static int wait_children(fixture *f, int n, long *kids, int ms)
{
    uint64_t end = now_ms() + (uint64_t)ms;
    int got;

    while ((got = children_of(f->pid, kids, 16)) != n && got >= 0 &&
           now_ms() < end)
        nap(1);
    return got;
}

static long ask_pid(const fixture *f)
{
    client c;
    long pid = -1;

    if (cl_connect_port(&c, f->port, 0) != 0)
        return -2;
    cl_puts(&c, "GET /pid HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    if (cl_reply(&c) == 200)
        pid = strtol(c.body.p, NULL, 10);
    cl_close(&c);
    return pid;
}

static int is_among(long pid, const long *kids, int n)
{
    while (n-- > 0)
        if (kids[n] == pid)
            return 1;
    return 0;
}

/* A crash costs the connections of one child: the other goes on, and a new
 * child is there at once. */
SERVED_BY(process, crash_costs_one_child, 2, LONG_TIMES)
{
    client other = client_of(f);
    long kids[16], after[16];
    uint64_t t0;
    int i, n, best = 100000;

    f->deaths_ok = 1;
    if (wait_children(f, 2, kids, PATIENCE) < 0)
        SKIP("no /proc to see children in");
    CHECK_SOON(get_int(&shm->child_starts) == 2, 4000);
    for (i = 0; i < 4; i++) {
        char number[32];
        long victim;
        context("crash %d", i);
        /* two connections to different children */
        CHECK_INT(cl_get(&other, "/pid"), 200);
        victim = 0;
        for (n = 0; n < 500; n++) {
            CHECK_INT(cl_get(c, "/pid"), 200);
            victim = strtol(c->body.p, NULL, 10);
            if (victim != strtol(other.body.p, NULL, 10))
                break;
            cl_close(c);
        }
        if (n == 500) {             /* the other child gets nothing here */
            cl_close(&other);
            fail(__FILE__, __LINE__, "one child has got everything");
            break;
        }
        cl_puts(c, "GET /crash HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK_INT(cl_reply(c), 0);
        CHECK(c->end != 0);
        t0 = now_ms();
        cl_close(c);
        CHECK_INT(get_status(f, "/hello"), 200);   /* the other one serves */
        check_in_step(&other);                      /* and keeps its clients */
        while ((n = wait_children(f, 2, after, SCALED(1000))) == 2 &&
               is_among(victim, after, n) && now_ms() - t0 < 5000)
            nap(1);
        CHECK_INT(n, 2);
        if ((int)(now_ms() - t0) < best)
            best = (int)(now_ms() - t0);
        snprintf(number, sizeof number, "%ld", victim);
        CHECK_SOON(fx_log_has(f, number), 1000);
        cl_close(&other);
        CHECK_SOON(get_int(&shm->child_starts) == 3 + i, 3000);
    }
    no_context();
    CHECK(fx_log_has(f, "egmentation"));
    CHECK_IN(best, 0, SCALED(100));     /* the new child is there */
}

/* A handler that ends its process, or its thread, is a crash that is named. */
SERVED_BY(process, handlers_that_end_more_than_a_request, 1, NULL)
{
    static const struct { const char *path, *log; } rows[] = {
        { "/quit",          "status 0: nobody has asked it to" },
        { "/quit?thread=1", "EMPM5002: a handler has ended its thread" }
    };

    f->deaths_ok = 1;
    EACH(rows, i) {
        CHECK(get_status(f, rows[i].path) <= 0);
        CHECK_SOON(fx_log_has(f, rows[i].log), 2000);
        CHECK_INT(get_status(f, "/hello"), 200);
    }
}

/* A child that is killed is replaced, and connections wait in the backlog
 * meanwhile: Apache 2.4.54 had a fault here. */
SERVED_BY(process, killed_child_is_replaced, 1, NULL)
{
    long kids[16], after[16];
    int n;

    f->deaths_ok = 1;
    if (wait_children(f, 1, kids, PATIENCE) != 1)
        SKIP("no /proc to see children in");
    CHECK_INT(get_status(f, "/hello"), 200);
    signal_process((pid_t)kids[0], SIGKILL);
    CHECK_INT(get_status(f, "/hello"), 200);   /* waits in the backlog */
    n = wait_children(f, 1, after, PATIENCE);
    CHECK_INT(n, 1);
    CHECK(n == 1 && after[0] != kids[0]);
}

/* A child that has served is replaced at once, however young it dies and
 * however often that happens: the next one will serve, too. */
SERVED_BY(process, young_children_are_replaced_at_once, 1, NULL)
{
    enum { KILLS = 9 };
    long kids[16] = { 0 }, last = 0;
    uint64_t t0;
    int i;

    f->deaths_ok = 1;
    if (wait_children(f, 1, kids, PATIENCE) != 1)
        SKIP("no /proc to see children in");
    t0 = now_ms();
    for (i = 0; i < KILLS && kids[0] != last; i++) {
        CHECK_INT(get_status(f, "/hello"), 200);
        last = kids[0];
        signal_process((pid_t)last, SIGKILL);
        CHECK_SOON(wait_children(f, 1, kids, PATIENCE) == 1 && kids[0] != last,
                   1000);
    }
    CHECK_INT(get_status(f, "/hello"), 200);
    CHECK_IN(now_ms() - t0, 0, (uint64_t)SCALED(4000));
}

/* The parent undoes a child's changes to a shared socket, at a death and each
 * WatchdogInterval. */
TEST(process, shared_sockets_are_set_right)
{
    fixture f;
    struct sockaddr_in a;
    const int on = 1;
    char spec[32];
    long kids[16];
    int port, fd = listening_socket(&port);

    close(fd);                       /* a port that was asked for is kept */
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_port = htons((uint16_t)port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    CHECK_INT(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    CHECK_INT(listen(fd, 8), 0);
    fx_init_forked(&f, 1);
    f.deaths_ok = 1;
    snprintf(spec, sizeof spec, "fd:%d", fd);
    f.cfg.listen[1] = spec;
    if (!fx_up(&f)) {
        close(fd);
        return;
    }
    CHECK_SOON(fx_log_has(&f, "EMPM0489"), 4000);
    if (wait_children(&f, 1, kids, PATIENCE) == 1) {
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
        shutdown(fd, SHUT_RD);       /* ours and the child's: one socket */
        signal_process((pid_t)kids[0], SIGKILL);
        CHECK_SOON((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0, 4000);
        CHECK_SOON(fx_log_has(&f, "opened again"), 4000);
        f.port = port;
        CHECK_INT(get_status(&f, "/hello"), 200);
    }
    fx_down(&f);
    close(fd);
}

static int hk_die(empm_server *s, void *user)
{
    fx_child_start(s, user);
    return 1;
}

/* Children that die at their start are not replaced in a loop. */
SERVED_WITH(process, children_that_die_at_once_are_throttled, T_PLAIN,
            fx_init_forked(f, 2); f->cfg.on_child_start = hk_die, NULL)
{
    f->deaths_ok = 1;
    fx_wait(f, 1000);              /* it may give up, and say so */
    CHECK_IN(get_int(&shm->child_starts), 1, 60);
    CHECK(fx_log_has(f, "exited"));
    f->failure_ok = 1;
}

static int hk_die_late(empm_server *s, void *user)
{
    fx_child_start(s, user);
    nap(1050);                       /* longer than a death that is "young" */
    return !s->engine.admin;
}

/* Any death before a child is healthy counts. The child for admin listeners is
 * well and says nothing about those that serve: /health is 503. */
TEST(process, a_start_that_cannot_succeed_is_given_up)
{
    fixture f;
    char admin[64];
    int fd, port;
    client c;

    fx_init_forked(&f, 3);
    f.deaths_ok = f.failure_ok = 1;
    f.cfg.on_child_start = hk_die_late;
    fd = listening_socket(&port);
    snprintf(admin, sizeof admin, "fd:%d admin", fd);
    f.cfg.listen[1] = admin;
    if (!fx_up(&f))
        return;
    close(fd);
    CHECK_INT(cl_connect_port(&c, port, 0), 0);
    CHECK_INT(cl_get(&c, "/health"), 503);
    CHECK_STR(c.body.p, "no child serves\n");
    cl_close(&c);
    CHECK(fx_wait(&f, SCALED(3000)));
    CHECK(fx_log_has(&f, "EMPM2324: no child has ever become healthy"));
    CHECK(!fx_log_has(&f, "EMPM0484"));
    fx_down(&f);
}

static int hk_hang(empm_server *s, void *user)
{
    fx_child_start(s, user);
    nap(60000);
    return 0;
}

/* A first generation has StartTimeout, as any later one has. */
SERVED_WITH(process, a_start_has_its_time, T_PLAIN,
            fx_init_forked(f, 1); f->cfg.start_timeout_ms = SCALED(300);
            f->cfg.on_child_start = hk_hang, "StopTimeout 1ms")
{
    f->deaths_ok = f->failure_ok = 1;
    CHECK(fx_wait(f, SCALED(4000)));
    CHECK(fx_log_has(f, "EMPM2324: no child is healthy after StartTimeout"));
}

/* A parent that cannot start a child says why; here it has no descriptors. */
TEST(process, why_no_child_can_be_started_is_said)
{
    struct rlimit r, none;
    empm__report rep;
    empm__parent p;
    empm__child kids[4];
    fixture f;

    if (g_slow >= 8)
        SKIP("valgrind has descriptors of its own above any limit");
    fx_init(&f);
    f.cfg.processes = 1;
    memset(&rep, 0, sizeof rep);
    memset(&p, 0, sizeof p);
    memset(kids, 0, sizeof kids);
    if (!CHECK_INT(empm__server_new(&f.cfg, 1, NULL, &rep, &p.now.s), EMPM_OK))
        return;
    p.now.cfg = &f.cfg;
    p.children = kids;
    p.slots = 4;
    getrlimit(RLIMIT_NOFILE, &r);
    none = r;
    none.rlim_cur = 3;
    setrlimit(RLIMIT_NOFILE, &none);
    CHECK_INT(empm__child_start(&p, &p.now, 0), EMPM_ESYS);
    setrlimit(RLIMIT_NOFILE, &r);
    CHECK(fx_log_has(&f, "EMPM0481: cannot start a child: socketpair: "));
    empm__server_free(p.now.s);
    fx_close_files(&f);
}

/* Children whose parent is killed finish their requests and end. */
SERVED_BY(process, children_leave_when_the_parent_is_killed, 2, LONG_TIMES)
{
    client idle = client_of(f);
    const pid_t group = f->pid;
    long kids[16];
    int i, n = wait_children(f, 2, kids, PATIENCE);

    if (n < 0)
        SKIP("no /proc to see children in");
    CHECK_INT(n, 2);
    check_in_step(&idle);
    cl_puts(c, "GET /sleep?ms=300 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(!cl_readable(c, 50));
    signal_process(f->pid, SIGKILL);
    CHECK(fx_wait(f, PATIENCE));
    f->pid = 0;
    CHECK_INT(cl_reply(c), 200);   /* what runs is finished */
    CHECK_STR(c->body.p, "slept\n");
    if (!CHECK(fx_reap(f, group, SCALED(4000))))
        signal_group(group, SIGKILL);
    fx_reap(f, group, 500);
    for (i = 0; i < n; i++)
        CHECK(signal_process((pid_t)kids[i], 0) != 0);
    cl_close(&idle);
}

/* TERM and INT stop at once, WINCH gracefully; a running request is answered
 * in all cases. */
TEST(process, stop_signals)
{
    static const int sigs[] = { SIGTERM, SIGINT, SIGWINCH };
    int i;

    for (i = 0; i < 3; i++) {
        fixture f;
        client running, idle;
        uint64_t t0;
        context("signal %d", sigs[i]);
        fx_init_forked(&f, 2);
        long_times(&f);
        f.cfg.keep_alive_timeout_ms = 800;
        if (!fx_up(&f))
            return;
        cl_open(&idle, &f);
        check_in_step(&idle);
        cl_open(&running, &f);
        cl_puts(&running, "GET /sleep?ms=400 HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK(!cl_readable(&running, 60));
        t0 = now_ms();
        signal_process(f.pid, sigs[i]);
        if (sigs[i] == SIGWINCH)
            CHECK_OPEN(&idle);
        else
            CHECK_INT(cl_end(&idle, SCALED(250)), CL_FIN);
        CHECK_INT(cl_reply(&running), 200);
        CHECK_STR(running.body.p, "slept\n");
        CHECK_INT(running.closes, 1);
        CHECK_FIN(&running);
        CHECK(fx_wait(&f, PATIENCE));
        CHECK(WIFEXITED(f.status) && WEXITSTATUS(f.status) == 0);
        CHECK_IN(now_ms() - t0, 0, 900 + SCALED(1000));
        CHECK_INT(get_status(&f, "/hello"), -2);
        if (fx_reap(&f, f.pid, SCALED(1000)))
            f.pid = 0;
        cl_close(&idle);
        cl_close(&running);
        fx_down(&f);
    }
    no_context();
}

/* A stop of children with hundreds of idle connections is fast. */
SERVED_BY(process, stop_is_fast_with_parked_connections, 2, LONG_TIMES)
{
    enum { N = 300 };
    static client cs[N];
    uint64_t t0;
    int i;

    for (i = 0; i < N; i++) {
        cl_open(&cs[i], f);
        cl_puts(&cs[i], GET1 "\r\n");
    }
    for (i = 0; i < N; i++)
        CHECK_INT(cl_reply(&cs[i]), 200);
    t0 = now_ms();
    signal_process(f->pid, SIGTERM);
    CHECK(fx_wait(f, PATIENCE));
    CHECK_IN(now_ms() - t0, 0, SCALED(400));
    cl_close_all(cs, N);
    if (fx_reap(f, f->pid, SCALED(1000)))
        f->pid = 0;
}

/* Connections that come together are spread over the children. */
SERVED_BY(process, connections_are_spread, 2, LONG_TIMES)
{
    enum { N = 200 };
    static client cs[N];
    long kids[16];
    int i, round, first = 0, n;

    n = wait_children(f, 2, kids, PATIENCE);
    if (n != 2)
        SKIP("no /proc to see children in");
    CHECK_SOON(get_int(&shm->child_starts) == 2, 4000);
    /* while others use the CPU, a child may have none for a while: five
     * tries */
    for (round = 0; round < 5; round++) {
        for (i = 0; i < N; i++) {
            cl_open(&cs[i], f);
            cl_puts(&cs[i], "GET /pid HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        first = 0;
        for (i = 0; i < N; i++) {
            CHECK_INT(cl_reply(&cs[i]), 200);
            first += strtol(cs[i].body.p, NULL, 10) == kids[0];
            cl_close(&cs[i]);
        }
        if (first >= N / 10 && first <= N - N / 10)
            break;
    }
    CHECK_IN(first, N / 10, N - N / 10);
}

/* A child leaves after MaxConnectionsPerChild connections, and the account of
 * connections stays right (Apache bug 65592). */
SERVED_BY(process, max_connections_per_child, 1, "MaxConnectionsPerChild 5")
{
    long pids[64], kids[16];
    int i, n = 0;

    f->deaths_ok = 1;
    for (i = 0; i < 40; i++) {
        long pid = ask_pid(f);
        CHECK(pid > 0);
        if (n < 64 && !is_among(pid, pids, n))
            pids[n++] = pid;
    }
    CHECK_IN(n, 4, 10);
    CHECK_SOON(children_of(f->pid, kids, 16) <= 1, 3000);
}

/* A dynamic server starts children while threads are busy and ends the surplus
 * later. */
TEST(process, spare_threads)
{
    enum { N = 4 };
    fixture f;
    client c[N];
    long kids[16];
    int i;

    fx_init_forked(&f, -1);
    long_times(&f);
    f.cfg.start_servers = 1;
    f.cfg.server_limit = 4;
    f.cfg.threads_per_child = 2;
    f.cfg.max_request_workers = 8;
    f.cfg.min_spare_threads = 2;
    f.cfg.max_spare_threads = 4;
    if (!fx_up(&f))
        return;
    if (wait_children(&f, 1, kids, PATIENCE) != 1) {
        fx_down(&f);
        SKIP("no /proc to see children in");
    }
    CHECK_INT(get_status(&f, "/hello"), 200);
    for (i = 0; i < N; i++) {       /* more than one child can take */
        cl_open(&c[i], &f);
        cl_puts(&c[i], "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK_SOON(get_int(&shm->at_gate) == i + 1, 6000);
        nap(SCALED(20));            /* it takes 1 ms to know oneself blocked */
    }
    CHECK_IN(children_of(f.pid, kids, 16), 2, 4);
    CHECK_INT(get_status(&f, "/hello"), 200);
    set_int(&shm->gate, 1);
    for (i = 0; i < N; i++) {
        CHECK_INT(cl_reply(&c[i]), 200);
        cl_close(&c[i]);
    }
    /* and the surplus goes again */
    CHECK_SOON(children_of(f.pid, kids, 16) <= 2, 8000);
    CHECK_INT(get_status(&f, "/hello"), 200);
    fx_down(&f);
}

static void few_descriptors(void)
{
    struct rlimit r;

    r.rlim_cur = r.rlim_max = 64;
    setrlimit(RLIMIT_NOFILE, &r);
}

static void descriptors_run_out(int processes, int max_open)
{
    enum { N = 200 };
    static client c[N];
    fixture f;
    long kids[16], pid;
    long long cpu0;
    int i, n;

    fx_init_forked(&f, processes);
    f.in_child = few_descriptors;
    long_times(&f);
    f.cfg.max_open_connections = max_open;
    if (!fx_up(&f))
        return;
    CHECK_INT(get_status(&f, "/hello"), 200);
    for (i = 0; i < N; i++) {
        cl_open(&c[i], &f);
        if (i % 2)
            cl_puts(&c[i], "GET /hello HTTP/1.1\r\nHo");
        else
            cl_puts(&c[i], GET1 "\r\n");
    }
    nap(SCALED(200));
    pid = f.pid;
    n = processes > 0 ? children_of(f.pid, kids, 16) : 0;
    if (n > 0)
        pid = kids[0];
    cpu0 = cpu_ms_of(pid) + cpu_ms_of(f.pid);
    nap(700);
    CHECK_IN(cpu_ms_of(pid) + cpu_ms_of(f.pid) - cpu0, 0, 60 + SCALED(40));
    for (i = 0; i < N; i++)
        cl_close(&c[i]);
    for (i = 0; i < 10; i++)
        CHECK_INT(get_status(&f, "/hello"), 200);
    fx_down(&f);
}

/* A server without free descriptors waits for some to be closed; it neither
 * spins nor ends. */
TEST(process, descriptors_run_out)
{
    context("one child");
    descriptors_run_out(1, 0);
    context("one child, no bound of its own");
    descriptors_run_out(1, 5000);
    context("no child");
    descriptors_run_out(0, 0);
    no_context();
}

/* A server at rest has no periodic wake-up in parent or children (Apache bug
 * 57399). */
SERVED_BY(process, resting_server_is_silent, 2, LONG_TIMES)
{
    client cs[10];
    long who[16];
    long long before[16], cpu = 0, sum = 0;
    int i, n;

    for (i = 0; i < 10; i++) {
        cl_open(&cs[i], f);
        check_in_step(&cs[i]);
    }
    nap(1500);
    n = children_of(f->pid, who, 15);
    if (n >= 0)
        who[n++] = f->pid;
    for (i = 0; i < n; i++)
        before[i] = wakeups_of(who[i]) + cpu_ms_of(who[i]);
    nap(1200);
    for (i = 0; i < n; i++) {
        sum += wakeups_of(who[i]) + cpu_ms_of(who[i]) - before[i];
        cpu += cpu_ms_of(who[i]);
    }
    if (n > 0 && g_slow == 1)
        CHECK_IN(sum, 0, 2);
    CHECK_IN(cpu, 0, SCALED(500));
    cl_close_all(cs, 10);
}

/* Private memory of a process in bytes. */
static long long memory_of(long pid)
{
    char path[64], line[256];
    long long sum = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%ld/smaps_rollup", pid);
    f = fopen(path, "r");
    if (f == NULL)
        return -1;
    while (fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, "Private_Dirty:", 14) == 0)
            sum += strtoll(line + 14, NULL, 10) * 1024;
    fclose(f);
    return sum;
}

/* An idle connection takes at most 300 bytes of memory. */
SERVED_BY(process, idle_connections_are_cheap, 1, LONG_TIMES)
{
#ifdef EVENTMPM_POLL
    enum { N = 1500 };              /* each look is at all of them */
#else
    enum { N = 6000 };
#endif
    static client cs[N];
    struct rlimit r;
    long kids[4];
    long long before = 0, after = 0;
    int i;

    getrlimit(RLIMIT_NOFILE, &r);
    if (r.rlim_cur < N + 200)
        SKIP("not enough descriptors allowed");
    if (g_slow > 1)
        SKIP("a sanitizer's memory says nothing");
    for (i = 0; i < N; i++) {
        if (cl_connect_port(&cs[i], f->port, 0) != 0)
            break;
        CHECK_INT(cl_get(&cs[i], "/hello"), 200);
        str_free(&cs[i].in);
        str_free(&cs[i].head);
        str_free(&cs[i].body);
        str_free(&cs[i].trailer);
        if (i == N / 3 && children_of(f->pid, kids, 4) == 1)
            before = memory_of(kids[0]);
    }
    CHECK_INT(i, N);
    after = memory_of(kids[0]);
    if (before > 0)
        CHECK_IN((after - before) / (N - N / 3), 0, 300);
    while (i-- > 0)
        cl_close(&cs[i]);
    CHECK_INT(get_status(f, "/hello"), 200);
}

/* Without children empm_run() serves in its own process and ends at INT and
 * WINCH. */
TEST(process, run_without_children)
{
    fixture f;
    client c;
    long kids[4];
    int i;

    for (i = 0; i < 2; i++) {
        fx_init_forked(&f, 0);
        f.cfg.keep_alive_timeout_ms = 500;
        if (!fx_up(&f))
            return;
        CHECK_INT(ask(&f, &c, GET1 "\r\n"), 200);
        CHECK_IN(children_of(f.pid, kids, 4), -1, 0);
        signal_process(f.pid, i ? SIGWINCH : SIGINT);
        cl_puts(&c, GET1 "\r\n");
        cl_drain(&c, PATIENCE);
        CHECK(fx_wait(&f, PATIENCE));
        CHECK(WIFEXITED(f.status) && WEXITSTATUS(f.status) == 0);
        f.pid = 0;
        cl_close(&c);
        fx_down(&f);
    }
}

/* A handler that outlasts StopTimeout is no reason to leave files behind. */
TEST(process, a_late_end_without_children_leaves_no_files)
{
    char pid_file[300], path[300], text[310];
    fixture f;
    client c;

    tmp_path(pid_file, sizeof pid_file, "late.pid");
    tmp_path(path, sizeof path, "late.sock");
    snprintf(text, sizeof text, "unix:%s", path);
    fx_init_forked(&f, 0);
    f.cfg.stop_timeout_ms = 1;
    f.cfg.pid_file = pid_file;
    f.cfg.listen[1] = text;
    if (!fx_up(&f))
        return;
    CHECK_SOON(fx_log_has(&f, "EMPM0489"), 4000);
    CHECK(access(pid_file, F_OK) == 0 && access(path, F_OK) == 0);
    cl_open(&c, &f);
    cl_puts(&c, "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_int(&shm->at_gate) == 1, 2000);
    signal_process(f.pid, SIGTERM);
    CHECK(fx_wait(&f, PATIENCE));
    CHECK(fx_log_has(&f, "EMPM5012"));
    CHECK(access(pid_file, F_OK) != 0);
    CHECK(access(path, F_OK) != 0);
    cl_close(&c);
    fx_down(&f);
}

static void given_by_a_manager(void)
{
    setenv("NOTIFY_SOCKET", "/no/such/socket", 1);
    setenv("WATCHDOG_USEC", "60000000", 1);
}

/* A program that a handler starts with popen() or system() blocks and ignores
 * no signal on the server's account, and does not speak to the service
 * manager. */
TEST(process, programs_of_handlers_start_as_from_a_shell)
{
    char blocked[100], ignored[100];
    fixture f;
    client c;
    int kids;

    status_line((long)getpid(), "SigBlk:", blocked, sizeof blocked);
    status_line((long)getpid(), "SigIgn:", ignored, sizeof ignored);
    if (ignored[0] == 0)
        SKIP("no /proc to see masks in");
    for (kids = 0; kids < 2; kids++) {
        context("%d children", kids);
        fx_init_forked(&f, kids);
        f.in_child = given_by_a_manager;
        if (!fx_up(&f))
            break;
        CHECK_INT(ask(&f, &c, "GET /program HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
        CHECK(strstr(c.body.p, "ended 0\n") != NULL);
        CHECK((signals_in(c.body.p, "SigBlk:") &
               ~signals_in(blocked, "SigBlk:")) == 0);
        CHECK((signals_in(c.body.p, "SigIgn:") &
               ~signals_in(ignored, "SigIgn:")) == 0);
        CHECK(strstr(c.body.p, "NOTIFY_SOCKET") == NULL);
        CHECK(strstr(c.body.p, "WATCHDOG_") == NULL);
        cl_close(&c);
        fx_down(&f);
    }
    no_context();
}

#ifdef __linux__

/* As process 1, without children, it reaps what others have left, and leaves to
 * handlers what they have started. */
static int orphans_main(void)
{
    fixture f;
    client c;
    pid_t pid;
    int k, left = -1;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fx_init_forked(&f, 0);
    k = listening_socket(&f.port);
    snprintf(f.listen0, sizeof f.listen0, "fd:%d", k);
    f.cfg.listen[0] = f.listen0;
    f.cfg.user_name = "root";
    if ((pid = fork()) != 0) {       /* we are process 1: a server */
        waitpid(pid, NULL, 0);
        return empm_run(&f.cfg) == EMPM_OK ? 0 : 9;
    }
    if (fork() != 0)                 /* who asks is an orphan itself */
        _exit(0);
    close(k);
    if (ask(&f, &c, "GET /program?ms=100 HTTP/1.1\r\nHost: a\r\n\r\n") != 200 ||
        strstr(c.body.p, "ended 0\n") == NULL)
        _exit(1);
    set_int(&shm->rc[1], 1);
    if ((pid = fork()) == 0) {       /* its child becomes one, and ends */
        if ((pid = fork()) == 0) {
            nap(20);
            _exit(0);
        }
        set_int(&shm->rc[2], (int)pid);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    for (k = 0; k < 2000 && left != 0; k++) {
        nap(1);
        left = signal_process(get_int(&shm->rc[2]), 0) == 0;
    }
    set_int(&shm->rc[1], left ? 2 : 3);
    signal_process(1, SIGTERM);
    _exit(0);
}

/* A server without children that is process 1 reaps orphans, and leaves to
 * handlers the processes that these have started. */
TEST(process, orphans_are_reaped_without_children_too)
{
    pid_t pid;
    int status = -1;

    memset(shm, 0, sizeof *shm);
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        if (syscall(SYS_unshare, 0x20000000) != 0)   /* CLONE_NEWPID */
            _exit(77);
        pid = fork();
        if (pid == 0)
            _exit(orphans_main());
        waitpid(pid, &status, 0);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 8);
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        SKIP("no namespace of processes to be had");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_INT(get_int(&shm->rc[1]), 3);
}

/* A child that cannot be told to accept, since it has not read its orders for
 * long, is told again, whether or not another child speaks up. */
TEST(process, an_order_that_has_no_room_is_given_again)
{
    empm__parent p;
    empm__child child;
    empm_server *s = (empm_server *)calloc(1, sizeof *s);
    char order = 0;
    int fd[2];

    if (!CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0))
        return;
    memset(&p, 0, sizeof p);
    memset(&child, 0, sizeof child);
    p.now.s = s;
    p.children = &child;
    p.slots = child.healthy = 1;
    child.pid = getpid();
    child.control = fd[1];
    fcntl(fd[0], F_SETFL, O_NONBLOCK);
    fcntl(fd[1], F_SETFL, O_NONBLOCK);
    while (write(fd[1], "w", 1) == 1)
        continue;
    CHECK_IN((long)(empm__children_accept(&p) - empm__now_us()) / 1000, 1,
             1000);
    CHECK_INT(child.accepts, 0);
    while (read(fd[0], &order, 1) == 1)
        CHECK_INT(order, 'w');
    CHECK_INT(empm__children_accept(&p), 0);
    CHECK_INT(child.accepts, 1);
    CHECK(read(fd[0], &order, 1) == 1 && order == 'a');
    CHECK_INT(empm__children_accept(&p), 0);     /* once is enough */
    CHECK(read(fd[0], &order, 1) < 0);
    close(fd[0]);
    close(fd[1]);
    free(s);
}

/* --- terminals ------------------------------------------------------------ */

static int g_terminal;               /* our end of the terminal of the server */

/* In a session of its own on that terminal, though stdin and the like lead
 * elsewhere; hung up on, nohup keeps it. */
static void on_terminal(void)
{
    char path[32];
    int n = 0, fd;

    setpgid(0, getpgid(getppid()));
    setsid();
    signal(SIGHUP, SIG_DFL);
    ioctl(g_terminal, TIOCGPTN, &n);
    snprintf(path, sizeof path, "/dev/pts/%d", n);
    fd = open(path, O_RDWR);
    if (fd < 0 || ioctl(fd, TIOCSCTTY, 0) != 0)
        _exit(6);
    close(g_terminal);
}

static void on_terminal_with_nohup(void)
{
    on_terminal();
    signal(SIGHUP, SIG_IGN);
}

static int terminal_open(void)
{
    int on = 0;

    g_terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    return g_terminal >= 0 && ioctl(g_terminal, TIOCSPTLCK, &on) == 0;
}

/* A terminal's WINCH says that it has another size; its HUP, that it is closed:
 * then the server stops, but with nohup. HUP of anybody else is a reload. */
TEST(process, terminals_that_change_and_close)
{
    struct winsize size;
    fixture f;
    int kind;                        /* 0: no children, 1: children, 2: nohup */

    for (kind = 0; kind < 3; kind++) {
        context("%d", kind);
        if (!terminal_open())
            SKIP("no terminals to be had");
        fx_init_forked(&f, kind > 0);
        f.deaths_ok = 1;
        f.in_child = kind == 2 ? on_terminal_with_nohup : on_terminal;
        if (!fx_up(&f))
            break;
        CHECK_SOON(fx_log_has(&f, "EMPM0489"), 4000);
        memset(&size, 0, sizeof size);
        size.ws_col = 99;
        CHECK_INT(ioctl(g_terminal, TIOCSWINSZ, &size), 0);
        CHECK_INT(fx_wait(&f, 60), 0);
        CHECK(!fx_log_has(&f, "EMPM0492"));
        CHECK_INT(get_status(&f, "/hello"), 200);
        close(g_terminal);
        if (kind < 2) {
            CHECK(fx_wait(&f, PATIENCE));
            CHECK(fx_log_has(&f, "EMPM0491"));
        } else {
            CHECK_INT(fx_wait(&f, 60), 0);
            CHECK(!fx_log_has(&f, "EMPM0494"));
            signal_process(f.pid, SIGHUP);
            CHECK_SOON(fx_log_has(&f, "generation 1 serves"), 4000);
        }
        fx_down(&f);
    }
    no_context();
}

#endif

/* A SpoolDirectory that is not there ends the start, or costs the bodies that
 * need it; the server lives on. */
TEST(process, spool_on_a_full_disk)
{
    fixture f;
    client c;
    str s = STR_EMPTY;

    fx_init(&f);
    f.cfg.spool_directory = "/no/such/directory";
    if (empm_start(&f.cfg, &f.s) == EMPM_OK) {
        f.port = empm_port(f.s, 0);
        put_post(&s, "/sum-any", 300000, 0, "");
        CHECK_INT(ask_n(&f, &c, s.p, s.n) / 100, 5);
        CHECK_FIN(&c);
        cl_close(&c);
        CHECK_INT(get_status(&f, "/hello"), 200);
        str_free(&s);
        fx_down(&f);
    } else {
        CHECK(f.s == NULL);
        fx_close_files(&f);
    }
}

/* --- the command line ---------------------------------------------------- */

typedef struct spoken {
    int  status;
    char text[8192];
} spoken;

/* Runs empm_main() in a new process and collects what it says. */
static spoken run_main(int argc, const char *const *args)
{
    spoken s;
    char *argv[16];
    int fd = unlinked_file(), i;
    pid_t pid;
    ssize_t n;
    uint64_t end;

    memset(&s, 0, sizeof s);
    for (i = 0; i < argc && i < 15; i++)
        argv[i] = strdup(args[i]);
    argv[i] = NULL;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        empm_config cfg = empm_defaults();
        cfg.routes = routes;
        cfg.listen[0] = "127.0.0.1:0";
        dup2(fd, 1);
        dup2(fd, 2);
        i = empm_main(&cfg, argc, argv);
        fflush(NULL);
        _exit(i);
    }
    end = now_ms() + (uint64_t)PATIENCE;
    while (waitpid(pid, &s.status, WNOHANG) == 0) {
        if (now_ms() > end) {
            fail(__FILE__, __LINE__, "empm_main does not return");
            signal_process(pid, SIGKILL);
            waitpid(pid, &s.status, 0);
            break;
        }
        nap(1);
    }
    n = pread(fd, s.text, sizeof s.text - 1, 0);
    s.text[n > 0 ? n : 0] = 0;
    close(fd);
    for (i = 0; argv[i] != NULL; i++)
        free(argv[i]);
    return s;
}

/* -V, -h and -t print and end well; an unknown option or directive ends with
 * an error that names it. */
TEST(process, command_line)
{
    static const struct { const char *args[4]; int n, fails; const char *says; }
    rows[] = {
        { { "prog", "-V" }, 2, 0, "event" },
        { { "prog", "-V" }, 2, 0, "MPM" },
        { { "prog", "-h" }, 2, 0, "-c" },
        { { "prog", "-t", "-c", "Timeout 5" }, 4, 0, "" },
        { { "prog", "-t", "-c", "Timeout x" }, 4, 1, "Timeout" },
        { { "prog", "--no-such-option" }, 2, 1, "" },
        { { "prog", "-c", "Nope 1" }, 3, 1, "Nope" }
    };

    EACH(rows, i) {
        spoken s = run_main(rows[i].n, rows[i].args);
        CHECK(WIFEXITED(s.status) &&
              (WEXITSTATUS(s.status) != 0) == rows[i].fails);
        CHECK(strstr(s.text, rows[i].says) != NULL);
    }
}

/* The same for "a|b|c", with NUL between the words of argv. */
static spoken run_words(const char *fmt, ...) EMPM__PRINTF(1, 2);
static spoken run_words(const char *fmt, ...)
{
    const char *args[15];
    char words[2000], *p = words;
    va_list ap;
    int n = 0;

    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    args[n++] = "bin/prog";
    while (p != NULL && n < 15) {
        args[n++] = p;
        if ((p = strchr(p, '|')) != NULL)
            *p++ = 0;
    }
    return run_main(n, args);
}

static int said(const spoken *s, const char *what)
{
    return strstr(s->text, what) != NULL;
}

#define CHECK_EXIT(s, want) \
    CHECK_INT(WIFEXITED((s).status) ? WEXITSTATUS((s).status) : -1, want)

/* -t tests the configuration, says each fault, and starts nothing. */
TEST(process, test_of_the_settings)
{
    static const struct { const char *words; int status; const char *says; }
    rows[] = {
        { "-t", 0, "3 to 16 children of 25 workers" },
        { "-t|-X", 0, "1 to 1 children of 25 workers" },
        { "-t|-X|-c|StartServers 2|-c|MaxConnectionsPerChild 9|-c|"
          "StuckWorkerTimeout 9 replace", 0, "EMPM5049: without children "
          "(Processes 0, -X) these have no meaning: StartServers, "
          "MaxConnectionsPerChild, replace of StuckWorkerTimeout\n" },
        /* what differs from the defaults, as a file would have it */
        { "-t|-c|KeepAlive Off|-c|Timeout 1500ms|-c|MaxMemFree 3", 0,
          "\nMaxMemFree 3\nTimeout 1500ms\nKeepAlive Off\n" },
        { "-t|-c|MaxRequestWorkers 399", 0, "\nMaxRequestWorkers 375\n" },
        { "-t|-c|ServerName a|-c|ServerRoot \"/a \\\"b\\\"\"|-c|LogLevel "
          "info", 0, "\nServerName a\nServerRoot \"/a \\\"b\\\"\"\n" },
        { "-t|-c|RequestReadTimeout header=5|-c|StuckWorkerTimeout 9 replace",
          0, "\nRequestReadTimeout header=5000ms body=20000ms,MinRate=500\n"
          "StuckWorkerTimeout 9 replace\n" },
        { "-t|-c|LogFormat \"%h\" a|-c|CustomLog /dev/null a|-c|CustomLog "
          "/dev/null common|-c|AsyncRequestWorkerFactor 1.5", 0,
          "\nLogFormat \"%h\" a\nCustomLog /dev/null a\nCustomLog /dev/null "
          "common\nAsyncRequestWorkerFactor 1.500000\n" },
        { "-X|-t|-c|ThreadsPerChild 2|-c|KeepAlive Off", 0,
          "1 to 1 children of 2 workers" },
        { "-t|-c|KeepAlive Off|-c|MaxOpenConnections 77", 0,
          ", 77 connections and " },
        { "-t|-c|KeepAlive Off|-c|MaxOpenFiles 55", 0,
          " connections and 55 files each; Timeout 60000 ms, KeepAlive off; "
          "worst-case memory " },
        { "-t|-c|MaxRequestWorkers 50|-c|MaxBodyMemory 31457280", 0,
          ", bodies 60, buffers " },
        { "-t|-c|MaxRequestWorkers 50|-c|MaxSpoolBytes 31457280", 0,
          "; spooled on disk at most 60 MiB" },
        { "-t|-c|MaxRequestWorkers 50", 0, "2 to 2 children of 25 workers" },
        { "-t|-c|MaxRequestWorkers 399", 0, "bin/prog: warn: EMPM0513: " },
        { "-t|-c|Strict On|-c|MaxRequestWorkers 399", 1, "error: EMPM0513: " },
        { "-t|-c|MaxRequestWorkers 399|-c|strict on", 1, "error: EMPM0513: " },
        { "-t|-c|MaxClients 50", 0, "info: EMPM0521: MaxClients is "
         "deprecated" },
        { "-t|-c|EnableMMAP Off", 0, "info: EMPM5121: EnableMMAP has no" },
        { "-t|-c|Timeout x", 1, "EMPM5123: Timeout x: is not a time" },
        { "-t|-c|Timeout", 1, "EMPM5123: Timeout : wants a value" },
        { "-t|-c|", 1, "EMPM5122: Invalid command ''" },
        { "-t|-c|KepAlive On", 1, "perhaps 'KeepAlive' is meant" },
        { "-t|-c|Listen 127.0.0.1:x", 1, "EMPM5108: " },
        { "-t|-p|99999", 1, "EMPM5108: " }, { "-t|-a|x", 1, "EMPM5108: " },
        { "-t|-c|SpoolDirectory /no/such/place", 1, "EMPM5107: " },
        { "-t|-c|ErrorLog /no/such/place", 1, "EMPM5134: ErrorLog " },
        { "-t|-c|PidFile such/place|-c|ServerRoot /no", 1, "/no/such\n" },
        { "-t|-c|CustomLog \"/no/such/place\" common", 1, "EMPM5134: "
         "CustomLog" },
        { "-t|-c|ErrorLog here|-c|CustomLog /there common", 0, "" },
        { "-t|-c|ErrorLog syslog:local3", 0, "" },
        { "-t|-c|Listen unix:/no/such/place.sock", 1,
          "EMPM5134: Listen unix:/no/such/place.sock: there is no directory "
          "/no/such\n" },
        { "-t|-c|Listen "
         "unix:/tmp/8901234567890123456789012345678901234567890123"
          "456789012345678901234567890123456789012345678901234567890123456789",
          1, "the path of a unix socket has at most 107 bytes" },
        { "-t|-c|Listen [fe80::1%nosuch]:8080", 1,
          "EMPM5108: Listen [fe80::1%nosuch]:8080: there is no interface "
         "nosuch" },
        { "-t|-c|Timeout 0", 1, "Timeout 0: must be from 1ms to 2147483647ms" },
        { "-t|-c|User no-such-user-at-all", 1, "EMPM0543: bad user name" },
        { "-t|-f|/no/such/file", 1, "EMPM5120: /no/such/file: No such file" },
        { "-t|-f|FILE", 1, "x.conf:2: Invalid command 'Nope'" },
        { "-t|a|b", 1, "prog -h" }, { "-t|-f", 1, "prog -h" },
        { "-t|-c", 1, "prog -h" }
    };
    char path[400];
    spoken s;

    tmp_path(path, sizeof path, "x.conf");
    CHECK_INT(conf_write("x.conf", "Timeout 5\nNope\nTimeout x\n", 25), 0);
    EACH(rows, i) {
        context("%s", rows[i].words);
        if (strcmp(rows[i].words, "-t|-f|FILE") == 0)
            s = run_words("-t|-f|%s", path);
        else
            s = run_words("%s", rows[i].words);
        CHECK_EXIT(s, rows[i].status);
        CHECK_INT(said(&s, "Syntax OK\n"), rows[i].status == 0);
        CHECK(said(&s, rows[i].says));
        if (strcmp(rows[i].words, "-t|-f|FILE") == 0)
            CHECK(said(&s, "x.conf:3: Timeout x"));   /* all of them */
        CHECK_INT(said(&s, "EMPM5049"),
                  strncmp(rows[i].says, "EMPM5049", 8) == 0);
    }
}

/* The words are httpd's. A word that is no option is a port, a folder or an
 * order, or an error that says so; the order of words is free. */
TEST(process, words_of_the_command_line)
{
    static const struct { const char *words; int status; const char *says; }
    rows[] = {
        { "--help", 0, "usage: " }, { "-h", 0, "-M  " },
        { "--version", 0, "Server version: eventmpm/" },
        { "-v", 0, "Server version: eventmpm/" },
        { "-M", 0, " mpm_event_module (static)\n" },
        { "-l", 0, "Compiled in modules:\n  core.c\n" },
        { "-L", 0, "\nKeepAliveTimeout (a time: 5 (seconds), 100ms, 1min)\n\t"
          "how long a connection waits for its next request\n\tDefault: 5\n\t"
          "From 0 to 2147483647ms\n" },
        { "-S", 0, "Listen 127.0.0.1:0\nRoute POST /data\n" },
        { "configtest", 0, "Syntax OK\n" }, { "-k|configtest", 0, "Syntax "
                                             "OK\n" },
        { "-kconfigtest", 0, "Syntax OK\n" },
        { "-S|8085", 0, "Listen 8085\n" }, { "8085|-S", 0, "Listen 8085\n" },
        { "-S|localhost:8085", 0, "Listen localhost:8085\n" },
        { "-S|-p8085", 0, "Listen 8085\n" }, { "-SX|8085", 0, "1 to 1 child" },
        { "-S|unix:/tmp/x.sock", 0, "Listen unix:/tmp/x.sock\n" },
        { "-S|--|8085", 0, "Listen 8085\n" },
        { "-S|8085|8086", 0, "Listen 8085\nListen 8086\n" },
        { "-t|99999", 1, "Listen 99999: wants a port" },
        { "8085x", 1, "8085x is no directory, no port" },
        { "/no/such/folder", 1, "/no/such/folder is no directory" },
        { "/dev/null", 1, "/dev/null is no directory" },
        { "/dev", 1, "no route serves DocumentRoot" },
        { "-Z", 1, "-Z is no option" }, { "--no", 1, "--no is no option" },
        { "-t:", 1, "is no option" }, { "-p", 1, "-p lacks what" },
        { "-t|-p", 1, "prog -h" }, { "stop", 1, "-k needs PidFile: -c \"Pid" },
        { "-k|stopp", 1, "-k takes start, stop" }, { "-", 1, "- is no "
                                                    "directory" },
        { "", 1, " is no directory" },
        { "-t|-c|Listen 8085 https", 1, "EMPM5600" },
        { "-t|-c|Listen 8085 http", 0, "Syntax OK\n" },
        { "-t|-c|SSLEngine on|-c|Nope|-c|User no-such-user-at-all", 1,
          "EMPM0543" },                        /* at once: what is wrong, too */
        { "-t|-c|Nope|-c|PidFile /no/such/place", 1, "EMPM5134" },
        { "-t|-f|FILE", 0, "KeepAlive 5000 ms" },
        { "-t|-f|FILE|-D|Slow", 0, "KeepAlive 9000 ms" },
        { "-t|-D|Slow|-f|FILE", 0, "KeepAlive 9000 ms" },
        { "-t|-D|=|-f|FILE", 1, "-D =: wants a name" }
    };
    char path[400], words[600];
    spoken s;

    tmp_path(path, sizeof path, "x.conf");
    CHECK_INT(conf_write("x.conf", "<IfDefine Slow>\nKeepAliveTimeout 9\n"
                                   "</IfDefine>\n", 47), 0);
    EACH(rows, i) {
        const char *file = strstr(rows[i].words, "FILE");
        context("%s", rows[i].words);
        if (file != NULL)
            snprintf(words, sizeof words, "%.*s%s%s",
                     (int)(file - rows[i].words), rows[i].words, path,
                     file + 4);
        s = run_words("%s", file != NULL ? words : rows[i].words);
        CHECK_EXIT(s, rows[i].status);
        if (!CHECK(said(&s, rows[i].says)))
            fprintf(stderr, "%s", s.text);
    }
}

/* A start that cannot have its socket says what to type. */
TEST(process, sockets_that_cannot_be_had)
{
    int port, fd = listening_socket(&port);
    spoken s = run_words("-X|-c|User root|127.0.0.1:%d", port);

    CHECK_EXIT(s, 1);
    CHECK(said(&s, "EMPM0072: Listen 127.0.0.1:") &&
          said(&s, "such as -p 8081"));
    close(fd);
    s = run_words("-X|-c|User root|192.0.2.1:8085");
    CHECK_EXIT(s, 1);
    CHECK(said(&s, "no address of this machine"));
    s = run_words("-X|-c|User root|unix:/no/such/folder/x.sock");
    CHECK_EXIT(s, 1);
    CHECK(said(&s, "make its folder first"));
}

/* -t finds a socket that a reload can take over, and refuses one that only
 * overlaps with ours. */
TEST(process, test_of_sockets_in_use)
{
    int port, i, fd = listening_socket(&port);
    spoken s;
    const struct { const char *listen; int overlaps; } rows[] = {
        { "127.0.0.1:%d", 0 }, { "%d", 1 }, { "0.0.0.0:%d", 1 },
        { "127.0.0.2:%d", 0 }, { "unix:/tmp/x.%d", 0 }
    };

    if (access("/proc/net/tcp", R_OK) != 0) {
        close(fd);
        SKIP("no /proc/net/tcp");
    }
    for (i = 0; i < 5; i++) {
        char listen[64];
        snprintf(listen, sizeof listen, "%.*s%d",
                 (int)(strstr(rows[i].listen, "%d") - rows[i].listen),
                 rows[i].listen, port);
        context("%s", listen);
        s = run_words("-t|-c|Listen %s", listen);
        CHECK_EXIT(s, 0);
        CHECK_INT(said(&s, "warn: EMPM5114: "), rows[i].overlaps);
    }
    no_context();
    close(fd);
    if (have_ipv6()) {              /* [::] serves 0.0.0.0: both can stay */
        fixture f;
        fx_init(&f);
        f.cfg.listen[0] = "[::]:0";
        if (fx_up(&f)) {
            s = run_words("-t|-c|Listen [::]:%d|-c|Listen 0.0.0.0:%d", f.port,
                          f.port);
            CHECK_EXIT(s, 0);
            CHECK(!said(&s, "EMPM5114"));
            s = run_words("-t|-c|Listen 0.0.0.0:%d", f.port);
            CHECK(said(&s, "EMPM5114"));
            fx_down(&f);
        }
    }
}

static void pose_hears(int sig)
{
    (void)sig;
}

/* A process that has the pid file as a server has it, and counts its signals in
 * shm->rc[]. */
static pid_t pose_as_server(const char *path)
{
    sigset_t all;
    char text[32];
    int n, fd;
    pid_t pid;

    set_int(&shm->rc[0], 0);
    fflush(NULL);
    pid = fork();
    if (pid != 0) {
        CHECK_SOON(get_int(&shm->rc[0]) == 1, 4000);
        return pid;
    }
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    signal(SIGQUIT, pose_hears);     /* GracefulStopSignal when it started */
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (flock(fd, LOCK_EX) != 0 || write(fd, text, (size_t)n) != n)
        _exit(1);
    set_int(&shm->rc[0], 1);
    for (;;)
        if (sigwait(&all, &n) == 0) {
            if (n == SIGALRM)
                _exit(0);
            set_int(&shm->rc[1], n);
        }
}

/* -k start, stop, graceful and restart do as httpd's do. */
TEST(process, control)
{
    static const struct { const char *word; int sig; const char *says; }
    running[] = {
        { "start", 0, "prog (pid %ld) already running\n" },
        { "stop", SIGTERM, "" }, { "restart", SIGHUP, "" },
        { "graceful", SIGUSR1, "" }, { "graceful-stop", SIGQUIT, "" },
        { "graceful-stop|-c|GracefulStopSignal none", SIGWINCH, "" },
        { "graceful-stop|-c|GracefulStopSignal IO", SIGWINCH, "" },
        { "stop|-c|SpoolDirectory /no/such/place", SIGTERM, "" },
        /* what they do not need they do not look at, nor warn of */
        { "stop|-c|ServerLimit 30000", SIGTERM, "" },
        { "graceful-stop|-c|Listen x", SIGQUIT, "" },
        { "graceful|-c|ServerLimit 30000", SIGUSR1, "" }
    }, stopped[] = {
        { "stop", 0, "not running\n" }, { "graceful-stop", 0, "not running\n" },
        { "start", 1, "" },
        { "restart", 1, "prog not running, trying to start\n" },
        { "graceful", 1, "prog not running, trying to start\n" }
    };
    static const char *const refused[] = {
        "graceful|-c|SpoolDirectory /no/such/place", "graceful|-c|Nope 1",
        "restart|-c|Timeout x", "restart|-f|/no/such/file", "start|-c|Nope 1",
        "restart|-c|Listen x", "stop|-c|Nope 1", "halt", "", "Stop"
    };
    char path[400], want[100];
    spoken s;
    size_t k;
    int port, busy = listening_socket(&port);
    pid_t pid;

    tmp_path(path, sizeof path, "prog.pid");
    unlink(path);
    s = run_words("-k|stop");
    CHECK_EXIT(s, 1);
    CHECK(said(&s, "-k needs PidFile: -c "));
    for (k = 0; k < 2; k++) {       /* without a pid file; with a stale one */
        snprintf(want, sizeof want, "%s", k == 0 ? "prog (no pid file) "
                                                 : "prog (pid 4711?) ");
        EACH(stopped, i) {
            context("%s, stopped %d", stopped[i].word, (int)k);
            if (k == 1)
                CHECK_INT(write_file(path, "4711\n", 5), 0);
            /* to start it must fail: the port is in use */
            s = run_words("-k|%s|-c|PidFile %s|-c|User root|-p|127.0.0.1:%d",
                          stopped[i].word, path, port);
            CHECK_EXIT(s, stopped[i].sig);
            CHECK(said(&s, stopped[i].says));
            CHECK_INT(said(&s, want), stopped[i].sig == 0);
            CHECK_INT(said(&s, "EMPM0072"), stopped[i].sig != 0);
        }
    }
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;                   /* those that have tried */
    pid = pose_as_server(path);
    EACH(running, i) {
        context("%s, running", running[i].word);
        if (strstr(running[i].word, "Signal IO") != NULL && g_slow > 4)
            continue;                /* valgrind catches all signals */
        set_int(&shm->rc[1], 0);
        s = run_words("-k|%s|-c|PidFile %s", running[i].word, path);
        CHECK_EXIT(s, 0);
        if (running[i].sig != 0)
            CHECK_SOON(get_int(&shm->rc[1]) == running[i].sig, 2000);
        CHECK_INT(get_int(&shm->rc[1]), running[i].sig);
        snprintf(want, sizeof want, "prog (pid %ld) already running\n",
                 (long)pid);
        CHECK_INT(said(&s, want), running[i].says[0] != 0);
        CHECK(running[i].says[0] != 0 || s.text[0] == 0);
    }
    set_int(&shm->rc[1], 0);
    EACH(refused, i) {
        context("%s, running", refused[i]);
        s = run_words("-k|%s|-c|PidFile %s", refused[i], path);
        CHECK_EXIT(s, 1);
        CHECK(s.text[0] != 0);
    }
    s = run_words("-k|start|-t|-c|PidFile %s", path);     /* -t goes first */
    CHECK_EXIT(s, 0);
    CHECK(said(&s, "Syntax OK"));
    nap(20);
    CHECK_INT(get_int(&shm->rc[1]), 0);
    signal_process(pid, SIGALRM);
    CHECK_INT(waitpid(pid, NULL, 0), pid);
    close(busy);
    unlink(path);
}

/* ---------------------------------------------------------------------------
 * >>exchange -- children are one server: connections move between them
 * ------------------------------------------------------------------------- */

/* The process that answers on `c`. */
static long pid_on(client *c)
{
    return cl_get(c, "/pid") == 200 ? strtol(c->body.p, NULL, 10) : -1;
}

/* Opens connections until n of them are one child's, which it returns; the
 * others are closed. (They are spread, so that takes some.) */
static long open_in_one_child(const fixture *f, client *c, int n)
{
    client first;
    long pid = 0, is;
    int got = 0, tries;

    for (tries = 0; got < n && tries < 400; tries++) {
        if (cl_connect_port(&first, f->port, 0) != 0)
            break;
        if (f->options[0] != 0)
            cl_puts(&first, P1);
        is = pid_on(&first);
        if (pid == 0)
            pid = is;
        if (is == pid && is > 0)
            c[got++] = first;
        else
            cl_close(&first);
    }
    CHECK_INT(got, n);
    /* what has been closed here is there, too */
    nap(SCALED(20));
    return got == n ? pid : 0;
}

/* A server of two children, whose connections have time. */
/* All its children are there; some may leave. */
static void ex_ready(fixture *f)
{
    f->deaths_ok = 1;
    CHECK_SOON(get_int(&shm->child_starts) == f->cfg.processes &&
               fx_log_has(f, "EMPM0489"), 4000);
}

static int ex_up(fixture *f, int threads)
{
    f->cfg.threads_per_child = threads;
    long_times(f);
    if (!fx_up(f))
        return 0;
    ex_ready(f);
    return 1;
}

/* Keep-alive connections are pinned to nobody: when all workers of their child
 * are busy, a sibling's serve them, and they move back as they are needed. */
SERVED_BY(exchange, jobs_go_where_workers_are_idle, 2,
          LONG_TIMES "ThreadsPerChild 2")
{
    enum { N = 4 };
    client cs[N];
    long pid;
    int i, round, moved = 0;

    ex_ready(f);
    pid = open_in_one_child(f, cs, N);
    for (round = 0; round < 3 && pid != 0; round++) {
        set_int(&shm->gate, 0);
        for (i = 0; i < N; i++)
            cl_puts(&cs[i], "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK_SOON(get_int(&shm->at_gate) == N, 2000);   /* all at once */
        set_int(&shm->gate, 1);
        for (i = 0; i < N; i++) {
            CHECK_INT(cl_reply(&cs[i]), 200);
            CHECK_INT(cs[i].closes, 0);
            moved += pid_on(&cs[i]) != pid;
        }
    }
    CHECK(moved >= 2);
    for (i = 0; i < N && pid != 0; i++)
        cl_close(&cs[i]);
}

/* Jobs that all reach one blocked child are answered at once by a sibling. */
SERVED_BY(exchange, a_blocked_child_holds_nobody, 2,
          LONG_TIMES "ThreadsPerChild 1; MaxOpenConnections 12")
{
    client cs[6];
    uint64_t t0;
    long pid;
    int i;

    ex_ready(f);
    /* MaxOpenConnections is less than a message may bring */
    pid = open_in_one_child(f, cs, 6);
    set_int(&shm->gate, 0);
    if (pid != 0) {
        cl_puts(&cs[0], "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK_SOON(get_int(&shm->at_gate) == 1, 2000);
        t0 = now_ms();
        for (i = 1; i < 6; i++)
            CHECK(pid_on(&cs[i]) != pid);
        CHECK(now_ms() - t0 < (uint64_t)SCALED(500));
        set_int(&shm->gate, 1);
        CHECK_INT(cl_reply(&cs[0]), 200);
        cl_close_all(cs, 6);
    }
}

/* A connection that has moved keeps its client (by a PROXY header, too), its
 * count of requests and its deadline. */
TEST(exchange, a_connection_stays_what_it_is)
{
    client c[2];
    fixture f;
    long pid;
    int proxy;

    for (proxy = 0; proxy < 2; proxy++) {
        fx_init_forked(&f, 2);
        f.options = proxy ? " proxy" : "";
        f.cfg.max_keep_alive_requests = 4;
        f.cfg.max_connections_per_peer = 100;
        if (!ex_up(&f, 1))
            return;
        pid = open_in_one_child(&f, c, 2);          /* one request each */
        set_int(&shm->gate, 0);
        if (pid != 0) {
            cl_puts(&c[0], "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
            CHECK_SOON(get_int(&shm->at_gate) == 1, 2000);
            CHECK(pid_on(&c[1]) != pid);
            CHECK_INT(c[1].closes, 0);
            CHECK_INT(cl_get(&c[1], "/who"), 200);
            CHECK(strncmp(c[1].body.p, proxy ? "192.0.2.1:4711 " : "127.0.0.1:",
                          proxy ? 15 : 10) == 0);
            CHECK_INT(c[1].closes, 0);
            CHECK_INT(cl_get(&c[1], "/hello"), 200);
            CHECK_INT(c[1].closes, 1);
            set_int(&shm->gate, 1);
            CHECK_INT(cl_reply(&c[0]), 200);
            cl_close(&c[0]);
            cl_close(&c[1]);
        }
        fx_down(&f);
    }
}

/* A child that dies takes only its own connections along: neither those that
 * it has given away nor those that it was about to take. */
TEST(exchange, a_death_costs_only_its_own)
{
    client c[2];
    fixture f;
    long pid, kids[16], other, after[16];
    int victim;

    for (victim = 0; victim < 2; victim++) {
        fx_init_forked(&f, 2);
        if (!ex_up(&f, 1))
            return;
        if (wait_children(&f, 2, kids, PATIENCE) != 2) {
            fx_down(&f);
            SKIP("no /proc to see children in");
        }
        pid = open_in_one_child(&f, c, 2);
        other = kids[0] == pid ? kids[1] : kids[0];
        set_int(&shm->gate, 0);
        if (pid != 0) {
            cl_puts(&c[0], "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
            CHECK_SOON(get_int(&shm->at_gate) == 1, 2000);
            /* the sibling stands still: what is for it stays in the exchange */
            signal_process((pid_t)other, SIGSTOP);
            nap(SCALED(30));         /* until all its threads do */
            cl_puts(&c[1], "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
            CHECK(!cl_readable(&c[1], 60));
            signal_process((pid_t)(victim ? pid : other), SIGKILL);
            if (victim)
                signal_process((pid_t)other, SIGCONT);
            CHECK_INT(cl_reply(&c[1]), 200);
            CHECK_INT(c[1].closes, 0);
            check_in_step(&c[1]);
            set_int(&shm->gate, 1);
            CHECK_INT(cl_reply(&c[0]), victim ? 0 : 200);
            wait_children(&f, 2, after, PATIENCE);
            cl_close(&c[0]);
            cl_close(&c[1]);
        }
        fx_down(&f);
    }
}

/* A child without room does not keep the word of a new connection to itself: a
 * sibling with room accepts it. */
TEST(exchange, a_full_child_passes_the_word_on)
{
    enum { ROOM = 3 };
    client c[2 * ROOM - 1];
    fixture f;
    int i, round;

    for (round = 0; round < 3; round++) {
        fx_init_forked(&f, 2);
        f.cfg.max_open_connections = ROOM;
        if (!ex_up(&f, 4))
            return;
        for (i = 0; i < 2 * ROOM - 1; i++) {
            cl_open(&c[i], &f);      /* none of them can be culled */
            cl_puts(&c[i], POST1 "Expect: 100-continue\r\n"
                                 "Content-Length: 5\r\n\r\n");
            if (!CHECK(cl_readable(&c[i], SCALED(1500))))
                break;
        }
        for (i = 0; i < 2 * ROOM - 1; i++)
            cl_close(&c[i]);
        fx_down(&f);
    }
}

/* A burst is spread by the children that accept it: each keeps as many as it
 * has workers. */
SERVED_BY(exchange, a_burst_is_shared_out, 4,
          LONG_TIMES "ThreadsPerChild 2")
{
    enum { N = 8 };
    client cs[N];
    int i, round;

    ex_ready(f);
    for (round = 0; round < 5; round++) {
        set_int(&shm->gate, 0);
        for (i = 0; i < N; i++) {
            cl_open(&cs[i], f);
            cl_puts(&cs[i], "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        CHECK_SOON(get_int(&shm->at_gate) == N, 2000);
        set_int(&shm->gate, 1);
        for (i = 0; i < N; i++) {
            CHECK_INT(cl_reply(&cs[i]), 200);
            cl_close(&cs[i]);
        }
        CHECK_SOON(get_int(&shm->at_gate) == 0, 2000);
    }
}

/* --- what a child takes, it does not believe
 * ------------------------------- */

/* A child in this process, with an exchange, and no siblings. */
typedef struct lone_child {
    fixture      f;
    empm_server *s;
    empm__report rep;
    int          tell[2];
} lone_child;

static int lone_up(lone_child *l)
{
    fx_init(&l->f);
    memset(&l->rep, 0, sizeof l->rep);
    long_times(&l->f);
    l->f.cfg.processes = 1;
    l->f.cfg.max_keep_alive_requests = 100;
    l->f.cfg.keep_alive_timeout_ms = 60000;
    if (!CHECK_INT(empm__server_new(&l->f.cfg, 1, NULL, &l->rep, &l->s),
                   EMPM_OK))
        return 0;
    if (!CHECK_INT(empm__fd_pipe(l->tell, 1), 0))
        return 0;
    l->s->parent_fd = l->tell[1];
    empm__score_slot_at(&l->s->score, 0)->pid = (uint32_t)getpid();
    empm__score_server_at(&l->s->score)->top = 1;
    l->f.port = empm_port(l->s, 0);
    if (!CHECK_INT(empm__server_engines_start(l->s, 0, 0), EMPM_OK))
        return 0;
    empm__poller_order(&l->s->engine.poller, EMPM__ORDER_ACCEPT);
    return 1;
}

static void lone_down(lone_child *l)
{
    empm_stop(l->s);
    CHECK_INT(empm_wait(l->s, PATIENCE), EMPM_OK);
    empm__server_engines_free(l->s);
    empm__server_free(l->s);
    close(l->tell[0]);
    close(l->tell[1]);
    fx_close_files(&l->f);
}

/* A connection: the client's end in *c, the other one returned. */
static int connection_pair(client *c)
{
    int port, fd, l = listening_socket(&port);

    CHECK(l >= 0);
    CHECK_INT(cl_connect_port(c, port, 0), 0);
    fd = accept(l, NULL, NULL);
    close(l);
    return fd;
}

static void one_message(const lone_child *l, empm__move *m, uint32_t state)
{
    memset(m, 0, sizeof *m);
    m->version = EMPM__MOVE_VERSION;
    m->n = 1;
    m->conns[0].endpoint = empm__exchange_key(&l->s->endpoints[0]);
    m->conns[0].state = state;
    m->conns[0].left_ms = 60000;
}

/* A child takes over a connection from a sibling, idle or with a request, and
 * serves it under the same limits. */
TEST(exchange, takes_what_is_right)
{
    lone_child l;
    client c;
    empm__move m;
    int fd, state;

    if (!lone_up(&l))
        return;
    for (state = 0; state < 3; state++) {
        fd = connection_pair(&c);
        one_message(&l, &m, state == 0 ? EMPM__READ_HEAD : EMPM__KEEPALIVE);
        m.conns[0].is_job = state == 2;
        m.conns[0].requests = 99;       /* MaxKeepAliveRequests is 100 */
        if (state == 2)
            cl_puts(&c, GET1 "\r\n");
        CHECK_INT(empm__exchange_give(&l.s->exchange, &m, &fd), 0);
        close(fd);
        CHECK_INT(state == 2 ? cl_reply(&c) : cl_get(&c, "/hello"), 200);
        CHECK_INT(c.closes, 1);
        cl_close(&c);
    }
    CHECK_INT(empm__load(&l.s->engine.score->moved_in), 3);
    lone_down(&l);
}

static void fault_arm(int armed);            /* in >>faults */

/* A child refuses a message of a sibling that is not well formed, closes what
 * came with it, and serves on. */
TEST(exchange, believes_nothing)
{
    enum { N = 15 };
    lone_child l;
    int i;

    if (!lone_up(&l))
        return;
    for (i = 0; i < N; i++) {
        client c;
        empm__move m;
        int fd, pair[2] = { -1, -1 }, given, takes = 0;

        context("case %d", i);
        given = fd = connection_pair(&c);
        one_message(&l, &m, EMPM__KEEPALIVE);
        switch (i) {
        case 0: m.version++;                          break;
        case 1: m.n = 0;                              break;
        case 2: m.n = 2;                              break;
        case 3:                      /* none of that kind listens */
            m.conns[0].endpoint++;
            m.conns[0].peer.proxied = EMPM__PROXIED;
            break;
        case 4: m.conns[0].state = EMPM__HANDSHAKE;      break;
        case 5: m.conns[0].state = EMPM__HANDLE;         break;
        case 6: m.conns[0].state = 77;                   break;
        case 7: CHECK_INT(pipe(pair), 0);             break;
        case 8: CHECK_INT(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0); break;
        case 9: pair[0] = socket(AF_INET, SOCK_STREAM, 0); break;
        case 10: pair[0] = l.s->exchange.fd[0];       break;
        case 11: pair[0] = l.s->endpoints[0].fd;      break;
        case 12:                     /* numbers are bounded */
            m.conns[0].requests = m.conns[0].is_job = 0xffffffffu;
            m.conns[0].left_ms = 0xfffffff0u;
            takes = 1;
            break;
        case 13:                     /* blocking, as it should not be */
            fcntl(fd, F_SETFL, 0);
            takes = 1;
            break;
        case 14: m.conns[0].endpoint++; takes = 1;    break;   /* respelled */
        }
        if (pair[0] >= 0)
            given = pair[0];
        if (i == 1 || i == 2) {      /* what no giver would send */
            CHECK_INT(empm__fd_send(l.s->exchange.fd[1], &m, sizeof m, &fd, 1,
                                    0), 0);
        } else
            CHECK_INT(empm__exchange_give(&l.s->exchange, &m, &given), 0);
        close(fd);
        if (pair[0] >= 0 && i < 10)
            close(pair[0]);
        if (pair[1] >= 0)
            close(pair[1]);
        if (takes) {
            cl_puts(&c, GET1 "\r\n");
            CHECK_INT(cl_reply(&c), 200);
        } else
            CHECK_IN(cl_drain(&c, PATIENCE), CL_FIN, CL_RESET);
        cl_close(&c);
        CHECK_INT(get_status(&l.f, "/hello"), 200);
    }
    /* bytes without a descriptor, and none at all */
    CHECK(send(l.s->exchange.fd[1], "?", 1, 0) == 1);
    CHECK(send(l.s->exchange.fd[1], "?", 0, 0) == 0);
    CHECK_INT(get_status(&l.f, "/hello"), 200);
    CHECK(fx_log_has(&l.f, "EMPM5046"));
    lone_down(&l);
}

/* A process that shuts the exchange down, by a number that was another's, costs
 * what moves, and nothing else: no loop, one line in the log. */
TEST(exchange, ends_once_when_it_is_shut_down)
{
    lone_child l;
    client c;

    if (!lone_up(&l))
        return;
    CHECK_INT(get_status(&l.f, "/hello"), 200);
    CHECK_INT(shutdown(l.s->exchange.fd[0], SHUT_RD), 0);
    CHECK_SOON(fx_log_has(&l.f, "EMPM5046"), 2000);
    nap(30);
    CHECK_INT(get_status(&l.f, "/hello"), 200);
    cl_open(&c, &l.f);
    CHECK_INT(cl_get(&c, "/hello"), 200);
    CHECK_INT(cl_get(&c, "/hello"), 200);
    cl_close(&c);
    CHECK_INT(fx_log_lines(&l.f, "EMPM5046"), 1);
    lone_down(&l);
}

/* Whatever else comes along with descriptors, as the credentials that
 * somebody has asked for: those for which there is room are taken, and none
 * stays open. */
TEST(exchange, credentials_cost_no_descriptor)
{
#if defined(__linux__) && defined(SO_PASSCRED)
    lone_child l;
    client c[EMPM__MOVE_MOST];
    empm__move m;
    uint32_t n, k, served;
    int fds[EMPM__MOVE_MOST], before, one = 1;

    if (!have_proc())
        SKIP("no /proc to see descriptors in");
    if (!lone_up(&l))
        return;
    CHECK_INT(setsockopt(l.s->exchange.fd[0], SOL_SOCKET, SO_PASSCRED, &one,
                         sizeof one), 0);
    CHECK_INT(get_status(&l.f, "/hello"), 200);
    before = open_fds();
    for (n = 1; n <= EMPM__MOVE_MOST; n += EMPM__MOVE_MOST - 1) {
        context("%u in one message", (unsigned)n);
        one_message(&l, &m, EMPM__KEEPALIVE);
        m.n = n;
        for (k = 0; k < n; k++) {
            m.conns[k] = m.conns[0];
            fds[k] = connection_pair(&c[k]);
        }
        CHECK_INT(empm__exchange_give(&l.s->exchange, &m, fds), 0);
        for (served = k = 0; k < n; k++) {
            close(fds[k]);
            c[k].patience = AT_ONCE;
            served += cl_get(&c[k], "/hello") == 200;
            cl_close(&c[k]);
            if (served == 0)
                break;               /* and no other one will be */
        }
        CHECK(served >= (n + 3) / 4);
        for (k++; k < n; k++) {
            close(fds[k]);
            cl_close(&c[k]);
        }
        CHECK_SOON(open_fds() <= before, 1000);
    }
    no_context();
    lone_down(&l);
#else
    SKIP("no credentials on these sockets");
#endif
}

/* A bell that nobody has emptied, for 2^64 - 2 times, still rings. */
TEST(exchange, a_full_bell_rings)
{
#if EMPM__EPOLL
    empm__exchange x;
    uint64_t n = UINT64_MAX - 1;

    memset(&x, 0, sizeof x);
    if (!CHECK_INT(empm__exchange_new(&x), EMPM_OK))
        return;
    CHECK_INT(write(x.bell[1], &n, sizeof n), (long)sizeof n);
    empm__exchange_ring(&x);
    CHECK_INT(read(x.bell[0], &n, sizeof n), (long)sizeof n);
    CHECK(n == 1);                   /* it has been written, which wakes */
    empm__exchange_free(&x);
#else
    SKIP("poll() needs none");
#endif
}

/* A listening socket that cannot be registered again pauses and comes back, as
 * any lack does: nobody is left who does not listen. */
TEST(exchange, a_failed_epoll_ctl_deafens_nobody)
{
#if EMPM__EPOLL
    lone_child l;
    client c;
    int nth, call = 0;

    if (is_tsan_here())
        SKIP("the test sets a count of the listener's");
    while (strcmp(fault_calls[call].call, "epoll_ctl") != 0)
        call++;
    if (!lone_up(&l))
        return;
    for (nth = 1; nth <= 6; nth++) { /* of those around the 16th accept() */
        context("epoll_ctl %d fails", nth);
        CHECK_SOON(get_status(&l.f, "/hello") == 200 &&
                   empm__load(&l.s->engine.score->paused) == 0, 2000);
        nap(2);
        l.s->engine.accepts = 15;
        memset(g_faults, 0, sizeof *g_faults);   /* tests: of no process */
        g_faults->call = call;
        g_faults->error = ENOMEM;
        g_faults->nth = nth;
        fault_arm(1);
        if (cl_open(&c, &l.f) == 0) {
            c.patience = 20;         /* the first one is the connection's own */
            cl_get(&c, "/hello");
            cl_close(&c);
        }
        fault_arm(0);
        cl_open(&c, &l.f);
        c.patience = SCALED(1000);
        if (!CHECK_INT(cl_get(&c, "/hello"), 200))
            nth = 6;
        cl_close(&c);
    }
    no_context();
    CHECK(fx_log_has(&l.f, "EMPM5008"));
    lone_down(&l);
#else
    SKIP("poll() registers nothing");
#endif
}

/* A sibling of a lone child, who says that it accepts, and does nothing. */
static void lone_sibling(const lone_child *l)
{
    empm__store(&empm__score_at(&l->s->score, 1)->healthy, 1u);
    empm__store(&empm__score_at(&l->s->score, 1)->idle_workers, 1u);
    empm__store(&empm__score_slot_at(&l->s->score, 1)->pid, 1u);
    empm__store(&empm__score_server_at(&l->s->score)->top, 2u);
}

/* What a drain has given and nobody has taken is its own again when it learns
 * that nobody serves on: it has its answer, and is not left in the exchange.
 * (asks: before the stop, or after it.) */
TEST(exchange, a_stop_takes_back_what_a_drain_gave)
{
    enum { N = EMPM__MOVE_MOST + 3 };
    static client c[N];
    client busy;                     /* so that the child lives on */
    lone_child l;
    int i, asks, left;

    for (asks = 0; asks < 2; asks++) {
        context("asks %d", asks);
        if (!lone_up(&l))
            return;
        for (i = 0; i < N; i++) {
            cl_open(&c[i], &l.f);
            CHECK_INT(cl_get(&c[i], "/hello"), 200);
        }
        set_int(&shm->gate, 0);
        cl_open(&busy, &l.f);
        cl_puts(&busy, "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK_SOON(get_int(&shm->at_gate) == 1, 2000);
        nap(SCALED(10));             /* all others wait */
        lone_sibling(&l);
        empm__poller_order(&l.s->engine.poller, EMPM__ORDER_GRACEFUL |
                                                EMPM__ORDER_HAND_OVER);
        CHECK_SOON(empm__load(&l.s->engine.score->moved_out) == N, 2000);
        empm__store(&empm__score_slot_at(&l.s->score, 1)->pid, 0u);
        for (i = 0; i < N && asks; i++)
            cl_puts(&c[i], GET1 "\r\n");
        empm__poller_order(&l.s->engine.poller, EMPM__ORDER_GRACEFUL);
        for (left = i = 0; i < N && left == 0; i++) {
            c[i].patience = PATIENCE;
            left += (asks ? cl_reply(&c[i]) : cl_get(&c[i], "/hello")) != 200 ||
                    !c[i].closes;
        }
        CHECK_INT(left, 0);
        set_int(&shm->gate, 1);
        CHECK_INT(cl_reply(&busy), 200);
        cl_close(&busy);
        for (i = 0; i < N; i++)
            cl_close(&c[i]);
        lone_down(&l);
    }
    no_context();
}

/* At MaxOpenConnections a child leaves what the exchange has to a sibling that
 * accepts; if there is none, it makes room for it. */
TEST(exchange, a_full_child_leaves_it_to_siblings)
{
    enum { N = 10 };
    lone_child l;
    client c[N], moved;
    empm__move m;
    int i, fd;

    if (is_tsan_here())
        SKIP("the test sets a limit of the listener's");
    if (!lone_up(&l))
        return;
    for (i = 0; i < N; i++) {
        cl_open(&c[i], &l.f);
        CHECK_INT(cl_get(&c[i], "/hello"), 200);
    }
    nap(SCALED(10));
    l.s->engine.most = N;
    lone_sibling(&l);
    fd = connection_pair(&moved);
    one_message(&l, &m, EMPM__KEEPALIVE);
    CHECK_INT(empm__exchange_give(&l.s->exchange, &m, &fd), 0);
    close(fd);
    nap(SCALED(30));
    CHECK_INT(empm__load(&l.s->engine.score->moved_in), 0);
    for (i = 0; i < N; i++)
        if (!CHECK(!cl_readable(&c[i], 0)))
            break;
    empm__store(&empm__score_slot_at(&l.s->score, 1)->pid, 0u);
    CHECK_INT(cl_get(&moved, "/hello"), 200);
    for (i = 0; i < N; i++)
        cl_close(&c[i]);
    cl_close(&moved);
    lone_down(&l);
}

/* ---------------------------------------------------------------------------
 * >>operate -- reload, upgrade, watchdog, service managers
 * ------------------------------------------------------------------------- */

/* --- requests all the while ---------------------------------------------- */

typedef struct asker {
    pthread_t th;
    int       port, stop, done, failed;
    char      why[160];
} asker;

/* One keep-alive client after the other: a reply that is not 200, a connection
 * that is refused or ends without notice, is a failure. */
static void *asker_main(void *arg)
{
    asker *a = (asker *)arg;
    client c;
    int open = 0, rc = 200;

    while (!get_int(&a->stop) && !get_int(&a->failed)) {
        if (!open && cl_connect_port(&c, a->port, 0) != 0) {
            snprintf(a->why, sizeof a->why, "connect: %s", strerror(errno));
            set_int(&a->failed, 1);
            return NULL;
        }
        open = 1;
        rc = cl_get(&c, "/hello");
        if (rc != 200) {
            snprintf(a->why, sizeof a->why, "reply %d, end %d, after %d", rc,
                     c.end, get_int(&a->done));
            set_int(&a->failed, 1);
        }
        add_int(&a->done, 1);
        if (c.closes || rc != 200) {
            cl_close(&c);
            open = 0;
        }
    }
    if (open)
        cl_close(&c);
    return NULL;
}

static void askers_start(asker *a, int n, int port)
{
    int i;

    memset(a, 0, (size_t)n * sizeof *a);
    for (i = 0; i < n; i++) {
        a[i].port = port;
        pthread_create(&a[i].th, NULL, asker_main, &a[i]);
    }
}

static void askers_stop(asker *a, int n)
{
    int i;

    for (i = 0; i < n; i++) {
        set_int(&a[i].stop, 1);
        pthread_join(a[i].th, NULL);
        if (a[i].failed)
            fail(__FILE__, __LINE__, "client %d: %s", i, a[i].why);
        CHECK(a[i].done > 0);
    }
}

/* --- reload -------------------------------------------------------------- */

static int serves(const fixture *f, int generation)
{
    char line[64];

    snprintf(line, sizeof line, "generation %d serves", generation);
    return fx_log_has(f, line);
}

static void reload_to(fixture *f, int sig, int generation)
{
    signal_process(f->pid, sig);
    CHECK_SOON(serves(f, generation), 8000);
}

/* Reload after reload under load, no request fails, and all children are
 * new. */
SERVED_BY(operate, graceful_restarts_lose_nothing, 2, "MaxKeepAliveRequests 0")
{
    enum { N = 6, RELOADS = 20 };
    asker a[N];
    long kids[16], after[16];
    int i;

    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    wait_children(f, 2, kids, PATIENCE);
    askers_start(a, N, f->port);
    for (i = 1; i <= RELOADS / g_slow + 1; i++)
        reload_to(f, SIGUSR1, i);
    askers_stop(a, N);
    CHECK_SOON(fx_log_lines(f, "has ended: its log files") == i - 1, 8000);
    wait_children(f, 2, after, PATIENCE);
    CHECK(!is_among(after[0], kids, 2) && !is_among(after[1], kids, 2));
}

/* A graceful restart closes no idle connection, as Apache did (bug 43359). */
SERVED_BY(operate, graceful_restart_closes_no_idle_connection, 2, NULL)
{
    client idle = client_of(f), sleeper = client_of(f);

    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    check_in_step(&idle);
    cl_puts(&sleeper, "GET /sleep?ms=500 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(!cl_readable(&sleeper, 50));
    reload_to(f, SIGUSR1, 1);
    CHECK_OPEN(&idle);
    CHECK_INT(cl_reply(&sleeper), 200);
    CHECK_INT(sleeper.closes, 0);
    CHECK_SOON(fx_log_has(f, "generation 0 has ended"), 4000);
    check_in_step(&idle);            /* both are the new generation's now */
    check_in_step(&sleeper);
    CHECK_INT(idle.closes + sleeper.closes, 0);
    cl_close(&idle);
    cl_close(&sleeper);
}

/* Idle connections, as many as one message of the exchange cannot hold, go to
 * the children that serve, and those that drain are gone at once: reload after
 * reload, and when a child has had MaxConnectionsPerChild. */
SERVED_BY(operate, idle_connections_outlive_their_child, 2,
          LONG_TIMES "MaxKeepAliveRequests 0; MaxConnectionsPerChild 100")
{
    enum { N = 150 };
    static client cs[N];
    long kids[16];
    uint64_t t0;
    int i, round, closed = 0;

    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    for (i = 0; i < N; i++) {
        cl_open(&cs[i], f);
        CHECK_INT(cl_get(&cs[i], "/hello"), 200);
    }
    for (round = 1; round <= 3; round++) {
        t0 = now_ms();
        reload_to(f, SIGUSR1, round);
        CHECK_SOON(fx_log_lines(f, "has ended: its log files") == round, 8000);
        CHECK(now_ms() - t0 < (uint64_t)SCALED(2000));
        for (i = 0; i < N; i++) {
            closed += cl_get(&cs[i], "/hello") != 200 || cs[i].closes;
            if (closed)
                break;
        }
    }
    CHECK_INT(closed, 0);
    cl_close_all(cs, N);
    wait_children(f, 2, kids, PATIENCE);
}

/* Answers that are under way at a reload are sent to their end. */
SERVED_BY(operate, streams_outlive_a_reload, 2, LONG_TIMES)
{
    enum { N = 30 };
    static client cs[N];
    int i;

    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "EMPM0489"), 8000);
    for (i = 0; i < N; i++) {
        cl_open(&cs[i], f);
        cl_puts(&cs[i], "GET /events?n=60 HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for (i = 0; i < N; i++)
        CHECK_INT(cl_readable(&cs[i], 8000), 1);
    reload_to(f, SIGUSR1, 1);
    for (i = 0; i < N; i++) {
        context("stream %d", i);
        CHECK_INT(cl_reply(&cs[i]), 200);
        CHECK(strncmp(cs[i].body.p, "data: 60\n\n", 10) == 0);
        CHECK(cs[i].body.n > 20 &&
              strcmp(cs[i].body.p + cs[i].body.n - 18,
                     "data: 2\n\ndata: 1\n\n") == 0);
        cl_close(&cs[i]);
    }
    no_context();
    CHECK_SOON(fx_log_has(f, "generation 0 has ended"), 8000);
}

/* What the next reload meets: shm->rc[0]. */
enum { RELOAD_OK, RELOAD_REFUSED, RELOAD_CRASHES, RELOAD_HANGS,
       RELOAD_BAD_LISTEN, RELOAD_BAD_NUMBER, RELOAD_SICK, RELOAD_SLOW,
       RELOAD_LIMITS };

static int hk_reload(empm_config *cfg, void *user)
{
    (void)user;
    switch (get_int(&shm->rc[0])) {
    case RELOAD_REFUSED:
        return EMPM_EINVAL;
    case RELOAD_CRASHES:
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
        break;
    case RELOAD_HANGS:
        for (;;)
            pause();
    case RELOAD_BAD_LISTEN:
        cfg->listen[1] = "192.0.2.1:80";         /* not an address of ours */
        break;
    case RELOAD_BAD_NUMBER:
        cfg->timeout_ms = -1;
        break;
    case RELOAD_LIMITS:
        cfg->server_limit = 40;
        cfg->thread_limit = 128;
        break;
    default:
        break;
    }
    return EMPM_OK;
}

static int hk_sick(empm_server *s, void *user)
{
    fx_child_start(s, user);
    if (get_int(&shm->rc[0]) == RELOAD_SLOW)
        nap(60000);
    return get_int(&shm->rc[0]) == RELOAD_SICK;
}

/* A reload that fails changes nothing, and its one line in the log says the
 * cause. */
SERVED_WITH(operate, failed_reload_changes_nothing, T_PLAIN,
            fx_init_forked(f, 2); f->cfg.start_timeout_ms = SCALED(700);
            f->cfg.on_reload = hk_reload; f->cfg.on_child_start = hk_sick,
            NULL)
{
    static const struct { int what; const char *log; } rows[] = {
        { RELOAD_REFUSED,    "on_reload has refused" },
        { RELOAD_CRASHES,    "crashes: signal Segmentation fault (11)" },
        { RELOAD_HANGS,      "longer than StartTimeout" },
        { RELOAD_BAD_LISTEN, "192.0.2.1:80: " },
        { RELOAD_BAD_NUMBER, "Timeout of -1 is out of range" },
        { RELOAD_SICK,       "healthy: its children end with status 7: the "
         "gen" },
        { RELOAD_SLOW,       "healthy: 0 of 2 children are after StartTimeout" }
    };
    long kids[16], after[16];

    if (!have_proc())
        SKIP("no /proc to see children in");
    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    wait_children(f, 2, kids, PATIENCE);
    EACH(rows, i) {
        context("%s", rows[i].log);
        set_int(&shm->rc[0], rows[i].what);
        signal_process(f->pid, SIGUSR1);
        CHECK_SOON(fx_log_lines(f, "the generation that serves goes on") ==
                   (int)i + 1, 8000);
        CHECK(fx_log_has(f, rows[i].log));
        CHECK_INT(wait_children(f, 2, after, PATIENCE), 2);
        CHECK(is_among(after[0], kids, 2) && is_among(after[1], kids, 2));
        CHECK_INT(get_status(f, "/hello"), 200);
    }
    CHECK(!serves(f, 1));
    set_int(&shm->rc[0], RELOAD_LIMITS);         /* the limits stay */
    reload_to(f, SIGUSR1, 1);
    CHECK(fx_log_has(f, "EMPM0501") && fx_log_has(f, "EMPM0506"));
    CHECK_INT(get_status(f, "/hello"), 200);
}

static const char *fx_pid_file;

static int hk_reload_settings(empm_config *cfg, void *user)
{
    (void)user;
    cfg->graceful_stop_signal = SIGALRM;
    cfg->pid_file = fx_pid_file;
    return EMPM_OK;
}

/* A reload applies the settings of the parent itself, too. */
TEST(operate, a_reload_applies_what_the_parent_uses)
{
    char old[300], path[300];
    fixture f;

    tmp_path(old, sizeof old, "old.pid");
    tmp_path(path, sizeof path, "new.pid");
    unlink(path);
    fx_init_forked(&f, 1);
    f.deaths_ok = 1;
    f.cfg.pid_file = old;
    f.cfg.graceful_stop_signal = SIGIO;
    f.cfg.on_reload = hk_reload_settings;
    fx_pid_file = path;
    if (!fx_up(&f))
        return;
    CHECK_SOON(fx_log_has(&f, "EMPM0489"), 4000);
    CHECK_INT(access(old, F_OK), 0);
    reload_to(&f, SIGUSR1, 1);
    CHECK_SOON(access(path, F_OK) == 0, 2000);
    CHECK(access(old, F_OK) != 0);
    signal_process(f.pid, SIGIO);    /* it means nothing any more, and ... */
    reload_to(&f, SIGUSR1, 2);       /* ... kills nobody who still sends it */
    CHECK(!fx_log_has(&f, "EMPM0492"));
    signal_process(f.pid, SIGALRM);
    CHECK(fx_wait(&f, PATIENCE));
    CHECK(WIFEXITED(f.status));
    CHECK(fx_log_has(&f, "EMPM0492"));
    CHECK(access(path, F_OK) != 0);
    fx_down(&f);
}

static int hk_reload_spelling(empm_config *cfg, void *user)
{
    static char path[300];

    (void)user;                      /* another one each time */
    snprintf(path, sizeof path, get_int(&shm->rc[0]) == 1
                                    ? "%s/./own.pid" : "%s/../%s/own.pid",
             g_tmp, strrchr(g_tmp, '/') + 1);
    cfg->pid_file = path;
    return EMPM_OK;
}

/* Another spelling of PidFile is no other file: a reload does not remove it. */
TEST(operate, a_pid_file_by_another_name_stays)
{
    char path[300], want[32], *text;
    fixture f;
    int i;

    tmp_path(path, sizeof path, "own.pid");
    fx_init_forked(&f, 1);
    f.deaths_ok = 1;
    f.cfg.pid_file = path;
    f.cfg.on_reload = hk_reload_spelling;
    if (!fx_up(&f))
        return;
    CHECK_SOON(fx_log_has(&f, "EMPM0489"), 4000);
    snprintf(want, sizeof want, "%ld\n", (long)f.pid);
    for (i = 1; i <= 2; i++) {
        set_int(&shm->rc[0], i);
        reload_to(&f, SIGUSR1, i);
        text = slurp_path(path);
        CHECK_STR(text, want);
        free(text);
    }
    signal_process(f.pid, SIGTERM);
    CHECK(fx_wait(&f, PATIENCE));
    CHECK(access(path, F_OK) != 0);  /* and it goes with the server */
    fx_down(&f);
}

/* The sizes of buffers are those of the configuration for sockets that stay. */
TEST(operate, sockets_that_stay_get_their_buffers)
{
    empm__report rep;
    empm_server *s = NULL;
    socklen_t n = sizeof (int);
    int before = 0, after = 0;
    fixture f;

    fx_init(&f);
    memset(&rep, 0, sizeof rep);
    f.cfg.send_buffer_size = 20000;
    if (!CHECK_INT(empm__server_new(&f.cfg, 0, NULL, &rep, &s), EMPM_OK))
        return;
    getsockopt(s->endpoints[0].fd, SOL_SOCKET, SO_SNDBUF, &before, &n);
    f.cfg.send_buffer_size = 40000;
    empm__parent_endpoints_options(s);
    getsockopt(s->endpoints[0].fd, SOL_SOCKET, SO_SNDBUF, &after, &n);
    CHECK(after > before);
    empm__server_free(s);
    fx_close_files(&f);
}

/* TERM may be the graceful stop, as orchestrators send nothing else. INT may
 * not. */
TEST(operate, term_may_be_graceful)
{
    fixture f;
    client c;

    fx_init_forked(&f, 1);
    f.cfg.graceful_stop_signal = empm__config_parse_signal("TERM");
    CHECK_INT(f.cfg.graceful_stop_signal, SIGTERM);
    if (!fx_up(&f))
        return;
    CHECK_SOON(fx_log_has(&f, "EMPM0489"), 4000);
    set_int(&shm->gate, 0);
    cl_open(&c, &f);
    cl_puts(&c, "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_SOON(get_int(&shm->at_gate) == 1, 2000);
    signal_process(f.pid, SIGTERM);
    CHECK_SOON(fx_log_has(&f, "EMPM0492"), 2000);
    set_int(&shm->gate, 1);
    CHECK_INT(cl_reply(&c), 200);
    cl_close(&c);
    CHECK(fx_wait(&f, PATIENCE));
    fx_down(&f);
}

static void *reaps_all(void *arg)
{
    int status;

    (void)arg;
    for (;;)
        if (wait(&status) < 0)
            usleep(1000);
    return NULL;
}

static void start_reaper(void)
{
    pthread_t th;

    pthread_create(&th, NULL, reaps_all, NULL);
}

/* A program may reap any process that ends: a reload gets through all the
 * same, and the reason of a failed one is said. */
SERVED_WITH(operate, somebody_else_reaps_the_children, T_PLAIN,
            fx_init_forked(f, 1); f->cfg.on_reload = hk_reload;
            f->in_child = is_tsan_here() ? NULL : start_reaper, NULL)
{
    if (is_tsan_here())
        SKIP("ThreadSanitizer knows no fork beside a thread");
    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    reload_to(f, SIGUSR1, 1);
    set_int(&shm->rc[0], RELOAD_REFUSED);
    signal_process(f->pid, SIGUSR1);
    CHECK_SOON(fx_log_has(f, "the generation that serves goes on"), 4000);
    CHECK_INT(get_status(f, "/hello"), 200);
}

static int hk_start_slowly(empm_server *s, void *user)
{
    fx_child_start(s, user);
    nap(150);
    return 0;
}

/* An upgrade that fails does not swallow the reload that was asked for beside
 * it. */
SERVED_WITH(operate, a_reload_survives_a_failing_upgrade, T_PLAIN,
            fx_init_forked(f, 1); f->cfg.on_child_start = hk_start_slowly,
            NULL)
{
    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "EMPM5042"), 4000);    /* no child yet */
    signal_process(f->pid, SIGUSR2);
    nap(5);
    signal_process(f->pid, SIGHUP);
    CHECK_SOON(serves(f, 1), 4000);
    CHECK(fx_log_has(f, "an upgrade needs empm_main()"));
}

/* A child that leaves by MaxConnectionsPerChild has not died unasked, even if
 * the parent sees its end before it reads its word. */
TEST(operate, who_leaves_has_not_died)
{
    empm__report rep;
    empm__parent p;
    empm__child kids[4];
    fixture f;

    fx_init(&f);
    f.cfg.processes = 1;
    memset(&rep, 0, sizeof rep);
    memset(&p, 0, sizeof p);
    memset(kids, 0, sizeof kids);
    if (!CHECK_INT(empm__server_new(&f.cfg, 1, NULL, &rep, &p.now.s), EMPM_OK))
        return;
    p.now.cfg = &f.cfg;
    p.children = kids;
    p.slots = 4;
    kids[0].pid = 1;
    kids[0].control = dup(0);
    kids[0].born_us = empm__now_us();
    empm__store(&empm__score_at(&p.now.s->score, 0)->stopping, 1u);
    empm__child_died(&p, 0, 0);
    CHECK_INT(p.now.quick_deaths, 0);
    CHECK_INT((int)empm__parent_board(&p)->died, 0);
    empm__server_free(p.now.s);
    fx_close_files(&f);
}

/* A new generation whose threads cannot start replaces nobody, and a later
 * reload succeeds. */
TEST(operate, children_whose_threads_fail_replace_nobody)
{
    fixture f;
    long kids[16], after[16];
    int slow;

    fx_init_forked(&f, 1);
    f.deaths_ok = 1;
    f.cfg.start_timeout_ms = 60000;  /* not what ends it */
    f.cfg.on_thread_start = hk_third_thread_fails;
    if (!fx_up(&f))
        return;
    CHECK_SOON(fx_log_has(&f, "EMPM0489"), 8000);
    wait_children(&f, 1, kids, PATIENCE);
    set_int(&shm->rc[0], 1);
    for (slow = 0; slow < 2; slow++) {   /* a connection that times out, too */
        context("slow %d", slow);
        set_int(&shm->rc[1], slow * 1100);
        signal_process(f.pid, SIGUSR1);
        CHECK_SOON(fx_log_lines(&f, "the generation that serves goes on") ==
                   slow + 1, 30000);
        CHECK_INT(wait_children(&f, 1, after, PATIENCE), 1);
        CHECK(is_among(after[0], kids, 1));
        CHECK_INT(get_status(&f, "/hello"), 200);
    }
    no_context();
    CHECK(!serves(&f, 1));
    CHECK(fx_log_has(&f, "EMPM5007: on_thread_start has returned -42"));
    set_int(&shm->rc[0], 0);
    reload_to(&f, SIGUSR1, 1);       /* and when it can be done, it is */
    fx_down(&f);
}

/* Reloads, restarts and a stop that come while a reload is under way are
 * obeyed (Apache bugs 60487 and 64533). */
SERVED_BY(operate, signals_while_a_reload_is_under_way, 2, NULL)
{
    int i;

    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "EMPM5042"), 4000);    /* no child yet */
    for (i = 0; i < 40; i++) {
        signal_process(f->pid, i % 3 == 0 ? SIGHUP : SIGUSR1);
        nap(7);
    }
    CHECK_SOON(serves(f, 2), 8000);
    CHECK_SOON(get_status(f, "/hello") == 200, 4000);   /* HUP drops some */
    /* and a stop in the middle of one */
    signal_process(f->pid, SIGUSR1);
    nap(5);
}

static char g_second[64], g_third[64];

static int hk_listen(empm_config *cfg, void *user)
{
    (void)user;
    cfg->listen[1] = get_int(&shm->rc[0]) == 1 ? g_second
                   : get_int(&shm->rc[0]) == 2 ? g_third : NULL;
    return EMPM_OK;
}

static int is_open(int port)
{
    client c;
    const int ok = cl_connect_port(&c, port, 0) == 0;

    if (ok)
        cl_close(&c);
    return ok;
}

/* A reload opens new sockets and closes old ones; one that cannot be bound
 * leaves all as it was. */
TEST(operate, reload_adds_and_removes_sockets)
{
    fixture f;
    asker a[2];
    int port, fd = listening_socket(&port);

    close(fd);
    fx_init_forked(&f, 1);
    f.deaths_ok = 1;
    f.cfg.on_reload = hk_listen;
    snprintf(g_second, sizeof g_second, "127.0.0.1:%d", port);
    snprintf(g_third, sizeof g_third, "0.0.0.0:%d", port);
    if (!fx_up(&f))
        return;
    CHECK_SOON(fx_log_has(&f, "EMPM0489"), 4000);
    CHECK(!is_open(port));
    askers_start(a, 2, f.port);
    set_int(&shm->rc[0], 1);
    reload_to(&f, SIGUSR1, 1);
    CHECK(is_open(port));
    set_int(&shm->rc[0], 2);         /* cannot be bound beside the old one */
    signal_process(f.pid, SIGUSR1);
    CHECK_SOON(fx_log_has(&f, "stop and start"), 4000);
    CHECK(is_open(port));
    set_int(&shm->rc[0], 0);
    reload_to(&f, SIGUSR1, 2);
    CHECK_SOON(!is_open(port), 2000);
    set_int(&shm->rc[0], 2);         /* now it is free */
    reload_to(&f, SIGUSR1, 3);
    CHECK(is_open(port));
    askers_stop(a, 2);
    fx_down(&f);
}

/* HUP ends running requests and serves again. */
SERVED_BY(operate, restart_stops_what_runs, 1, "StopTimeout 200ms")
{
    uint64_t t0;

    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    cl_puts(c, "GET /sleep?ms=20000 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(!cl_readable(c, 50));
    t0 = now_ms();
    reload_to(f, SIGHUP, 1);
    CHECK(cl_end(c, SCALED(5000)) != CL_TIMEOUT);
    CHECK_IN(now_ms() - t0, 0, SCALED(4000));
    CHECK_INT(get_status(f, "/hello"), 200);
}

/* One child, whose two workers stand at the gate; n more requests wait in the
 * backlog, or in its queue. */
static int op_blocked(fixture *f, client *busy, client *wait, int n)
{
    int i;

    set_int(&shm->gate, 0);
    for (i = 0; i < 2; i++) {
        cl_open(&busy[i], f);
        cl_puts(&busy[i], "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    CHECK_SOON(get_int(&shm->at_gate) == 2, 2000);
    nap(SCALED(30));                 /* now it does not accept any more */
    for (i = 0; i < n; i++) {
        cl_open(&wait[i], f);
        cl_puts(&wait[i], "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    return get_int(&shm->at_gate) == 2;
}

/* While all workers of a child that drains are blocked, the new generation
 * serves: what waited for a request there, and what waited to be accepted. */
TEST(operate, blocked_workers_hold_no_drain)
{
    enum { N = 6 };
    client idle[N], busy[2], wait[N];
    fixture f;
    int i, late = 0;

    fx_init_forked(&f, 1);
    f.cfg.threads_per_child = 2;
    f.deaths_ok = 1;
    long_times(&f);
    if (!fx_up(&f))
        return;
    CHECK_SOON(fx_log_has(&f, "EMPM0489"), 4000);
    for (i = 0; i < N; i++) {
        cl_open(&idle[i], &f);
        CHECK_INT(cl_get(&idle[i], "/hello"), 200);
    }
    op_blocked(&f, busy, wait, N);
    reload_to(&f, SIGUSR1, 1);
    for (i = 0; i < N; i++) {
        idle[i].patience = wait[i].patience = late ? 1 : AT_ONCE;
        late += cl_reply(&wait[i]) != 200 || wait[i].closes;
        late += cl_get(&idle[i], "/hello") != 200 || idle[i].closes;
    }
    CHECK_INT(late, 0);
    set_int(&shm->gate, 1);
    for (i = 0; i < 2; i++) {
        CHECK_INT(cl_reply(&busy[i]), 200);
        cl_close(&busy[i]);
    }
    for (i = 0; i < N; i++) {
        cl_close(&idle[i]);
        cl_close(&wait[i]);
    }
    fx_down(&f);
}

/* MaxOpenConnections is a bound of each child, but nobody who hands over has
 * his connections closed by one of them while the others have room. */
TEST(operate, a_full_child_closes_nothing_of_a_drain)
{
    enum { KIDS = 4, EACH = 40, N = 120 };
    static client c[N];
    fixture f;
    int i, before = 0, closed = 0;

    fx_init_forked(&f, KIDS);
    f.cfg.threads_per_child = 2;
    f.cfg.max_open_connections = EACH;
    f.cfg.max_keep_alive_requests = 0;
    f.deaths_ok = 1;
    long_times(&f);
    if (!fx_up(&f))
        return;
    CHECK_SOON(get_int(&shm->child_starts) == KIDS &&
               fx_log_has(&f, "EMPM0489"), 4000);
    for (i = 0; i < N; i++) {
        cl_open(&c[i], &f);
        CHECK_INT(cl_get(&c[i], "/hello"), 200);
    }
    nap(SCALED(10));
    for (i = 0; i < N; i++)
        before += cl_readable(&c[i], 0);  /* if one has accepted too many */
    reload_to(&f, SIGUSR1, 1);
    CHECK_SOON(fx_log_has(&f, "generation 0 has ended"), 4000);
    for (i = 0; i < N; i++)
        closed += cl_readable(&c[i], 0);
    CHECK_INT(closed, before);
    for (i = 0; i < N; i++)
        cl_close(&c[i]);
    fx_down(&f);
}

/* HUP ends what runs, and leaves what has not been accepted to those who
 * come. */
TEST(operate, a_restart_leaves_the_backlog)
{
    enum { N = 8 };
    client busy[2], wait[N];
    fixture f;
    int i, lost = 0;

    fx_init_forked(&f, 1);
    f.cfg.threads_per_child = 2;
    f.cfg.stop_timeout_ms = 100;
    f.deaths_ok = 1;
    long_times(&f);
    if (!fx_up(&f))
        return;
    CHECK_SOON(fx_log_has(&f, "EMPM0489"), 4000);
    op_blocked(&f, busy, wait, N);
    reload_to(&f, SIGHUP, 1);
    for (i = 0; i < N; i++) {
        wait[i].patience = AT_ONCE;
        lost += cl_reply(&wait[i]) != 200;
        cl_close(&wait[i]);
    }
    CHECK_INT(lost, 0);
    set_int(&shm->gate, 1);
    cl_close(&busy[0]);
    cl_close(&busy[1]);
    fx_down(&f);
}

/* A reload that drops a Listen, or spells it otherwise, closes no connection
 * that has come by it: the new generation takes it over. */
TEST(operate, a_dropped_listen_keeps_its_connections)
{
    enum { N = 3 };
    client c[N];
    fixture f;
    int i, respelled, port, fd;

    for (respelled = 0; respelled < 2; respelled++) {
        context("respelled %d", respelled);
        fd = listening_socket(&port);
        close(fd);
        fx_init_forked(&f, 1);
        f.deaths_ok = 1;
        f.cfg.on_reload = hk_listen;
        snprintf(g_second, sizeof g_second, "%d", port);
        snprintf(g_third, sizeof g_third, "*:%d", port);
        f.cfg.listen[1] = g_second;
        long_times(&f);
        if (!fx_up(&f))
            return;
        CHECK_SOON(fx_log_has(&f, "EMPM0489"), 4000);
        for (i = 0; i < N; i++) {
            CHECK_INT(cl_connect_port(&c[i], port, 0), 0);
            CHECK_INT(cl_get(&c[i], "/hello"), 200);
        }
        set_int(&shm->rc[0], respelled ? 2 : 0);
        reload_to(&f, SIGUSR1, 1);
        CHECK_SOON(fx_log_has(&f, "generation 0 has ended"), 4000);
        for (i = 0; i < N; i++) {
            CHECK_INT(cl_get(&c[i], "/hello"), 200);
            CHECK_INT(c[i].closes, 0);
            cl_close(&c[i]);
        }
        fx_down(&f);
    }
    no_context();
}

/* GracefulRestartTimeout ends generations that would drain for ever. */
SERVED_BY(operate, a_drain_has_its_end, 1,
          "GracefulRestartTimeout 300ms; StopTimeout 100ms")
{
    uint64_t t0;

    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    cl_puts(c, "GET /sleep?ms=30000 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(!cl_readable(c, 50));
    t0 = now_ms();
    reload_to(f, SIGUSR1, 1);
    CHECK_SOON(fx_log_has(f, "generation 0 has ended"), 8000);
    CHECK_IN(now_ms() - t0, 300, 2700 + SCALED(1500));
    CHECK(cl_end(c, SCALED(1000)) != CL_TIMEOUT);
}

/* A reload cuts nothing off: as many generations drain as there are slots, and
 * the next reload waits for them and says so. HUP does not wait. */
TEST(operate, next_reload_lets_the_others_drain)
{
    enum { N = 3 };                  /* 4 slots; the last is the next one's */
    fixture f;
    client c[N];
    int i, hard;

    for (hard = 0; hard < 2; hard++) {
        context("hard %d", hard);
        fx_init_forked(&f, 1);
        f.deaths_ok = 1;
        f.cfg.server_limit = 1;
        f.cfg.stop_timeout_ms = 50;
        if (!fx_up(&f))
            return;
        CHECK_SOON(fx_log_has(&f, "EMPM0489"), 4000);
        set_int(&shm->gate, 0);
        for (i = 0; i < N; i++) {
            cl_open(&c[i], &f);
            cl_puts(&c[i], "GET /gate HTTP/1.1\r\nHost: a\r\n\r\n");
            CHECK_SOON(get_int(&shm->at_gate) == i + 1, 2000);
            reload_to(&f, SIGUSR1, i + 1);
            nap(SCALED(30));         /* the older one accepts no more */
        }
        CHECK(!fx_log_has(&f, "EMPM0485"));
        signal_process(f.pid, SIGUSR1);
        CHECK_SOON(fx_log_has(&f, "EMPM0485: the scoreboard has no room"),
                   4000);
        CHECK_INT(get_status(&f, "/hello"), 200);
        CHECK(!serves(&f, N + 1));
        if (hard)
            signal_process(f.pid, SIGHUP);
        else
            set_int(&shm->gate, 1);
        CHECK_SOON(serves(&f, N + 1), 8000);
        for (i = 0; i < N; i++) {
            CHECK_INT(cl_reply(&c[i]), hard ? 0 : 200);
            cl_close(&c[i]);
        }
        set_int(&shm->gate, 1);
        CHECK_SOON(fx_log_lines(&f, "has ended: its log files") == N + 1, 4000);
        fx_down(&f);
    }
    no_context();
}

/* GracefulShutdownDelay keeps the server serving after the signal, until
 * balancers have seen /health. */
SERVED_WITH(operate, graceful_stop_may_wait_for_balancers, T_PLAIN,
            fx_init_forked(f, 1);
            f->cfg.graceful_shutdown_delay_ms = SCALED(400), NULL)
{
    uint64_t t0;

    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    t0 = now_ms();
    signal_process(f->pid, SIGQUIT);
    CHECK_SOON(fx_log_has(f, "EMPM0492"), 1000);
    CHECK_INT(get_status(f, "/hello"), 200);    /* all goes on */
    CHECK(fx_wait(f, PATIENCE));
    CHECK_IN(now_ms() - t0, (uint64_t)SCALED(400), (uint64_t)SCALED(2500));
    if (fx_reap(f, f->pid, SCALED(1000)))
        f->pid = 0;
}

/* --- the watchdog -------------------------------------------------------- */

/* The watchdog kills a child that does not answer, and leaves alone those that
 * do. */
SERVED_WITH(operate, stopped_child_is_replaced, T_PLAIN,
            fx_init_forked(f, 2); f->cfg.watchdog_interval_ms = SCALED(100),
            NULL)
{
    long kids[16], after[16];
    uint64_t t0;
    int n;

    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    if (wait_children(f, 2, kids, PATIENCE) != 2)
        SKIP("no /proc to see children in");
    nap(SCALED(500));                /* nobody is killed who answers */
    CHECK_INT(wait_children(f, 2, after, PATIENCE), 2);
    CHECK(is_among(after[0], kids, 2) && is_among(after[1], kids, 2));
    t0 = now_ms();
    signal_process((pid_t)kids[0], SIGSTOP);
    CHECK_SOON(fx_log_has(f, "EMPM5038"), 4000);
    CHECK_IN(now_ms() - t0, SCALED(200), SCALED(1500));
    do
        n = wait_children(f, 2, after, PATIENCE);
    while (n == 2 && is_among(kids[0], after, 2) &&
           now_ms() - t0 < (uint64_t)PATIENCE);
    CHECK(n == 2 && !is_among(kids[0], after, 2));
    CHECK_INT(get_status(f, "/hello"), 200);
}

#ifdef __linux__

/* While it waits for its child here, a thread looks as it does when it waits
 * for a disk. */
static void log_on_a_slow_disk(enum empm_log_level level, const char *line,
                               void *user)
{
    pid_t pid;

    fx_log(level, line, user);
    if (strstr(line, "EMPM5306") == NULL)
        return;
    set_int(&shm->rc[3], 1);
    pid = vfork();
    if (pid == 0) {
        nap(SCALED(700));
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    set_int(&shm->rc[3], 2);
}

/* A listener whose line in the log has to wait for the disk is well. */
SERVED_WITH(operate, a_disk_that_stands_still_is_no_fault, T_PLAIN,
            fx_init_forked(f, 1); f->cfg.log = log_on_a_slow_disk;
            f->cfg.watchdog_interval_ms = SCALED(100),
            "MaxConnectionsPerPeer 1")
{
    client second;

    if (!have_proc() || is_tsan_here() || g_slow > 4)
        SKIP("no /proc to see what a thread waits for, or no vfork()");
    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    check_in_step(c);
    /* refused, with a line of the listener's */
    cl_open(&second, f);
    CHECK_SOON(get_int(&shm->rc[3]) == 2, 4000);
    check_in_step(c);
    CHECK(!fx_log_has(f, "EMPM5038"));
    cl_close(&second);
}

#endif

static void hk_stops_slowly(empm_server *s, void *user)
{
    (void)s;
    (void)user;
    nap(SCALED(600));
    add_int(&shm->rc[2], 1);
}

/* A child that ends may take its time for its stop hooks: it has a deadline. */
SERVED_WITH(operate, slow_stop_hooks_are_no_fault, T_PLAIN,
            fx_init_forked(f, 1); f->cfg.watchdog_interval_ms = SCALED(100);
            f->cfg.on_child_stop = hk_stops_slowly, NULL)
{
    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    reload_to(f, SIGUSR1, 1);
    CHECK_SOON(fx_log_has(f, "generation 0 has ended"), 4000);
    CHECK_INT(get_int(&shm->rc[2]), 1);
    CHECK(!fx_log_has(f, "EMPM5038"));
}

/* A machine that was suspended is no reason to kill children. */
SERVED_WITH(operate, suspended_machine_kills_nobody, T_PLAIN,
            fx_init_forked(f, 2); f->cfg.watchdog_interval_ms = SCALED(100),
            NULL)
{
    long kids[16], after[16];
    int i;

    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    if (wait_children(f, 2, kids, PATIENCE) != 2)
        SKIP("no /proc to see children in");
    for (i = 0; i < 3; i++) {
        signal_group(f->pid, SIGSTOP);
        nap(SCALED(700));
        signal_group(f->pid, SIGCONT);
        nap(SCALED(250));
    }
    CHECK_INT(wait_children(f, 2, after, PATIENCE), 2);
    CHECK(is_among(after[0], kids, 2) && is_among(after[1], kids, 2));
    CHECK(!fx_log_has(f, "EMPM5038"));
    CHECK_INT(get_status(f, "/hello"), 200);
}

/* Children that drain make room for the next generation (Apache bug 53555).
 * The last requests wait until the drains have had their 2 s, one after the
 * other: the bounds only keep a test that hangs from taking for ever. */
SERVED_BY(operate, draining_children_make_room, 1,
          "ServerLimit 1; MaxConnectionsPerChild 1; StopTimeout 100ms")
{
    enum { N = 5 };
    client cs[N], last;
    int i;

    f->deaths_ok = 1;
    for (i = 0; i < N; i++) {        /* each takes a child with it */
        cl_open(&cs[i], f);
        cl_puts(&cs[i], "GET /sleep?ms=30000 HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK_SOON(i < 3 ? fx_log_lines(f, "started in slot") >= i + 2
                         : fx_log_has(f, "EMPM0485"), 15000);
    }
    cl_open(&last, f);
    last.patience = SCALED(30000);
    CHECK_INT(cl_get(&last, "/hello"), 200);
    cl_close(&last);
    cl_close_all(cs, N);
}

static int hk_slow_start(empm_server *s, void *user)
{
    fx_child_start(s, user);
    if (get_int(&shm->child_starts) > 1 && get_int(&shm->rc[1]) == 0) {
        set_int(&shm->rc[1], 1);
        nap(60000);
    }
    return 0;
}

/* A child that is not healthy within StartTimeout is replaced. */
SERVED_WITH(operate, child_that_hangs_at_its_start_is_replaced, T_PLAIN,
            fx_init_forked(f, 1); f->cfg.start_timeout_ms = SCALED(600);
            f->cfg.on_child_start = hk_slow_start, NULL)
{
    long kids[16];

    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    if (wait_children(f, 1, kids, PATIENCE) == 1)
        signal_process((pid_t)kids[0], SIGKILL);
    CHECK_INT(get_status(f, "/hello"), 200);
    CHECK(fx_log_has(f, "is not healthy in time"));
}

/* Processor time of a process, in ticks. */
static long ticks_of(long pid)
{
    char path[64], text[1024];
    unsigned long user = 0, sys = 0;
    const char *p;
    FILE *in;
    size_t n = 0;

    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    if ((in = fopen(path, "r")) != NULL) {
        n = fread(text, 1, sizeof text - 1, in);
        fclose(in);
    }
    text[n] = 0;
    p = strrchr(text, ')');
    if (p == NULL ||
        sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
               &user, &sys) != 2)
        return -1;
    return (long)(user + sys);
}

/* A parent that waits for its children to end takes no CPU. */
SERVED_BY(operate, parent_rests_while_it_stops, 2, NULL)
{
    long kids[16], before;
    int i;

    f->deaths_ok = 1;
    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    cl_puts(c, "GET /sleep?ms=3000 HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(!cl_readable(c, 50));
    for (i = 0; i < 6; i++) {        /* so many that they are throttled */
        const int n = wait_children(f, 2, kids, 200);
        if (n > 0)                   /* the youngest */
            signal_process((pid_t)kids[n - 1], SIGKILL);
        nap(20);
    }
    signal_process(f->pid, SIGQUIT);
    nap(200);
    before = ticks_of(f->pid);
    nap(600);
    if (before >= 0)
        CHECK_IN(ticks_of(f->pid) - before, 0, 10);
}

/* Exactly N children are not more in number either, however busy they are. */
SERVED_BY(operate, all_busy_is_said_of_exact_children, 1, NULL)
{
    client cs[5];
    size_t i;

    CHECK_SOON(fx_log_has(f, "EMPM0489"), 4000);
    for (i = 0; i < 5; i++) {
        cl_open(&cs[i], f);
        cl_puts(&cs[i], "GET /sleep?ms=2500 HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    CHECK_SOON(fx_log_has(f, "EMPM0484"), 4000);
    cl_close_all(cs, 5);
}

/* The default settings name stuck workers and replace none. */
TEST(operate, stuck_workers_are_looked_for_by_default)
{
    const empm_config cfg = empm_defaults();

    CHECK_IN(cfg.stuck_worker_timeout_ms, 1000, 300000);
    CHECK_INT(cfg.stuck_worker_replace, 0);      /* it is said, no more */
}

/* A request that holds its worker beyond StuckWorkerTimeout is logged; with
 * "replace" its child is replaced. */
TEST(operate, stuck_workers_are_named)
{
    int replace;

    for (replace = -1; replace < 2; replace++) {     /* -1: without children */
        fixture f;
        client c;
        char line[64];
        long kids[16], after[16];
        int n;
        context("replace %d", replace);
        fx_init_forked(&f, replace >= 0);
        f.deaths_ok = 1;
        f.cfg.watchdog_interval_ms = SCALED(100);
        f.cfg.stuck_worker_timeout_ms = SCALED(200);
        f.cfg.stuck_worker_replace = replace == 1;
        if (!fx_up(&f))
            return;
        CHECK_SOON(fx_log_has(&f, "EMPM0489"), 4000);
        n = wait_children(&f, replace >= 0, kids, PATIENCE);
        CHECK_INT(get_status(&f, "/sleep?ms=1"), 200);
        cl_open(&c, &f);
        snprintf(line, sizeof line, "GET /sleep?ms=%d HTTP/1.1\r\nHost: "
                 "a\r\n\r\n", SCALED(replace < 0 ? 500 : 1000));
        cl_puts(&c, line);
        CHECK_INT(cl_reply(&c), 200);            /* it may end, all the same */
        CHECK_INT(fx_log_lines(&f, "EMPM5037"), 1);
        CHECK(fx_log_has(&f, "\"GET /sleep?ms="));
        CHECK(fx_log_has(&f, " from 127.0.0.1:"));
        CHECK_INT(get_status(&f, "/hello"), 200);
        if (n == 1 && replace == 1) {
            CHECK_SOON(children_of(f.pid, after, 16) == 1 &&
                       after[0] != kids[0], 4000);
        } else if (n == 1) {
            CHECK_INT(wait_children(&f, 1, after, PATIENCE), 1);
            CHECK_INT(after[0], kids[0]);
        }
        cl_close(&c);
        fx_down(&f);
    }
    no_context();
}

/* --- whole programs ------------------------------------------------------ */

#ifdef __linux__

/* This very program, started anew as a server: see main(). */
typedef struct program {
    pid_t pid;                       /* as it was started */
    int   port;
    int   err_fd;
    char  exe[400], conf[400], pid_file[400];
} program;

static void program_init(program *p, const char *more)
{
    char self[400], text[2000];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    int fd = listening_socket(&p->port);

    close(fd);
    self[n > 0 ? n : 0] = 0;
    p->pid = 0;
    p->err_fd = unlinked_file();
    tmp_path(p->exe, sizeof p->exe, "program");
    unlink(p->exe);
    CHECK_INT(symlink(self, p->exe), 0);
    tmp_path(p->conf, sizeof p->conf, "program.conf");
    tmp_path(p->pid_file, sizeof p->pid_file, "program.pid");
    unlink(p->pid_file);
    n = snprintf(text, sizeof text,
                 "%sListen 127.0.0.1:%d\nPidFile %s\nProcesses 2\n"
                 "ThreadsPerChild 4\nLogLevel info\nDocumentRoot %s\n%s\n",
                 geteuid() == 0 ? "User root\n" : "", p->port, p->pid_file,
                 g_tmp, more);
    CHECK_INT(write_file(p->conf, text, (size_t)n), 0);
}

/* Runs it with these arguments (NULL ends, at most 8) after -f CONF. */
static pid_t program_exec(const program *p, const char *const *args,
                          void (*before)(void))
{
    char *argv[12];
    int i, n = 0;
    pid_t pid;

    argv[n++] = (char *)(uintptr_t)p->exe;
    argv[n++] = (char *)(uintptr_t)"-f";
    argv[n++] = (char *)(uintptr_t)p->conf;
    for (i = 0; args != NULL && args[i] != NULL && i < 8; i++)
        argv[n++] = (char *)(uintptr_t)args[i];
    argv[n] = NULL;
    fflush(NULL);
    pid = fork();
    if (pid != 0)
        return pid;
    close(0);
    open("/dev/null", O_RDWR);
    dup2(p->err_fd, 1);
    dup2(p->err_fd, 2);
    setenv("EMPM_TEST_PROGRAM", "1", 1);
    if (before != NULL)
        before();
    execv(p->exe, argv);
    _exit(127);
}

static int program_said(const program *p, const char *what)
{
    char *text = slurp(p->err_fd);
    const int has = strstr(text, what) != NULL;

    free(text);
    return has;
}

static int wait_for_exit(pid_t pid)
{
    uint64_t end = now_ms() + (uint64_t)PATIENCE;
    int status = -1;

    while (waitpid(pid, &status, WNOHANG) == 0)
        if (now_ms() > end) {
            signal_process(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return -1;
        } else
            nap(1);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static long pid_in(const program *p)
{
    char text[32] = "";
    int fd = open(p->pid_file, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;

    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = 0;
    return strtol(text, NULL, 10);
}

static int program_get(const program *p, const char *target)
{
    client c;
    int rc = -2;

    if (cl_connect_port(&c, p->port, 0) == 0) {
        rc = cl_get(&c, target);
        cl_close(&c);
    }
    return rc;
}

static int program_up(program *p, void (*before)(void))
{
    p->pid = program_exec(p, NULL, before);
    CHECK_SOON(pid_in(p) > 0 && program_get(p, "/hello") == 200, 8000);
    return pid_in(p) > 0;
}

static void program_show(program *p)
{
    char *text = slurp(p->err_fd);

    if (g_show_log)
        printf("%s", text);
    if (strstr(text, "Sanitizer") != NULL || strstr(text, "runtime error"))
        fail(__FILE__, __LINE__, "the program said:\n%s", text);
    free(text);
}

static int nobody_left(void)
{
    long kids[16];

    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
    return children_of((long)getpid(), kids, 16) <= (g_watch_fd >= 0);
}

static void program_down(program *p)
{
    long pid = pid_in(p);

    if (pid > 0)
        signal_process((pid_t)pid, SIGTERM);
    if (p->pid > 0)
        CHECK_INT(wait_for_exit(p->pid), 0);
    CHECK_SOON(pid_in(p) == 0, 8000);
    CHECK_SOON(program_get(p, "/hello") == -2, 4000);
    program_show(p);
    close(p->err_fd);
    CHECK_SOON(nobody_left(), 4000); /* upgrades: we are a subreaper */
    unlink(p->exe);
    unlink(p->conf);
}

/* The line of /proc/PID/status that begins with `name`. */
/* Is root one of those that serve, the children of `parent`? */
static int serves_as_root(long parent)
{
    char line[200];
    long kids[16];
    int i, n = children_of(parent, kids, 16), root = 0;

    for (i = 0; i < n; i++) {
        status_line(kids[i], "Uid:", line, sizeof line);
        root |= line[0] != 0 && strstr(line, "\t0\t") != NULL;
    }
    return root;
}

/* A new program takes over by USR2 without a failed request; one that cannot
 * start leaves the old one serving. */
TEST(operate, upgrades_lose_nothing)
{
    enum { N = 4 };
    asker a[N];
    program p;
    client idle;
    char self[400];
    ssize_t n;
    long before, now;
    int i;

    program_init(&p, "MaxKeepAliveRequests 0\nKeepAliveTimeout 300");
    if (program_up(&p, NULL)) {
        CHECK_INT(cl_connect_port(&idle, p.port, 0), 0);
        CHECK_INT(cl_get(&idle, "/hello"), 200);
        askers_start(a, N, p.port);
        for (i = 0; i < 3; i++) {
            context("upgrade %d", i);
            before = pid_in(&p);
            signal_process((pid_t)before, SIGUSR2);
            CHECK_SOON((now = pid_in(&p)) != before && now > 0, 8000);
            CHECK_SOON(signal_process((pid_t)before, 0) != 0 ||
                       waitpid((pid_t)before, NULL, WNOHANG) != 0, 8000);
            CHECK_INT(cl_get(&idle, "/hello"), 200);  /* the new program's */
            CHECK_INT(idle.closes, 0);
        }
        no_context();
        cl_close(&idle);
        p.pid = p.pid == (pid_t)pid_in(&p) ? p.pid : 0;
        /* a program that does not start: the old one goes on */
        n = readlink(p.exe, self, sizeof self - 1);
        self[n > 0 ? n : 0] = 0;
        unlink(p.exe);
        CHECK_INT(symlink("/bin/false", p.exe), 0);
        before = pid_in(&p);
        signal_process((pid_t)before, SIGUSR2);
        CHECK_SOON(program_said(&p, "the new program has ended"), 8000);
        CHECK_INT(program_get(&p, "/hello"), 200);
        CHECK_INT(pid_in(&p), before);
        unlink(p.exe);
        CHECK_INT(symlink(self, p.exe), 0);
        signal_process((pid_t)before, SIGUSR2);
        CHECK_SOON((now = pid_in(&p)) != before && now > 0, 8000);
        askers_stop(a, N);
    }
    program_down(&p);
}

static int is_socket(const char *path)
{
    struct sockaddr_un a;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), ok;

    memset(&a, 0, sizeof a);
    a.sun_family = AF_UNIX;
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    ok = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return ok;
}

static void program_conf_add(const program *p, const char *text)
{
    int fd = open(p->conf, O_WRONLY | O_APPEND);

    CHECK_INT(write(fd, text, strlen(text)), (long)strlen(text));
    close(fd);
}

static void program_conf_drop(const program *p, const char *what)
{
    char text[4000], *at;
    int fd = open(p->conf, O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);

    close(fd);
    text[n > 0 ? n : 0] = 0;
    if (CHECK((at = strstr(text, what)) != NULL)) {
        memset(at, '#', 1);
        CHECK_INT(write_file(p->conf, text, strlen(text)), 0);
    }
}

/* An upgrade keeps the sockets that both programs have, closes the others, and
 * a failed one changes nothing. */
TEST(operate, upgrades_keep_and_drop_sockets)
{
    program p;
    char path[100], line[200];
    int port, fd = listening_socket(&port);
    struct stat st;
    long before, now;

    close(fd);
    snprintf(path, sizeof path, "/tmp/empm-upgrade-%ld", (long)getpid());
    snprintf(line, sizeof line, "Listen unix:%s mode=600\n#x\nListen "
             "127.0.0.1:%d\n", path, port);
    program_init(&p, line);
    if (program_up(&p, NULL)) {
        CHECK_SOON(program_said(&p, "EMPM0489"), 8000);
        CHECK(is_open(port));
        before = pid_in(&p);
        /* an upgrade that cannot be leaves all as it was */
        program_conf_add(&p, "Listen 192.0.2.1:80\n");
        signal_process((pid_t)before, SIGUSR2);
        CHECK_SOON(program_said(&p, "the new program has ended"), 8000);
        CHECK(is_socket(path));
        program_conf_drop(&p, "Listen 192.0.2.1");
        /* a socket that it wants no more is closed, the others stay */
        snprintf(line, sizeof line, "Listen 127.0.0.1:%d", port);
        program_conf_drop(&p, line);
        signal_process((pid_t)before, SIGUSR2);
        CHECK_SOON((now = pid_in(&p)) != before && now > 0, 8000);
        CHECK_SOON(!is_open(port), 8000);
        CHECK(is_socket(path));
        /* options of a kept socket change */
        program_conf_drop(&p, "Listen unix:");
        snprintf(line, sizeof line, "Listen unix:%s mode=666\n", path);
        program_conf_add(&p, line);
        signal_process((pid_t)pid_in(&p), SIGUSR1);
        CHECK_SOON(stat(path, &st) == 0 && (st.st_mode & 0777) == 0666, 8000);
        CHECK(is_socket(path));
        if (geteuid() == 0) {        /* and root does not slip in */
            program_conf_drop(&p, "User root");
            signal_process((pid_t)pid_in(&p), SIGUSR1);
            CHECK_SOON(program_said(&p, "generation 2 serves"), 8000);
            CHECK_SOON(!serves_as_root(pid_in(&p)), 8000);
            CHECK_INT(program_get(&p, "/hello"), 200);
        }
    }
    p.pid = 0;
    program_down(&p);
    CHECK(stat(path, &st) != 0);
}

/* The new program of an upgrade is another one if a file says so: see
 * program_main(). 'a': it has not our exchange; 'h': its second child hangs. */
static void program_other_path(char *path, size_t cap)
{
    tmp_path(path, cap, "program.other");
}

static void program_can_change(void)
{
    char path[512];

    program_other_path(path, sizeof path);
    setenv("EMPM_TEST_OTHER", path, 1);
}

static void program_changes(const char *how)
{
    char path[512];

    program_other_path(path, sizeof path);
    CHECK_INT(write_file(path, how, 1), 0);
}

/* A new program that has not our exchange can take no connection over: the old
 * one tells its clients so with their next answer. */
TEST(operate, an_upgrade_without_exchange_tells_clients)
{
    program p;
    client c;
    char path[512];
    uint64_t t0;
    long before, now;

    program_init(&p, "MaxKeepAliveRequests 0\nKeepAliveTimeout 300");
    if (program_up(&p, program_can_change)) {
        CHECK_INT(cl_connect_port(&c, p.port, 0), 0);
        CHECK_INT(cl_get(&c, "/hello"), 200);
        program_changes("a");
        before = pid_in(&p);
        signal_process((pid_t)before, SIGUSR2);
        CHECK_SOON((now = pid_in(&p)) != before && now > 0, 8000);
        t0 = now_ms();
        while (cl_get(&c, "/hello") == 200 && !c.closes &&
               now_ms() - t0 < (uint64_t)SCALED(1000))
            nap(5);
        CHECK_INT(c.closes, 1);
        cl_close(&c);
    }
    program_other_path(path, sizeof path);
    unlink(path);
    program_down(&p);
}

/* A program that never served takes nothing along at its end: what has come
 * meanwhile waits for the one that serves. */
TEST(operate, a_failed_upgrade_takes_no_connection)
{
    enum { N = 8 };
    program p;
    client busy[2], wait[N];
    char path[512];
    int i, lost = 0;

    program_init(&p, "StartTimeout 400ms\nStopTimeout 100ms\nThreadsPerChild "
                 "1");
    if (program_up(&p, program_can_change)) {
        program_changes("h");
        for (i = 0; i < 2; i++) {
            CHECK_INT(cl_connect_port(&busy[i], p.port, 0), 0);
            cl_puts(&busy[i], "GET /sleep?ms=700 HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        nap(20);
        signal_process((pid_t)pid_in(&p), SIGUSR2);
        nap(50);
        for (i = 0; i < N; i++) {
            CHECK_INT(cl_connect_port(&wait[i], p.port, 0), 0);
            cl_puts(&wait[i], "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        for (i = 0; i < N; i++) {
            lost += cl_reply(&wait[i]) != 200;
            cl_close(&wait[i]);
        }
        CHECK_INT(lost, 0);
        for (i = 0; i < 2; i++) {
            CHECK_INT(cl_reply(&busy[i]), 200);
            cl_close(&busy[i]);
        }
        CHECK_SOON(program_said(&p, "EMPM5032"), 8000);
    }
    program_other_path(path, sizeof path);
    unlink(path);
    program_down(&p);
}

/* -k start leaves no process that holds the terminal's descriptors. */
TEST(operate, detached_server_lets_go_of_the_terminal)
{
    static const char *const start[] = { "-k", "start", NULL };
    program p;
    int fd[2], kept;
    char text[200];
    pid_t pid;
    uint64_t end = now_ms() + (uint64_t)PATIENCE;
    ssize_t n = -1;

    program_init(&p, "");
    CHECK_INT(pipe(fd), 0);
    fcntl(fd[1], F_SETFD, FD_CLOEXEC);
    kept = p.err_fd;
    p.err_fd = fd[1];
    pid = program_exec(&p, start, NULL);
    p.err_fd = kept;
    close(fd[1]);
    CHECK_INT(wait_for_exit(pid), 0);
    fcntl(fd[0], F_SETFL, O_NONBLOCK);
    while ((n = read(fd[0], text, sizeof text)) != 0 && now_ms() < end)
        nap(1);
    CHECK_INT(n, 0);                 /* nobody holds it any more */
    close(fd[0]);
    program_down(&p);
}

/* The PID file names a running server only: a stale one is no obstacle, and a
 * second server does not start. */
TEST(operate, pid_file)
{
    static const char *const start[] = { "-k", "start", NULL };
    static const char *const stop[] = { "-k", "stop", NULL };
    static const char *const graceful[] = { "-k", "graceful", NULL };
    program p;
    long pid;

    program_init(&p, "");
    CHECK_INT(wait_for_exit(program_exec(&p, stop, NULL)), 0);
    CHECK(program_said(&p, "(no pid file) not running"));
    /* what is left of a crash, with the pid of somebody else: no obstacle */
    CHECK_INT(write_file(p.pid_file, "1\n", 2), 0);
    CHECK_INT(wait_for_exit(program_exec(&p, stop, NULL)), 0);
    CHECK(program_said(&p, "(pid 1?) not running"));
    CHECK_INT(wait_for_exit(program_exec(&p, start, NULL)), 0);
    CHECK_INT(program_get(&p, "/hello"), 200);   /* it serves by then */
    pid = pid_in(&p);
    CHECK(pid > 1);
    CHECK_INT(wait_for_exit(program_exec(&p, start, NULL)), 0);
    CHECK(program_said(&p, "already running"));
    CHECK_INT(wait_for_exit(program_exec(&p, NULL, NULL)), 1);
    CHECK(program_said(&p, "EMPM5041"));
    CHECK_INT(wait_for_exit(program_exec(&p, graceful, NULL)), 0);
    CHECK_SOON(program_said(&p, "SIGUSR1") || pid_in(&p) == pid, 4000);
    signal_process((pid_t)pid, SIGKILL);                   /* a crash */
    CHECK_SOON(program_get(&p, "/hello") == -2, 4000);
    CHECK_INT(wait_for_exit(program_exec(&p, start, NULL)), 0);
    CHECK(pid_in(&p) > 1 && pid_in(&p) != pid);
    CHECK_INT(wait_for_exit(program_exec(&p, stop, NULL)), 0);
    CHECK_SOON(pid_in(&p) == 0, 8000);
    program_down(&p);
}

static int file_has(const char *path, const char *what)
{
    char *text = slurp_path(path);
    const int has = strstr(text, what) != NULL;

    free(text);
    return has;
}

static int lines_with(const char *path, const char *what)
{
    char *text = slurp_path(path), *p = text;
    int n = 0;

    for (; (p = strstr(p, what)) != NULL; p++)
        n++;
    free(text);
    return n;
}

/* The reason of a failed start is on the terminal and in the log: one is read
 * at the start, the other when the server is found down. */
TEST(operate, why_a_start_fails_is_in_both_places)
{
    static const struct { const char *line, *why; } rows[] = {
        { "Listen 192.0.2.1:80",              "EMPM0072: Listen 192.0.2.1:80" },
        { "SpoolDirectory /no/such",          "EMPM5107: SpoolDirectory /no" },
        { "CustomLog /no/such/dir/log common", "EMPM0649: cannot open "
         "CustomLog" },
        { "MaxRequestWorkers 7\nStrict On",  "EMPM0513: MaxRequestWorkers" }
    };
    static const char *const start[] = { "-k", "start", NULL };
    program p;
    char log[300], more[500];
    int detached;

    tmp_path(log, sizeof log, "failed.log");
    EACH(rows, i)
        for (detached = 0; detached < 2; detached++) {
            context("%s, %d", rows[i].line, detached);
            unlink(log);
            snprintf(more, sizeof more, "ErrorLog %s\nProcesses -1\n%s", log,
                     rows[i].line);
            program_init(&p, more);
            CHECK_INT(wait_for_exit(program_exec(&p, detached ? start : NULL,
                                                 NULL)), 1);
            CHECK_SOON(nobody_left(), 4000);
            CHECK(program_said(&p, rows[i].why));
            if (!detached || i == 0 || i == 2)   /* -k checks, in front */
                CHECK(file_has(log, rows[i].why));
            program_show(&p);
            close(p.err_fd);
            unlink(p.exe);
            unlink(p.conf);
        }
    unlink(log);
}

/* After -k start nobody reads stderr: all messages are in the log, each
 * once. */
TEST(operate, a_detached_server_tells_its_log_everything)
{
    static const char *const start[] = { "-k", "start", NULL };
    program p;
    char log[300], more[500], line[64];
    long pid;

    tmp_path(log, sizeof log, "detached.log");
    unlink(log);
    snprintf(more, sizeof more, "ErrorLog %s\nLogLevel warn\nProcesses -1\n"
             "StartServers 1\nMinSpareThreads 1\nMaxRequestWorkers 8", log);
    program_init(&p, more);
    CHECK_INT(wait_for_exit(program_exec(&p, start, NULL)), 0);
    pid = pid_in(&p);
    if (CHECK(pid > 1)) {
        CHECK_INT(lines_with(log, "EMPM0489: "), 1);
        CHECK_INT(program_get(&p, "/log"), 200);
        CHECK(file_has(log, "] no price of tea"));
        CHECK(file_has(log, "\ngrumble of "));   /* what a handler prints */
        /* a reload that cannot be, and why */
        program_conf_add(&p, "Listen 192.0.2.1:80\n");
        signal_process((pid_t)pid, SIGUSR1);
        CHECK_SOON(file_has(log, "the generation that serves goes on"), 8000);
        CHECK_INT(lines_with(log, "EMPM0072: Listen 192.0.2.1:80"), 1);
        /* an upgrade likewise: the new program says it */
        signal_process((pid_t)pid, SIGUSR2);
        CHECK_SOON(file_has(log, "the new program has ended"), 8000);
        CHECK_INT(lines_with(log, "EMPM0072: Listen 192.0.2.1:80"), 2);
        program_conf_drop(&p, "Listen 192.0.2.1");
        program_conf_add(&p, "KepAlive On\n");
        signal_process((pid_t)pid, SIGUSR1);
        CHECK_SOON(file_has(log, "perhaps 'KeepAlive'"), 8000);
        signal_process((pid_t)pid, SIGUSR2);
        CHECK_SOON(lines_with(log, "perhaps 'KeepAlive'") == 2, 8000);
        program_conf_drop(&p, "KepAlive On");
        /* what is corrected */
        program_conf_add(&p, "MaxRequestWorkers 7\n");
        snprintf(line, sizeof line, "generation %d serves", 1);
        signal_process((pid_t)pid, SIGUSR1);
        CHECK_SOON(file_has(log, line), 8000);
        CHECK_INT(lines_with(log, "EMPM0513: MaxRequestWorkers of 7"), 1);
        CHECK_INT(program_get(&p, "/log"), 200);
        CHECK_SOON(lines_with(log, "\ngrumble of ") == 2, 4000);
    }
    program_down(&p);
    unlink(log);
}

/* Has one of these processes that file open? */
static int is_held(const long *pids, int n, const char *file)
{
    char dir[64], path[400], to[400];
    int held = 0;

    while (n-- > 0) {
        DIR *d;
        struct dirent *e;
        snprintf(dir, sizeof dir, "/proc/%ld/fd", pids[n]);
        d = opendir(dir);
        while (d != NULL && (e = readdir(d)) != NULL) {
            ssize_t len;
            snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
            len = readlink(path, to, sizeof to - 1);
            to[len > 0 ? len : 0] = 0;
            held |= strcmp(to, file) == 0;
        }
        if (d != NULL)
            closedir(d);
    }
    return held;
}

/* Logs that were moved away are opened anew on demand. Children have no right
 * to open them, one generation drains, and nothing ends for it. */
TEST(operate, rotated_logs_are_opened_anew)
{
    static const char *const reopen[] = { "-k", "reopen", NULL };
    program p;
    client c;
    char error[300], access[300], moved[310], accessed[310], more[900];
    long kids[16], after[16], pid;
    int n;

    tmp_path(error, sizeof error, "rotated.error");
    tmp_path(access, sizeof access, "rotated.access");
    snprintf(moved, sizeof moved, "%s.1", error);
    snprintf(accessed, sizeof accessed, "%s.1", access);
    snprintf(more, sizeof more, "ErrorLog %s\nCustomLog %s common\n%s",
             error, access, geteuid() == 0 ? "User nobody\n" : "");
    program_init(&p, more);
    if (program_up(&p, NULL)) {
        pid = pid_in(&p);
        CHECK_SOON(file_has(error, "EMPM0489: "), 8000);
        /* a client of the old generation, which drains */
        CHECK_INT(cl_connect_port(&c, p.port, 0), 0);
        CHECK_INT(cl_get(&c, "/hello"), 200);
        cl_puts(&c, "GET /log HTTP/1.1\r\nHo");   /* half a head cannot move */
        nap(SCALED(50));
        signal_process((pid_t)pid, SIGUSR1);
        CHECK_SOON(file_has(error, "generation 1 serves"), 8000);
        CHECK_SOON(file_has(access, "GET /hello"), 8000);
        CHECK_SOON((n = children_of(pid, kids, 16)) == 3, 8000);
        CHECK_INT(rename(error, moved), 0);
        CHECK_INT(rename(access, accessed), 0);
        CHECK(is_held(kids, n, moved) && is_held(kids, n, accessed));
        CHECK_INT(wait_for_exit(program_exec(&p, reopen, NULL)), 0);
        CHECK_SOON(file_has(error, "EMPM5045: the logs are opened anew"), 8000);
        CHECK_SOON(program_get(&p, "/log") == 200 &&
                   file_has(error, "] no price of tea"), 8000);
        CHECK_SOON(file_has(error, "\ngrumble of "), 4000);
        CHECK_SOON(file_has(access, "GET /log"), 8000);
        CHECK(!file_has(accessed, "GET /log"));
        CHECK(!file_has(moved, "EMPM5045"));
        CHECK(children_of(pid, after, 16) == n && is_among(after[0], kids, n));
        CHECK_SOON(!is_held(after, n, moved) && !is_held(after, n, accessed) &&
                   !is_held(&pid, 1, moved), 8000);
        cl_puts(&c, "st: a\r\n\r\n");
        CHECK_INT(cl_reply(&c), 200);
        CHECK_INT(c.closes, 0);
        CHECK_SOON(lines_with(error, "] no price of tea") >= 2, 4000);
        CHECK_SOON(lines_with(access, "GET /log") >= 2, 8000);
        CHECK(!file_has(moved, "no price of tea"));
        cl_close(&c);
        /* what cannot be opened stays as it is */
        CHECK_INT(unlink(access), 0);
        CHECK_INT(mkdir(access, 0700), 0);
        signal_process((pid_t)pid, SIGURG);
        CHECK_SOON(file_has(error, "EMPM0649: cannot open CustomLog"), 8000);
        CHECK_INT(program_get(&p, "/hello"), 200);
        rmdir(access);
    }
    program_down(&p);
    unlink(error);
    unlink(moved);
    unlink(access);
    unlink(accessed);
}

/* "|program" gets every line, is started again when it dies, and reads to the
 * end when the server has ended; a reload has programs of its own. The same
 * with children and without. */
static void piped_logs(const char *mode)
{
    program p;
    char error[300], access[300], pids[300], more[1200];
    long pid = 0;
    int n = 0;

    tmp_path(error, sizeof error, "piped.error");
    tmp_path(access, sizeof access, "piped.access");
    tmp_path(pids, sizeof pids, "piped.pids");
    snprintf(more, sizeof more, "%s\nErrorLog \"|$cat >> %s\"\nCustomLog "
             "\"|$echo $$ >> %s; exec cat >> %s\" \"%%U\"\n", mode, error, pids,
             access);
    program_init(&p, more);
    if (program_up(&p, NULL)) {
        CHECK_SOON(file_has(error, "EMPM0489: "), 8000);
        CHECK_SOON(file_has(access, "/hello\n"), 4000);
        n = lines_with(access, "/hello");
        CHECK_INT(program_get(&p, "/hello?1"), 200);
        CHECK_SOON(lines_with(access, "/hello") == n + 1, 4000);
        pid = (long)empm__check_number_in(pids);
        CHECK(pid > 1);
        if (pid > 1)
            CHECK_INT(kill((pid_t)pid, SIGKILL), 0);
        CHECK_INT(program_get(&p, "/hello?2"), 200);
        CHECK_SOON(lines_with(access, "/hello") == n + 2, 8000);
        CHECK_INT(lines_with(pids, "\n"), 2);
        if (*mode == 0) {
            signal_process((pid_t)pid_in(&p), SIGUSR1);
            CHECK_SOON(file_has(error, "generation 1 serves"), 8000);
            CHECK_INT(program_get(&p, "/hello?3"), 200);
            CHECK_SOON(lines_with(access, "/hello") == n + 3, 8000);
        }
        CHECK_INT(program_get(&p, "/hello?4"), 200);
    }
    program_down(&p);                /* it looks for processes that are left */
    CHECK_INT(lines_with(access, "/hello"), n + 3 + (*mode == 0));
    CHECK(file_has(error, "EMPM0491: "));
    unlink(error);
    unlink(access);
    unlink(pids);
}

/* A log may be a program, with and without children. */
TEST(operate, programs_take_logs)
{
    piped_logs("");
    piped_logs("Processes 0");
}

/* A program that cannot be started ends the start, and is named. */
TEST(operate, a_program_that_is_not_there)
{
    program p;

    program_init(&p, "CustomLog \"|/nonexistent/rotatelogs x\" common");
    CHECK_INT(wait_for_exit(program_exec(&p, NULL, NULL)), 1);
    CHECK(program_said(&p, "EMPM0649: cannot start CustomLog |/nonexistent"
                            "/rotatelogs x: No such file"));
    program_down(&p);
}

/* Nobody reads stderr, which is a pipe and full: the server starts, serves,
 * reloads and stops all the same. What it shares with others stays blocking. */
static int g_stderr;

static void use_stderr(void)
{
    dup2(g_stderr, 2);
}

/* A stderr that takes nothing holds no request, and its flags stay as they
 * are. */
TEST(operate, a_full_stderr_holds_nobody)
{
    static char page[8192];
    program p;
    uint64_t began;
    int fd[2], i, fl;

    memset(page, 'x', sizeof page);
    if (!CHECK_INT(pipe(fd), 0))
        return;
    fl = fcntl(fd[1], F_GETFL);
    CHECK_INT(fcntl(fd[1], F_SETFL, fl | O_NONBLOCK), 0);
    for (i = 0; i < 2; i++)
        while (write(fd[1], page, i == 0 ? sizeof page : 1) > 0)
            ;
    CHECK_INT(fcntl(fd[1], F_SETFL, fl), 0);
    program_init(&p, "LogLevel debug");
    g_stderr = fd[1];
    if (program_up(&p, use_stderr)) {
        for (i = 0; i < 3; i++)
            CHECK_INT(program_get(&p, "/hello"), 200);
        signal_process((pid_t)pid_in(&p), SIGUSR1);
        nap(300);
        CHECK_INT(program_get(&p, "/hello"), 200);
        CHECK_INT(fcntl(fd[1], F_GETFL) & O_NONBLOCK, 0);
    }
    began = empm__now_us();
    program_down(&p);
    CHECK(empm__now_us() - began < SCALED(3000) * 1000u);
    close(fd[0]);
    close(fd[1]);
}

/* A server without children opens its logs anew on demand, by signal and by
 * call. */
LIVE(operate, logs_are_opened_anew_without_children)
{
    fixture f;
    char error[300], moved[310];

    tmp_path(error, sizeof error, "alone.error");
    snprintf(moved, sizeof moved, "%s.1", error);
    fx_init(&f);
    f.cfg.log = NULL;
    f.cfg.error_log = error;
    f.cfg.processes = 0;
    if (!fx_up(&f))
        return;
    CHECK_INT(get_status(&f, "/log"), 200);
    CHECK_INT(lines_with(error, "] no price of tea"), 1);
    CHECK_INT(rename(error, moved), 0);
    if (f.forked)
        signal_process(f.pid, SIGURG);
    else
        CHECK_INT(empm_reopen_logs(f.s), EMPM_OK);
    CHECK_SOON(file_has(error, "EMPM5045: "), 8000);
    CHECK_INT(get_status(&f, "/log"), 200);
    CHECK_INT(lines_with(error, "] no price of tea"), 1);
    CHECK_INT(lines_with(moved, "] no price of tea"), 1);
    fx_down(&f);
    unlink(error);
    unlink(moved);
}

/* A reload with a bad file sends no signal with -k, and changes nothing
 * without it. */
TEST(operate, bad_file_is_refused_and_the_old_one_stays)
{
    static const char *const graceful[] = { "-k", "graceful", NULL };
    program p;
    char *text;
    int fd;

    program_init(&p, "");
    if (program_up(&p, NULL)) {
        fd = open(p.conf, O_WRONLY | O_APPEND);
        CHECK(write(fd, "KepAliveTimeout 3\n", 18) == 18);
        close(fd);
        CHECK_INT(wait_for_exit(program_exec(&p, graceful, NULL)), 1);
        text = slurp(p.err_fd);
        CHECK(strstr(text, "perhaps 'KeepAliveTimeout'") != NULL);
        CHECK(strstr(text, "SIGUSR1") == NULL);  /* no signal was sent */
        free(text);
        signal_process((pid_t)pid_in(&p), SIGUSR1);        /* and if it is */
        CHECK_SOON(program_said(&p, "the generation that serves goes on"),
                   4000);
        CHECK_INT(program_get(&p, "/hello"), 200);
    }
    program_down(&p);
}

/* --- service managers ---------------------------------------------------- */

static int g_manager = -1;
static char g_manager_path[100];

static void manager_env(void)
{
    setenv("NOTIFY_SOCKET", g_manager_path, 1);
    setenv("WATCHDOG_USEC", "200000", 1);
}

/* Waits for a datagram that has this in it. */
static int manager_hears(const char *what)
{
    uint64_t end = now_ms() + (uint64_t)PATIENCE;
    char text[600];

    while (now_ms() < end) {
        ssize_t n = recv(g_manager, text, sizeof text - 1, MSG_DONTWAIT);
        if (n <= 0) {
            nap(1);
            continue;
        }
        text[n] = 0;
        if (strstr(text, what) != NULL)
            return 1;
    }
    return 0;
}

/* sd_notify() messages tell the manager of start, watchdog, reload, upgrade
 * and stop. */
TEST(operate, tells_the_service_manager)
{
    struct sockaddr_un a;
    program p;
    char main_pid[40];
    long pid;
    int i;

    snprintf(g_manager_path, sizeof g_manager_path, "/tmp/empm-notify-%ld",
             (long)getpid());
    memset(&a, 0, sizeof a);
    a.sun_family = AF_UNIX;
    snprintf(a.sun_path, sizeof a.sun_path, "%s", g_manager_path);
    unlink(g_manager_path);
    g_manager = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK_INT(bind(g_manager, (struct sockaddr *)&a, sizeof a), 0);
    for (i = 0; i < 2; i++) {        /* without children, and with */
        program_init(&p, i ? "" : "Processes 0\nWatchdogInterval 100ms");
        if (!program_up(&p, manager_env))
            break;
        CHECK(manager_hears("READY=1\nMAINPID="));
        CHECK(manager_hears("WATCHDOG=1"));
        CHECK(manager_hears("WATCHDOG=1"));
        if (i == 0) {
            CHECK(manager_hears("STATUS=Serving: 0 busy, 4 idle workers"));
            signal_process((pid_t)pid_in(&p), SIGTERM);
            CHECK(manager_hears("STOPPING=1"));
            program_down(&p);
            continue;
        }
        pid = pid_in(&p);
        signal_process((pid_t)pid, SIGUSR1);
        CHECK(manager_hears("RELOADING=1\nMONOTONIC_USEC="));
        CHECK(manager_hears("READY=1"));
        signal_process((pid_t)pid, SIGUSR2);
        CHECK_SOON(pid_in(&p) != pid && pid_in(&p) > 0, 8000);
        snprintf(main_pid, sizeof main_pid, "MAINPID=%ld\n", pid_in(&p));
        CHECK(manager_hears(main_pid));
        signal_process((pid_t)pid_in(&p), SIGTERM);
        CHECK(manager_hears("STOPPING=1"));
        break;
    }
    program_down(&p);
    close(g_manager);
    unlink(g_manager_path);
}

static void log_hangs(enum empm_log_level level, const char *line, void *user)
{
    fx_log(level, line, user);
    while (strstr(line, "EMPM5306") != NULL && !get_int(&shm->gate))
        nap(1);
}

/* Without children nobody replaces a process that hangs but the service
 * manager: its watchdog is answered only as long as the listener answers. */
TEST(operate, a_manager_hears_nothing_of_a_listener_that_hangs)
{
    struct sockaddr_un a;
    fixture f;
    client c, second;
    char text[64];

    snprintf(g_manager_path, sizeof g_manager_path, "/tmp/empm-notify-%ld",
             (long)getpid());
    memset(&a, 0, sizeof a);
    a.sun_family = AF_UNIX;
    snprintf(a.sun_path, sizeof a.sun_path, "%s", g_manager_path);
    unlink(g_manager_path);
    g_manager = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK_INT(bind(g_manager, (struct sockaddr *)&a, sizeof a), 0);
    fx_init_forked(&f, 0);
    f.in_child = manager_env;
    f.cfg.log = log_hangs;
    f.cfg.watchdog_interval_ms = SCALED(50);
    f.cfg.max_connections_per_peer = 1;
    if (fx_up(&f)) {
        CHECK(manager_hears("WATCHDOG=1"));
        cl_open(&c, &f);
        check_in_step(&c);
        CHECK(!fx_log_has(&f, "EMPM5038"));
        /* refused, with a line of the listener's */
        cl_open(&second, &f);
        CHECK_SOON(fx_log_has(&f, "EMPM5038"), 4000);
        while (recv(g_manager, text, sizeof text, MSG_DONTWAIT) > 0)
            continue;
        nap(250);                    /* more than WATCHDOG_USEC */
        while (recv(g_manager, text, sizeof text, MSG_DONTWAIT) > 0)
            CHECK(strncmp(text, "WATCHDOG", 8) != 0);
        set_int(&shm->gate, 1);
        CHECK(manager_hears("WATCHDOG=1"));
        cl_close(&c);
        cl_close(&second);
        fx_down(&f);
    }
    close(g_manager);
    unlink(g_manager_path);
}

/* The new program's sockets take the place of the log's descriptor, so the old
 * program logs the reason of a failed upgrade. */
TEST(operate, why_an_upgrade_cannot_start_is_in_the_log)
{
    program p;
    char path[300], more[400];
    int fd;

    tmp_path(path, sizeof path, "upgrade.log");
    snprintf(more, sizeof more, "ErrorLog %s\nListen 127.0.0.1:0\nListen "
             "127.0.0.1:0\nListen 127.0.0.1:0\nListen 127.0.0.1:0", path);
    program_init(&p, more);
    if (program_up(&p, NULL)) {
        char *log;
        int has, k;
        unlink(p.exe);
        fd = open(path, O_RDONLY);
        for (k = has = 0; k < 400 && !has; k++) {
            if (k % 100 == 0)
                signal_process((pid_t)pid_in(&p), SIGUSR2);
            nap(10);
            log = slurp(fd);
            has = strstr(log, "EMPM5039: cannot start ") != NULL &&
                  strstr(log, "No such file") != NULL;
            free(log);
        }
        CHECK(has);
        close(fd);
        CHECK_INT(program_get(&p, "/hello"), 200);
    }
    program_down(&p);
    unlink(path);
}

static int g_passed_fd[2];

static void pass_sockets(void)
{
    char pid[32];

    dup2(g_passed_fd[0], 13);        /* out of the way of each other */
    dup2(g_passed_fd[1], 14);
    dup2(13, 3);
    dup2(14, 4);
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "2", 1);
    setenv("LISTEN_FDNAMES", "other:we%b", 1);   /* as it stands: no escape */
}

/* Listen systemd:NAME serves on the socket of that name, over reload and
 * upgrade; a missing one ends the start. */
TEST(operate, takes_sockets_by_name)
{
    program p;
    char text[600];
    long before;
    int port[2], fd;

    program_init(&p, "");
    g_passed_fd[0] = listening_socket(&port[0]);
    g_passed_fd[1] = listening_socket(&port[1]);
    snprintf(text, sizeof text, "\nListen systemd:we%%b\n");
    fd = open(p.conf, O_WRONLY | O_APPEND);
    CHECK(write(fd, text, strlen(text)) > 0);
    close(fd);
    p.pid = program_exec(&p, NULL, pass_sockets);
    close(g_passed_fd[0]);
    close(g_passed_fd[1]);
    CHECK_SOON(program_get(&p, "/hello") == 200, 8000);
    fd = p.port;
    p.port = port[1];
    CHECK_SOON(program_get(&p, "/hello") == 200, 4000);
    CHECK_SOON(program_said(&p, "EMPM0489"), 8000);
    signal_process((pid_t)pid_in(&p), SIGUSR1);    /* a reload keeps it */
    CHECK_SOON(program_said(&p, "generation 1 serves"), 8000);
    CHECK_INT(program_get(&p, "/hello"), 200);
    before = pid_in(&p);
    signal_process((pid_t)before, SIGUSR2);        /* and so does an upgrade */
    CHECK_SOON(pid_in(&p) != before && pid_in(&p) > 0, 8000);
    CHECK_INT(program_get(&p, "/hello"), 200);
    CHECK_INT(wait_for_exit(p.pid), 0);
    p.pid = 0;
    p.port = fd;
    program_down(&p);
    program_init(&p, "Listen systemd:web");      /* nobody passes one */
    CHECK_INT(wait_for_exit(program_exec(&p, NULL, NULL)), 1);
    CHECK(program_said(&p, "no socket of that name"));
    program_show(&p);
    close(p.err_fd);
}

/* --- privileges ---------------------------------------------------------- */

/* Children take User, Group and ChrootDir and cannot gain rights again; the
 * parent stays root. */
TEST(operate, children_give_root_up)
{
    program p;
    client c;
    char line[200], more[500];
    long kids[16], pid;

    if (geteuid() != 0)
        SKIP("not root");
    chmod(g_tmp, 0755);
    snprintf(more, sizeof more, "User nobody\nChrootDir %s\n"
             "SpoolDirectory %s\n", g_tmp, g_tmp);
    program_init(&p, more);
    if (program_up(&p, NULL)) {
        pid = pid_in(&p);
        CHECK_SOON(program_said(&p, "EMPM0489"), 4000);
        CHECK_INT(children_of(pid, kids, 16), 2);
        status_line(kids[0], "Uid:", line, sizeof line);
        CHECK(strstr(line, "\t0") == NULL && strlen(line) > 10);
        status_line(kids[0], "Gid:", line, sizeof line);
        CHECK(strstr(line, "\t0") == NULL);
        status_line(kids[0], "Groups:", line, sizeof line);
        CHECK(strstr(line, "\t0 ") == NULL);
        status_line(kids[0], "NoNewPrivs:", line, sizeof line);
        CHECK(strstr(line, "1") != NULL);
        status_line(pid, "Uid:", line, sizeof line);
        CHECK(strstr(line, "\t0") != NULL);
        CHECK_INT(cl_connect_port(&c, p.port, 0), 0);
        CHECK_INT(cl_get(&c, "/cwd"), 200);
        CHECK_STR(c.body.p, "/");                /* and it is the new one */
        cl_close(&c);
    }
    program_down(&p);
    program_init(&p, "User nobody-of-that-name");
    CHECK_INT(wait_for_exit(program_exec(&p, NULL, NULL)), 1);
    CHECK(program_said(&p, "EMPM0543"));
    close(p.err_fd);
    chmod(g_tmp, 0700);
}

/* `make run`, ./example_server and every container start as root without User:
 * they serve as nobody, and the log names anything that nobody may not use. */
TEST(operate, root_without_user_serves_as_nobody)
{
    static const char *const test[] = { "-t", NULL };
    static const char *const alone[] = { "-X", NULL };
    program p;
    char line[200], dir[300], more[800];
    int i;

    if (geteuid() != 0)
        SKIP("not root");
    snprintf(dir, sizeof dir, "%s/closed", g_tmp);
    mkdir(dir, 0700);
    snprintf(more, sizeof more, "SpoolDirectory %s", dir);
    for (i = 0; i < 2; i++) {        /* with children, and without */
        context("%s", i ? "-X" : "children");
        program_init(&p, more);
        program_conf_drop(&p, "User root");
        CHECK_INT(wait_for_exit(program_exec(&p, test, NULL)), 0);
        CHECK(program_said(&p, "notice: EMPM5031"));
        snprintf(line, sizeof line, "SpoolDirectory %s: nobody may not", dir);
        CHECK(program_said(&p, line));
        snprintf(line, sizeof line, "\"chmod o+wx %s\", or \"User root\"",
                 dir);
        CHECK(program_said(&p, line));
        p.pid = program_exec(&p, i ? alone : NULL, NULL);
        CHECK_SOON(pid_in(&p) > 0 && program_get(&p, "/hello") == 200, 8000);
        CHECK_SOON(program_said(&p, "] EMPM5031: started as root without User"),
                   8000);
        CHECK(program_said(&p, "] EMPM5043: "));
        CHECK_SOON(program_said(&p, "EMPM0489"), 8000);  /* all have changed */
        if (i == 0) {
            CHECK(!serves_as_root(pid_in(&p)));
        } else {
            status_line(pid_in(&p), "Uid:", line, sizeof line);
            CHECK(strstr(line, "\t0\t") == NULL);
        }
        signal_process((pid_t)p.pid, SIGTERM);
        CHECK_INT(wait_for_exit(p.pid), 0);
        p.pid = 0;
        unlink(p.pid_file);          /* nobody, alone, may not remove it */
        program_down(&p);
    }
    no_context();
    rmdir(dir);
}

/* A namespace whose root is alone there; 0, or what could not be done. */
static int alone_in_a_namespace(void)
{
    const long uid = (long)geteuid(), gid = (long)getegid();
    char line[64];

    if (syscall(SYS_unshare, 0x10000000) != 0)   /* CLONE_NEWUSER */
        return 1;
    write_file("/proc/self/setgroups", "deny", 4);
    snprintf(line, sizeof line, "0 %ld 1\n", uid);
    if (write_file("/proc/self/uid_map", line, strlen(line)) != 0)
        return 2;
    snprintf(line, sizeof line, "0 %ld 1\n", gid);
    return write_file("/proc/self/gid_map", line, strlen(line)) != 0 ? 3 : 0;
}

static void enter_namespace(void)
{
    if (alone_in_a_namespace() != 0)
        _exit(126);
}

/* A root in a sandbox without other users serves as itself. */
TEST(operate, a_root_without_anybody_serves_itself)
{
    program p;
    pid_t pid = fork();

    if (pid == 0)
        _exit(alone_in_a_namespace());
    if (wait_for_exit(pid) != 0)
        SKIP("no user namespaces");
    program_init(&p, "");
    if (geteuid() == 0)
        program_conf_drop(&p, "User root");
    if (program_up(&p, enter_namespace)) {
        CHECK(program_said(&p, "EMPM5031: started as root without User: root "
                           "serves (this user namespace has nobody else)"));
        CHECK_SOON(program_said(&p, "EMPM0489"), 8000);
    }
    program_down(&p);
}

static void leave_root(void)
{
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
        _exit(9);
}

/* User needs root. Without root the log says that User is ignored. */
SERVED_WITH(operate, user_without_root_is_said_to_be_ignored, T_PLAIN,
            fx_init_forked(f, 1); f->in_child = leave_root,
            "User root; SpoolDirectory /tmp")
{
    CHECK_SOON(fx_log_has(f, "EMPM5031: User root is ignored"), 4000);
}

/* User root keeps root where a configuration says it. */
TEST(operate, user_root_is_root)
{
    program p;

    if (geteuid() != 0)
        SKIP("not root");
    program_init(&p, "");
    if (program_up(&p, NULL)) {
        CHECK_SOON(program_said(&p, "EMPM0489"), 8000);
        CHECK(serves_as_root(pid_in(&p)));
        CHECK(!program_said(&p, "EMPM5031"));
    }
    program_down(&p);
}

#endif /* __linux__ */

/* ---------------------------------------------------------------------------
 * >>faults -- each call of the C library fails, at each moment
 *
 * A row is a moment, a call, an error and the n-th time from that moment on, or
 * each time. Whatever fails, the server goes on serving, or it ends; what is
 * refused is refused with a status of 5xx, or the connection ends; and the log
 * has a line with the error's text, unless the client itself is the reason. No
 * process crashes, hangs or stays behind, and once the fault is over all is as
 * it was.
 *
 * Which calls a moment has is counted first, in a run without a fault. A plain
 * run takes the first call of each kind with its most usual error.
 *
 *     ./test --faults all faults.                 every row
 *     ./test --faults serve.pread faults. -v      those with this in their name
 *     ./test --faults start.mmap.ENOMEM.3 faults.at_start -d
 *                                                 one, with the server's log
 * ------------------------------------------------------------------------- */

typedef enum moment { AT_START, WHILE_SERVING, AT_RELOAD, AT_STOP } moment;

static const char *const moment_names[] = { "start", "serve", "reload",
                                           "stop" };

/* --faults: part of a row's name, or NULL */
static const char *g_fault_rows;

static const empm_route fault_routes[] = {
    EMPM_ROUTE("GET /hello/{name}",  h_hello,          NULL),
    EMPM_ROUTE("GET /visits",        h_visits,         NULL),
    EMPM_ROUTE("POST /echo",         h_echo,           NULL),
    EMPM_ROUTE("GET /sleep",         h_sleep,          NULL),
    EMPM_ROUTE("GET /events",        h_events,         NULL),
    EMPM_ROUTE("GET /produce",       h_produce,        NULL),
    EMPM_ROUTE("GET /big",           h_big,            NULL),
    EMPM_ROUTE("GET /server-status", empm_status_page, NULL),
    EMPM_FILES("GET /",              NULL),
    EMPM_ROUTES_END
};

/* What is asked for, and the body of the answer: a text, or so many bytes of
 * the pattern. */
static const struct fault_request {
    const char *target;
    size_t      post;               /* bytes of the pattern; 0: it is a GET */
    size_t      chunk;
    const char *body;               /* NULL: any */
    size_t      pattern;
} fault_requests[] = {
    { "/hello/a",              0,      0,     "Hello, a!\n", 0 },
    { "/a.txt",                0,      0,     "0123456789",  0 },
    { "/big.bin",              0,      0,     NULL,          300000 },
    { "/echo",                 200000, 0,     NULL,          200000 },
    { "/visits",               0,      0,     NULL,          0 },
    { "/produce?bytes=200000", 0,      0,     NULL,          200000 },
    { "/server-status?auto",   0,      0,     NULL,          0 },
    { "/events?n=2",           0,      0,     NULL,          0 },
    { "/sleep?ms=5",           0,      0,     NULL,          0 },
    { "/big?bytes=400000",     0,      0,     NULL,          400000 },
    { "/echo",                 90000,  30000, NULL,          90000 },
    { "/sub/x.txt",            0,      0,     "sub x",       0 }
};
enum { FAULT_REQUESTS = sizeof fault_requests / sizeof fault_requests[0],
       FAULT_TOGETHER = 6,
       FAULT_ALL = FAULT_REQUESTS + FAULT_TOGETHER };

/* What comes of a request. */
enum {
    ANSWERED = 'a', REFUSED = '5', CUT = 'c', UNHEARD = '?',   /* in time */
    WRONG = 'w'                     /* 4xx for what is there, or other bytes */
};

static int fault_patience(void)
{
    /* where a call fails each time it may be that nobody hears */
    return SCALED(g_faults->state == FAULTS_FAIL && g_faults->nth == 0 ? 700
                                                                       : 4000);
}

static int fault_ask(const fixture *f, const struct fault_request *r)
{
    const int slow = strncmp(r->target, "/big", 4) == 0;
    client c;
    str out;
    int status, result;

    /* one does not read at once: the answer overflows to a file */
    if (cl_connect_port(&c, f->port, slow ? 16384 : 0) != 0)
        return UNHEARD;
    c.patience = fault_patience();
    memset(&out, 0, sizeof out);
    if (r->post != 0)
        put_post(&out, r->target, r->post, r->chunk, "Connection: close\r\n");
    else
        str_addf(&out, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                 "\r\n", r->target);
    cl_send(&c, out.p, out.n);
    str_free(&out);
    if (slow)
        nap(20);
    status = cl_reply(&c);
    if (status <= 0 || !c.complete)
        result = c.end != 0 ? CUT : UNHEARD;
    else if (status != 200)
        result = status >= 500 ? REFUSED : WRONG;
    else if ((r->body != NULL && strcmp(c.body.p, r->body) != 0) ||
             (r->pattern != 0 &&
              (c.body.n != r->pattern ||
               pattern_fault(c.body.p, c.body.n, 0) >= 0)))
        result = WRONG;
    else
        result = ANSWERED;
    if (result == WRONG)
        fail(__FILE__, __LINE__, "%s: status %d, %lu bytes", r->target, status,
             (unsigned long)c.body.n);
    cl_close(&c);
    return result;
}

/* Asks for the first n of them; `got`: the results, a letter each. Returns how
 * many were not answered. Where nobody hears any more it soon gives up. */
static int fault_ask_for(const fixture *f, int n, char got[FAULT_ALL + 1])
{
    int i, bad = 0, unheard = 0;

    for (i = 0; i < n && unheard < 3; i++) {
        got[i] = (char)fault_ask(f, &fault_requests[i]);
        bad += got[i] != ANSWERED;
        unheard += got[i] == UNHEARD;
    }
    got[i] = 0;
    return bad;
}

/* The same for connections that are kept, and ask all at once for what takes
 * its time: more of them than a child has workers. Appends to `got`. */
static int fault_ask_together(const fixture *f, char got[FAULT_ALL + 1])
{
    char *at = got + strlen(got);
    client c[FAULT_TOGETHER];
    int i, k, bad = 0;

    for (k = 0; k < FAULT_TOGETHER && cl_connect_port(&c[k], f->port, 0) == 0;
         k++) {
        c[k].patience = fault_patience();
        cl_puts(&c[k], "GET /hello/a HTTP/1.1\r\nHost: a\r\n\r\n");
        if (cl_reply(&c[k]) != 200) {
            cl_close(&c[k]);
            *at++ = CUT;
            bad++;
            break;
        }
    }
    for (i = 0; i < k; i++) {
        if (cl_readable(&c[i], 0)) { /* closed while it was idle: no loss */
            cl_close(&c[i]);
            cl_connect_port(&c[i], f->port, 0);
            c[i].patience = fault_patience();
        }
        cl_puts(&c[i], "GET /sleep?ms=20 HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for (i = 0; i < k; i++) {
        const int status = cl_reply(&c[i]);
        *at++ = status == 200 ? ANSWERED : status >= 500 ? REFUSED
              : c[i].end != 0 ? CUT : UNHEARD;
        bad += status != 200;
        cl_close(&c[i]);
    }
    *at = 0;
    return bad;
}

/* The log has the reason, or stderr before there is one. */
static int fault_told(const fixture *f, int error)
{
    char *err = slurp(f->err_fd);
    const int told = fx_log_has(f, strerror(error)) ||
                     strstr(err, strerror(error)) != NULL ||
                     (error == ENOMEM && (fx_log_has(f, "no memory") ||
                                          strstr(err, "no memory") != NULL));

    free(err);
    return told;
}

/* Nothing of ours has failed: the client is the reason, or it is to be tried
 * again, and nobody wants to read of it. */
static int fault_is_of_life(int error)
{
    return error == ECONNRESET || error == EPIPE || error == ECONNABORTED ||
           error == EINTR || error == EAGAIN;
}

static void fault_arm(int armed)
{
    __atomic_store_n(&g_faults->state, armed ? (g_faults->call < 0
                                                    ? FAULTS_COUNT
                                                    : FAULTS_FAIL) : FAULTS_OFF,
                     __ATOMIC_RELEASE);
}

/* A service manager that has gone. */
static void fault_manager(void)
{
    setenv("NOTIFY_SOCKET", "/nobody/listens", 1);
}

static void fault_fixture(fixture *f, int processes)
{
    static char dir[300], pid[320], sock[330], log[340];

    fx_init_forked(f, processes);
    f->deaths_ok = f->count_fds = 1;
    tmp_path(dir, sizeof dir, "faults");
    snprintf(pid, sizeof pid, "%s/pid", dir);
    snprintf(sock, sizeof sock, "unix:%s/sock mode=660", dir);
    snprintf(log, sizeof log, "%s/access combined", dir);
    mkdir(dir, 0777);
    chmod(dir, 0777);
    f->cfg.routes = fault_routes;
    f->cfg.listen[1] = sock;
    f->cfg.listen[2] = "127.0.0.1:0";
    f->cfg.spool_directory = dir;
    f->cfg.core_dump_directory = dir;
    f->cfg.pid_file = pid;
    f->cfg.custom_log[0] = log;
    f->cfg.add_type[0] = "text/x-test .test";
    f->cfg.remote_ip_header = "X-Forwarded-For";
    f->cfg.remote_ip_trusted_proxy[0] = "192.0.2.0/24";
    f->cfg.shared_store_size = 64 << 10;
    f->cfg.max_connections_per_peer = 1000;
    f->cfg.threads_per_child = 3;
    f->cfg.thread_stack_size = 1 << 20;
    f->cfg.send_buffer_size = 64 << 10;
    f->cfg.start_timeout_ms = f->cfg.stop_timeout_ms =
        f->cfg.graceful_restart_timeout_ms = SCALED(1000);
    f->in_child = fault_manager;
    if (geteuid() == 0 && getpwnam("nobody") != NULL) {
        f->cfg.user_name = "nobody";
        f->cfg.chroot_dir = "/";
    }
}

/* The end of waiting for something: whatever fails, no step takes longer. */
enum { FAULT_PATIENCE = 6000 };

#define FAULT_SOON(f, cond)                                                   \
    do {                                                                      \
        uint64_t soon_end = now_ms() + SCALED(FAULT_PATIENCE);                \
        while (!(cond) && !fx_wait(f, 0) && now_ms() < soon_end)              \
            nap(2);                                                           \
    } while (0)

static int fault_ready(fixture *f)
{
    FAULT_SOON(f, fx_log_has(f, "EMPM0489"));
    return !f->ended && fx_log_has(f, "EMPM0489");
}

/* 1: the new generation serves; 0: it has been refused; -1: neither. */
static int fault_reload(fixture *f)
{
    const int served = fx_log_lines(f, " serves"),
              refused = fx_log_lines(f, "EMPM5032");

    signal_process(f->pid, SIGUSR1);
    FAULT_SOON(f, fx_log_lines(f, " serves") > served ||
                  fx_log_lines(f, "EMPM5032") > refused);
    return f->ended ? -1
           : fx_log_lines(f, " serves") > served ? 1
           : fx_log_lines(f, "EMPM5032") > refused ? 0 : -1;
}

/* One server, in which g_faults->call fails at the moment `at`. Returns whether
 * it was called. */
static int fault_run(moment at, int processes)
{
    static const char *const crashes[] = { "Segmentation fault", "Aborted",
                                           "Bus error", "Illegal instruction" };
    const int error = g_faults->error, failures = get_int(&g_failures);
    char got[FAULT_ALL + 1], later[FAULT_ALL + 1] = "";
    fixture f;
    const int show_log = g_show_log;
    char path[300];
    client c;
    size_t i;
    int ready, r = 0;

    fault_fixture(&f, processes);
    fault_arm(at == AT_START);
    if (!fx_up(&f)) {
        fault_arm(0);
        return 0;
    }
    ready = fault_ready(&f);
    if (at == AT_START && f.ended) {
        f.failure_ok = 1;            /* else fx_down() says what it is */
        CHECK(WIFEXITED(f.status) && WEXITSTATUS(f.status) != 0);
        if (!fault_told(&f, error))
            fail(__FILE__, __LINE__, "it ends without a reason");
    } else if (!ready) {
        fail(__FILE__, __LINE__, f.ended ? "it has ended"
                                         : "it neither serves nor ends");
    }
    /* the start is over for all threads, too */
    if (ready && at != AT_START) {
        if (fault_ask_for(&f, 1, got) > 0)
            fail(__FILE__, __LINE__, "it does not serve");
        nap(SCALED(10));
    }
    if (ready && at == WHILE_SERVING) {
        fault_arm(1);
        r = fault_ask_for(&f, FAULT_REQUESTS, got);
        r += fault_ask_together(&f, got);
        fault_arm(0);
        if (r > 0 && !fault_told(&f, error) && !fault_is_of_life(error))
            fail(__FILE__, __LINE__, "not answered, without a line: %s", got);
        if (r > 0 && (error == EINTR || error == EAGAIN))
            fail(__FILE__, __LINE__, "not tried again: %s", got);
    }
    if (ready && at == AT_RELOAD) {
        fault_arm(1);
        r = fault_reload(&f);
        fault_arm(0);
        if (r < 0)
            fail(__FILE__, __LINE__, "the reload neither serves nor fails");
        else if (r == 0 && !fault_told(&f, error))
            fail(__FILE__, __LINE__, "the reload fails without a reason");
        if (r == 0 && (r = fault_reload(&f)) <= 0)
            fail(__FILE__, __LINE__, "the next reload fails, too");
    }
    fault_arm(0);
    if (ready && at != AT_STOP && !f.ended) {
        uint64_t end = now_ms() + SCALED(FAULT_PATIENCE);
        while ((r = fault_ask_for(&f, 5, later)) > 0 && now_ms() < end)
            nap(20);
        if (r > 0)
            fail(__FILE__, __LINE__, "it does not serve afterwards: %s", later);
        r = connect_unix(&c, tmp_path(path, sizeof path, "faults/sock"));
        if (r != 0 || cl_get(&c, "/hello/a") != 200)
            fail(__FILE__, __LINE__, "it does not serve on its unix socket");
        cl_close(&c);
    }
    if (ready && !f.ended) {
        fault_arm(at == AT_STOP);
        signal_process(f.pid, SIGTERM);
        CHECK(fx_wait(&f, SCALED(FAULT_PATIENCE)));
        fault_arm(0);
        f.failure_ok = at == AT_STOP && fault_told(&f, error);
    }
    for (i = 0; i < sizeof crashes / sizeof crashes[0]; i++)
        CHECK(!fx_log_has(&f, crashes[i]));
    r = get_int(&g_faults->hits);
    g_show_log += g_verbose && get_int(&g_failures) > failures;
    fx_down(&f);
    g_show_log = show_log;
    return r;
}

static const char *error_name(int error)
{
#define E(name) { name, #name }
    static const struct { int error; const char *name; } names[] = {
        E(EACCES), E(EADDRINUSE), E(EADDRNOTAVAIL), E(EAGAIN), E(EBADF),
        E(ECHILD), E(ECONNABORTED), E(ECONNREFUSED), E(ECONNRESET), E(EINTR),
        E(EINVAL), E(EIO), E(EMFILE), E(ENOBUFS), E(ENOLCK), E(ENOMEM),
        E(ENOSPC), E(ENOSYS), E(ENOTTY), E(EOPNOTSUPP), E(EOVERFLOW), E(EPERM),
        E(EPIPE), E(EPROTO)
    };
#undef E
    size_t i;

    for (i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].error == error)
            return names[i].name;
    return "E?";
}

/* It cannot be so for ever: the call is only to be made again. */
static int fault_passes(int call, int error)
{
    const char *name = fault_calls[call].call;

    return error == EINTR || (error == EAGAIN &&
                              (strcmp(name, "openat2") == 0 ||
                                                  strcmp(name, "read-pipe") ==
                                                  0));
}

/* The plan of a row, or of the run that counts (call -1). */
static int fault_row(moment at, int processes, int call, int error, int nth)
{
    memset(g_faults, 0, sizeof *g_faults);
    g_faults->tests = getpid();
    g_faults->call = call;
    g_faults->error = error;
    g_faults->nth = nth;
    set_int(&g_printed, 0);
    return fault_run(at, processes);
}

static void fault_rows(moment at, int processes)
{
    static const int nths[] = { 1, 2, 3, 4, 6, 9, 14, 20, 30, 45, 70, 100, 150,
                                200, 0 };
    int calls[FAULT_CALLS], rows = 0, hit = 0, failed = 0, i, e;
    size_t k;

    context("%s, no fault", moment_names[at]);
    fault_row(at, processes, -1, 0, 0);
    memcpy(calls, g_faults->calls, sizeof calls);
    for (i = 0; i < FAULT_CALLS; i++)
        for (e = 0; e < 8 && fault_calls[i].error[e] != 0; e++)
            for (k = 0; k < sizeof nths / sizeof nths[0]; k++) {
                const int before = get_int(&g_failures), nth = nths[k];
                char name[100];
                if (calls[i] < (nth == 0 ? 1 : nth))
                    continue;
                if (g_fault_rows == NULL && (e > 0 || nth != 1))
                    continue;
                /* where all is slow, each moment has a third of them */
                if (g_fault_rows == NULL && g_slow > 1 && i % 3 != (int)at % 3)
                    continue;
                if (nth == 0 && fault_passes(i, fault_calls[i].error[e]))
                    continue;
                snprintf(name, sizeof name, "%s%s.%s.%s.%.*d%s",
                         moment_names[at], processes > 0 ? "+fork" : "",
                         fault_calls[i].call,
                         error_name(fault_calls[i].error[e]), nth > 0, nth,
                         nth > 0 ? "" : "always");
                if (g_fault_rows != NULL && strcmp(g_fault_rows, "all") != 0 &&
                    strstr(name, g_fault_rows) == NULL)
                    continue;
                context("%s", name);
                watchdog_set(name, 60000 * (g_slow > 1 ? 3 : 1));
                rows++;
                hit += fault_row(at, processes, i, fault_calls[i].error[e],
                                 nth) > 0;
                if (get_int(&g_failures) > before)
                    failed++;
                if (g_verbose || get_int(&g_failures) > before)
                    printf("%s  %s\n", get_int(&g_failures) > before
                                           ? "FAULT " : "held  ", name);
            }
    no_context();
    if (g_verbose || g_fault_rows != NULL)
        printf("faults at %s%s: %d rows, %d reached, %d failed\n",
               moment_names[at], processes > 0 ? "+fork" : "", rows, hit,
               failed);
}

/* A start in which a call of the C library fails is refused with its reason,
 * or serves. */
LIVE(faults, at_start)
{
    fault_rows(AT_START, g_forked ? 2 : 0);
}

/* A call of the C library that fails while the server serves costs one request
 * at most. */
LIVE(faults, while_serving)
{
    fault_rows(WHILE_SERVING, g_forked ? 2 : 0);
}

/* A call of the C library that fails at a reload leaves a generation that
 * serves. */
TEST(faults, at_reload)
{
    fault_rows(AT_RELOAD, 2);
}

/* A call of the C library that fails at a stop does not keep the server from
 * ending. */
LIVE(faults, at_stop)
{
    fault_rows(AT_STOP, g_forked ? 2 : 0);
}

/* ---------------------------------------------------------------------------
 * >>clients -- the real ones, where they are installed
 * ------------------------------------------------------------------------- */

static int installed(const char *program)
{
    char cmd[200];

    snprintf(cmd, sizeof cmd, "command -v %s >/dev/null 2>&1", program);
    return system(cmd) == 0;
}

/* Runs a command with the server's URL in it; its output is in `out`. */
static int shell(char *out, size_t n, const char *fmt, ...) EMPM__PRINTF(3, 4);
static int shell(char *out, size_t n, const char *fmt, ...)
{
    char cmd[1500], path[400], whole[2000];
    va_list ap;
    int rc, fd;
    ssize_t got = 0;

    va_start(ap, fmt);
    vsnprintf(cmd, sizeof cmd, fmt, ap);
    va_end(ap);
    tmp_path(path, sizeof path, "out");
    snprintf(whole, sizeof whole, "(unset http_proxy; %s) >%s 2>&1", cmd, path);
    rc = system(whole);
    fd = open(path, O_RDONLY);
    if (fd >= 0) {
        got = read(fd, out, n - 1);
        close(fd);
    }
    out[got > 0 ? got : 0] = 0;
    unlink(path);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

/* curl's requests, uploads and redirects work, HTTP/1.0 included. */
SERVED_BY(clients, curl, 1, NULL)
{
    char out[4096], path[400], *big;

    if (!installed("curl"))
        SKIP("curl is not installed");
    CHECK_INT(shell(out, sizeof out, "curl -sS -m 20 http://127.0.0.1:%d/hello "
                    "http://127.0.0.1:%d/hello/two", f->port, f->port), 0);
    CHECK_STR(out, "Hello, world!\nHello, two!\n");
    CHECK_INT(shell(out, sizeof out, "curl -sS -m 20 --http1.0 "
                    "http://127.0.0.1:%d/hello", f->port), 0);
    CHECK_STR(out, "Hello, world!\n");
    CHECK_INT(shell(out, sizeof out, "curl -sS -m 20 --http1.0 "
                    "http://127.0.0.1:%d/produce?bytes=1000000 | wc -c",
                    f->port),
              0);
    CHECK_INT(strtol(out, NULL, 10), 1000000);
    CHECK_INT(shell(out, sizeof out, "curl -sS -m 20 -I "
                    "http://127.0.0.1:%d/hello", f->port), 0);
    CHECK(strncmp(out, "HTTP/1.1 200", 12) == 0);
    big = (char *)malloc(10000000);
    if (big != NULL) {
        char want[64];
        pattern_fill(big, 10000000, 0);
        write_file(tmp_path(path, sizeof path, "upload"), big, 10000000);
        free(big);
        snprintf(want, sizeof want, "bytes=10000000 sum=%lx nul=1 trailer=-",
                 (unsigned long)pattern_sum(10000000));
        CHECK_INT(shell(out, sizeof out, "curl -sS -m 30 --data-binary @%s "
                        "http://127.0.0.1:%d/sum-any", path, f->port), 0);
        CHECK_STR(out, want);
        CHECK_INT(shell(out, sizeof out, "curl -sS -m 30 -T %s -X POST "
                        "-H 'Transfer-Encoding: chunked' "
                        "http://127.0.0.1:%d/sum-any", path, f->port), 0);
        CHECK_STR(out, want);
        CHECK_INT(shell(out, sizeof out, "curl -sS -m 30 -o /dev/null "
                        "-w '%%{http_code}' --data-binary @%s "
                        "http://127.0.0.1:%d/echo", path, f->port), 0);
        CHECK_STR(out, "413");
        unlink(path);
    }
    CHECK_INT(shell(out, sizeof out, "curl -sS -m 20 -L -o /dev/null "
                    "-w '%%{http_code}' http://127.0.0.1:%d/tree", f->port), 0);
    CHECK_STR(out, "200");
}

/* zsync asks for 20 ranges at a time, and gives up on an answer with the
 * whole. */
TEST(clients, zsync)
{
    fixture f;
    char out[4096], www[400], seed[400], path[400], *data;
    size_t i, n = 1000000;

    if (!installed("zsync") || !installed("zsyncmake"))
        SKIP("zsync is not installed");
    data = (char *)malloc(n);
    if (data == NULL)
        return;
    for (i = 0; i < n; i++)
        data[i] = (char)((i * i) >> 7 ^ i >> 3 ^ i * 13);
    write_file(tmp_path(www, sizeof www, "www/zsync.bin"), data, n);
    for (i = 10000; i + 9000 < n; i += 23000)
        memset(data + i, (int)(i % 251), 3000);
    write_file(tmp_path(seed, sizeof seed, "zsync.seed"), data, n);
    free(data);
    fx_init_forked(&f, 1);
    f.cfg.routes = file_routes;
    if (!fx_up(&f))
        return;
    CHECK_INT(shell(out, sizeof out, "cd %s/www && zsyncmake -u zsync.bin "
                    "-o zsync.bin.zsync zsync.bin", g_tmp), 0);
    CHECK_INT(shell(out, sizeof out, "cd %s && timeout 20 zsync -q -i %s -o "
                    "zsync.out http://127.0.0.1:%d/zsync.bin.zsync && cmp "
                    "zsync.out %s", g_tmp, seed, f.port, www), 0);
    fx_down(&f);
    unlink(www);
    unlink(seed);
    unlink(tmp_path(path, sizeof path, "www/zsync.bin.zsync"));
    unlink(tmp_path(path, sizeof path, "zsync.out"));
}

/* ab's thousands of requests succeed, with and without keep-alive. */
SERVED_BY(clients, ab, 1, NULL)
{
    char out[8192];
    const char *p;

    if (!installed("ab"))
        SKIP("ab is not installed");
    CHECK_INT(shell(out, sizeof out, "ab -q -k -n 2000 -c 20 "
                    "http://127.0.0.1:%d/hello", f->port), 0);
    p = strstr(out, "Complete requests:");
    CHECK(p != NULL && strtol(p + 18, NULL, 10) == 2000);
    p = strstr(out, "Failed requests:");
    CHECK(p != NULL && strtol(p + 16, NULL, 10) == 0);
    p = strstr(out, "Keep-Alive requests:");
    CHECK(p != NULL && strtol(p + 20, NULL, 10) > 1900);
    CHECK(strstr(out, "Non-2xx") == NULL);
    CHECK_INT(shell(out, sizeof out, "ab -q -n 500 -c 20 "
                    "http://127.0.0.1:%d/hello", f->port), 0);
    p = strstr(out, "Failed requests:");
    CHECK(p != NULL && strtol(p + 16, NULL, 10) == 0);
}

/* wrk sees neither socket errors nor refusals. */
SERVED_BY(clients, wrk, 1, NULL)
{
    char out[8192];

    if (!installed("wrk"))
        SKIP("wrk is not installed");
    CHECK_INT(shell(out, sizeof out, "wrk -t1 -c32 -d1s "
                    "http://127.0.0.1:%d/hello", f->port), 0);
    CHECK(strstr(out, "Socket errors") == NULL);
    CHECK(strstr(out, "Non-2xx") == NULL);
    CHECK(strstr(out, "requests in") != NULL);
}

/* nc, which shuts its side down behind the request, gets the answer. */
SERVED_BY(clients, nc, 1, NULL)
{
    char out[4096];

    if (!installed("nc"))
        SKIP("nc is not installed");
    CHECK_INT(shell(out, sizeof out, "printf 'GET /hello HTTP/1.1\\r\\nHost: "
                    "a\\r\\n\\r\\n' | timeout 20 nc -N 127.0.0.1 %d", f->port),
              0);
    CHECK(strstr(out, "\r\n\r\nHello, world!\n") != NULL);
}

/* goaccess reads the access log without a bad line. */
TEST(clients, goaccess)
{
    fixture f;
    client c;
    char path[300], out[65536], *at;

    if (!installed("goaccess"))
        SKIP("goaccess is not installed");
    fx_init(&f);
    log_to(&f, path, sizeof path, "combined");
    if (!fx_up(&f))
        return;
    CHECK_INT(get_status(&f, "/hello?a=\"b\""), 200);
    CHECK_INT(get_status(&f, "/nothing"), 404);
    CHECK_INT(ask(&f, &c, "GET /x HTTP/1.1\r\n\r\n"), 400);
    cl_close(&c);
    fx_down(&f);
    CHECK_INT(shell(out, sizeof out, "goaccess %s --log-format=COMBINED -o "
                    "json --no-progress 2>/dev/null; cat %s.json 2>/dev/null",
                    path, path), 1);
    at = strstr(out, "\"valid_requests\":");
    CHECK(at != NULL && strtol(at + 17, NULL, 10) == 3);
    at = strstr(out, "\"failed_requests\":");
    CHECK(at != NULL && strtol(at + 18, NULL, 10) == 0);
    unlink(path);
}

/* curl --haproxy-protocol is served by a proxy listener, and plain curl is
 * not. */
SERVED_WITH(clients, curl_haproxy_protocol, T_PLAIN,
            fx_init_forked(f, 1); f->options = " proxy", NULL)
{
    char out[4096];

    if (!installed("curl"))
        SKIP("curl is not installed");
    CHECK_INT(shell(out, sizeof out, "curl -sS -m 20 --haproxy-protocol "
                    "http://127.0.0.1:%d/who http://127.0.0.1:%d/hello",
                    f->port, f->port), 0);
    CHECK(strncmp(out, "127.0.0.1:", 10) == 0);
    CHECK(strstr(out, " 127.0.0.1Hello, world!\n") != NULL);
    CHECK_INT(shell(out, sizeof out, "curl -sS -m 20 http://127.0.0.1:%d/who",
                    f->port) != 0, 1);    /* without: no answer */
}

/* The files of the tree with a few routes, for clients that fetch. */
static const empm_route client_routes[] = {
    EMPM_ROUTE("GET /hello",  h_hello, NULL),
    EMPM_ROUTE("POST /echo",  h_echo,  NULL),
    EMPM_FILES("GET /",       NULL),
    EMPM_ROUTES_END
};

/* Forked, with those routes, below a tree of its own: "%s/fetch". */
static int fetch_up(fixture *f, char *root, size_t n)
{
    fx_init_forked(f, 1);
    tmp_path(root, n, "fetch");
    mkdir(root, 0755);
    chmod(root, 0755);
    f->cfg.routes = client_routes;
    f->cfg.document_root = root;
    return fx_up(f);
}

static void fetch_down(fixture *f, const char *root)
{
    fx_down(f);
    remove_tree(root);
}

/* apt asks a flat repository for /./Packages and /./x_1_all.deb as they are. */
TEST(clients, apt_flat_repository)
{
    fixture f;
    char out[8192], root[400];

    if (!installed("apt-get") || !installed("dpkg-deb"))
        SKIP("apt is not installed");
    if (!fetch_up(&f, root, sizeof root))
        return;
    CHECK_INT(shell(out, sizeof out, "cd %s && mkdir -p p/DEBIAN "
                    "apt/lists/partial "
        "apt/cache/archives/partial apt/etc/preferences.d && chmod 755 p "
                    "p/DEBIAN && "
        "printf 'Package: empm-x\\nVersion: 1\\nArchitecture: all\\n"
        "Maintainer: a <a@a.invalid>\\nDescription: x\\n' >p/DEBIAN/control && "
        "dpkg-deb -b p x_1_all.deb >/dev/null && "
        "{ cat p/DEBIAN/control; echo Filename: ./x_1_all.deb; "
        "echo Size: $(stat -c %%s x_1_all.deb); "
        "echo SHA256: $(sha256sum x_1_all.deb | cut -d' ' -f1); } >Packages && "
        ": >apt/status && "
        "echo 'deb [trusted=yes] http://127.0.0.1:%d/ ./' "
                    ">apt/etc/sources.list",
        root, f.port), 0);
    CHECK_INT(shell(out, sizeof out, "cd %s && export LC_ALL=C && "
        "o=\"-o Dir::Etc=%s/apt/etc -o Dir::Etc::sourceparts=- "
        "-o Dir::State=%s/apt -o Dir::State::status=%s/apt/status "
        "-o Dir::State::lists=%s/apt/lists -o Dir::Cache=%s/apt/cache "
        "-o APT::Sandbox::User= -o Debug::NoLocking=1\" && mkdir -p got && "
        "timeout 30 apt-get $o --error-on=any update && cd got && "
        "timeout 30 apt-get $o download empm-x && "
        "cmp empm-x_1_all.deb ../x_1_all.deb", root, root, root, root, root,
        root), 0);
    if (get_int(&g_failures) != 0)
        printf("%s\n", out);
    fetch_down(&f, root);
}

/* lftp follows the redirect of /sub to /sub/. */
TEST(clients, lftp)
{
    fixture f;
    char out[8192], root[400];

    if (!installed("lftp"))
        SKIP("lftp is not installed");
    if (!fetch_up(&f, root, sizeof root))
        return;
    shell(out, sizeof out, "cd %s && mkdir -p d/sub && echo one >d/a && "
          "echo two >d/sub/b && echo '<a href=\"a\">a</a><a "
          "href=\"sub/\">sub/</a>' >d/index.html && echo '<a href=\"b\">b</a>' "
          ">d/sub/index.html", root);
    CHECK_INT(shell(out, sizeof out, "cd %s && timeout 30 lftp -c 'set net:max-"
        "retries 1; set http:proxy \"\"; mirror http://127.0.0.1:%d/d got' && "
        "cmp got/a d/a && cmp got/sub/b d/sub/b", root, f.port), 0);
    CHECK_INT(shell(out, sizeof out, "cd %s && timeout 30 lftp -c 'set net:max-"
        "retries 1; set http:proxy \"\"; get http://127.0.0.1:%d/d/sub -o s' "
                    "&& "
        "cmp s d/sub/index.html", root, f.port), 0);
    if (get_int(&g_failures) != 0)
        printf("%s\n", out);
    fetch_down(&f, root);
}

/* axel follows the redirect of a folder and fetches its file in parts. */
TEST(clients, axel)
{
    fixture f;
    char out[8192], root[400];

    if (!installed("axel"))
        SKIP("axel is not installed");
    if (!fetch_up(&f, root, sizeof root))
        return;
    shell(out, sizeof out, "cd %s && mkdir sub && cp %s/www/big.bin "
          "sub/index.html", root, g_tmp);
    CHECK_INT(shell(out, sizeof out, "cd %s && timeout 30 axel -q -n 4 "
        "-o got http://127.0.0.1:%d/sub && cmp got sub/index.html", root,
                    f.port),
        0);
    fetch_down(&f, root);
}

/* PHP's streams follow the redirect of a folder, and send dot segments as they
 * are. */
TEST(clients, php_streams)
{
    fixture f;
    char out[8192], root[400];

    if (!installed("php"))
        SKIP("php is not installed");
    if (!fetch_up(&f, root, sizeof root))
        return;
    shell(out, sizeof out, "cd %s && mkdir sub && echo inside >sub/index.html "
          "&& echo top >a", root);
    CHECK_INT(shell(out, sizeof out, "timeout 30 php -r 'foreach ([\"/sub\", "
        "\"/./a\", \"/sub/../a\"] as $p) echo file_get_contents("
        "\"http://127.0.0.1:%d$p\");'", f.port), 0);
    CHECK_STR(out, "inside\ntop\ntop\n");
    fetch_down(&f, root);
}

/* A pool reuses connections at about the time of their end. A client that is
 * told the time gives one up before, and no request fails. */
SERVED_BY(clients, node_fetch_at_the_edge_of_keep_alive, 1,
          "KeepAliveTimeout 2")
{
    char out[8192];

    if (!installed("node") ||
        shell(out, sizeof out, "node -e 'fetch'") != 0)
        SKIP("no node with fetch is installed");
    /* it looks at no socket */
    CHECK_INT(shell(out, sizeof out, "timeout 60 node -e '"
        "let bad = 0; const nap = ms => new Promise(r => setTimeout(r, ms));"
        "async function one(i) { for (let k = 0; k < 4; k++) {"
        " try { const r = await fetch(\"http://127.0.0.1:%d/hello\");"
        "  await r.text(); if (r.status != 200) bad++; } catch (e) { bad++; }"
        " const end = Date.now() + 1990 + i %% 20;"
        " await nap(1980); while (Date.now() < end); } }"
        "Promise.all([...Array(10).keys()].map(one)).then(() => {"
        " console.log(bad, \"failed\"); process.exit(bad ? 1 : 0); });'",
                    f->port), 0);
    CHECK_STR(out, "0 failed\n");
}

/* Python sends all of an upload before it reads: the refusal must still be
 * there. */
SERVED_BY(clients, python_reads_the_refusal_of_an_upload, 1,
          "LingerTimeoutShort 2")
{
    static const int mib[] = { 1, 17, 50 };
    char out[8192];

    if (!installed("python3"))
        SKIP("python3 is not installed");
    EACH(mib, i) {
        context("%d MiB", mib[i]);
        CHECK_INT(shell(out, sizeof out, "timeout 60 python3 -c '\n"
            "import urllib.request, urllib.error\n"
            "try:\n"
            "    urllib.request.urlopen(\"http://127.0.0.1:%d/sum-100\","
            " b\"x\" * (%d << 20), 30)\n"
            "    print(\"taken\")\n"
            "except urllib.error.HTTPError as e: print(e.code)\n"
            "except Exception as e: print(e)'", f->port, mib[i]), 0);
        CHECK_STR(out, "413\n");
    }
}

/* curl sends an Expect that expects nothing, paths as they are, a range, and a
 * byte above 0x7f, and gets the right answers. */
SERVED_BY(clients, curl_as_it_is, 1, NULL)
{
    static const char *const how[] = {
        "-H 'Expect;' -d hello %s/echo", "--path-as-is %s/./hello",
        "--path-as-is %s//hello", "--path-as-is %s/a/../hello",
        "%s/hello?\xc3\xa4"
    };
    char out[4096], url[64], cmd[400];

    if (!installed("curl"))
        SKIP("curl is not installed");
    snprintf(url, sizeof url, "http://127.0.0.1:%d", f->port);
    EACH(how, i) {
        const char *at = strstr(how[i], "%s");
        context("%s", how[i]);
        snprintf(cmd, sizeof cmd, "%.*s%s%s", (int)(at - how[i]), how[i], url,
                 at + 2);
        CHECK_INT(shell(out, sizeof out, "curl -sS -m 20 --noproxy '*' -o "
                        "/dev/null -w '%%{http_code}' %s", cmd), 0);
        CHECK_STR(out, "200");
    }
}

/* w3m and links follow a redirect and show the page. */
TEST(clients, text_browsers)
{
    static const char *const browsers[] = { "w3m", "links" };
    fixture f;
    char out[4096], root[400];
    int i, any = 0;

    if (!fetch_up(&f, root, sizeof root))
        return;
    shell(out, sizeof out, "cd %s && mkdir sub && echo '<p>inside' "
          ">sub/index.html", root);
    for (i = 0; i < 2; i++) {
        if (!installed(browsers[i]))
            continue;
        any = 1;
        context("%s", browsers[i]);
        CHECK_INT(shell(out, sizeof out, "HOME=%s timeout 30 %s -dump "
            "'http://127.0.0.1:%d/./sub#part'", root, browsers[i], f.port), 0);
        CHECK(strstr(out, "inside") != NULL);
    }
    no_context();
    fetch_down(&f, root);
    if (!any)
        SKIP("neither w3m nor links is installed");
}

/* Clients that count what fails, over connections that last a while. */
typedef struct visitor {
    pthread_t thread;
    int       port, good, failed;
    int      *stop;
} visitor;

static void *visitor_run(void *arg)
{
    visitor *v = (visitor *)arg;

    while (!get_int(v->stop)) {
        client c;
        int i, status = 200;
        if (cl_connect_port(&c, v->port, 0) != 0) {
            add_int(&v->failed, 1);
            continue;
        }
        for (i = 0; i < 50 && status == 200 && !get_int(v->stop); i++) {
            if (i % 4 != 3)
                status = cl_get(&c, "/hello");
            else {                       /* nobody may repeat this one */
                cl_puts(&c, "POST /echo HTTP/1.1\r\nHost: a\r\n"
                        "Content-Length: 5\r\n\r\nhello");
                status = cl_reply(&c);
            }
            add_int(status == 200 ? &v->good : &v->failed, 1);
            if (c.closes)
                break;
            nap(i % 4);
        }
        cl_close(&c);
    }
    return NULL;
}

/* >>haproxy in eventmpm.h has this configuration with names and times for the
 * real world. */
static pid_t haproxy_start(int fd, const fixture *node, int nodes)
{
    char path[400], text[4000];
    int n, i;
    pid_t pid;

    n = snprintf(text, sizeof text,
        "defaults\n"
        "    mode http\n"
        "    timeout connect 10s\n"
        "    timeout check 10s\n"        /* slow is not down */
        "    timeout client 10s\n"
        "    timeout server 30s\n"
        "    timeout http-request 10s\n"
        "    timeout http-keep-alive 5s\n"
        "    retries 3\n"
        "    option redispatch 1\n"
        "    retry-on conn-failure empty-response\n"
        "frontend www\n"
        "    bind fd@%d\n"
        "    default_backend nodes\n"
        "backend nodes\n"
        "    balance leastconn\n"
        "    http-request disable-l7-retry unless METH_GET\n"
        "    option httpchk GET /health\n"
        "    default-server check inter 200ms fall 2 rise 1 send-proxy-v2\n",
                 fd);
    for (i = 0; i < nodes; i++)
        n += snprintf(text + n, sizeof text - (size_t)n,
                      "    server node%d 127.0.0.1:%d\n", i, node[i].port);
    write_file(tmp_path(path, sizeof path, "haproxy.cfg"), text, (size_t)n);
    pid = fork();
    if (pid == 0) {
#ifdef __linux__
        prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
        if (!g_show_log)
            dup2(open("/dev/null", O_RDWR), 2);
        execlp("haproxy", "haproxy", "-q", "-db", "-f", path, (char *)NULL);
        execl("/usr/sbin/haproxy", "haproxy", "-q", "-db", "-f", path,
              (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void visitors(visitor *v, int n, int *good, int *failed)
{
    int i;

    for (i = *good = *failed = 0; i < n; i++) {
        *good += get_int(&v[i].good);
        *failed += get_int(&v[i].failed);
    }
}

/* HAProxy with /health checks loses no request when a node drains, and only
 * those of a node that dies. */
TEST(clients, haproxy_loses_nothing)
{
    enum { NODES = 4, VISITORS = 8 };
    fixture f[NODES];
    visitor v[VISITORS];
    client c;
    int fd, port = 0, stop = 0, good, failed, before, i, st;
    pid_t haproxy, group;

    if (!installed("haproxy") && access("/usr/sbin/haproxy", X_OK) != 0)
        SKIP("haproxy is not installed");
    for (i = 0; i < NODES; i++) {
        fx_init_forked(&f[i], 1);
        f[i].options = " proxy";
        f[i].cfg.keep_alive_timeout_ms = 300;   /* idle ones go all the time */
        f[i].cfg.graceful_shutdown_delay_ms = i == 0 ? 600 : 0;
        if (!fx_up(&f[i]))
            return;
    }
    fd = listening_socket(&port);
    haproxy = haproxy_start(fd, f, NODES);
    close(fd);
    CHECK_INT(cl_connect_port(&c, port, 0), 0);
    /* our address, as haproxy has seen it */
    CHECK_INT(cl_get(&c, "/who"), 200);
    CHECK(strncmp(c.body.p, "127.0.0.1:", 10) == 0);
    cl_close(&c);

    memset(v, 0, sizeof v);
    for (i = 0; i < VISITORS; i++) {
        v[i].port = port;
        v[i].stop = &stop;
        pthread_create(&v[i].thread, NULL, visitor_run, &v[i]);
    }
    nap(500);
    for (i = 0; i < 2; i++) {            /* nodes go: nobody notices */
        signal_process(f[i].pid, SIGQUIT);
        CHECK(fx_wait(&f[i], PATIENCE));
        CHECK(WIFEXITED(f[i].status) && WEXITSTATUS(f[i].status) == 0);
        f[i].pid = 0;
        nap(300);
        visitors(v, VISITORS, &good, &failed);
        CHECK(good > 100);
        CHECK_INT(failed, 0);
    }

    /* a node dies: those it had may fail */
    group = f[2].pid;
    signal_group(group, SIGKILL);
    waitpid(group, &st, 0);
    CHECK(fx_reap(&f[2], group, SCALED(3000)));
    f[2].pid = 0;
    nap(1000);
    visitors(v, VISITORS, &before, &failed);
    CHECK_IN(failed, 0, VISITORS);
    st = failed;
    nap(500);                            /* from then on, none */
    visitors(v, VISITORS, &good, &failed);
    CHECK(good > before + 50);
    CHECK_INT(failed, st);

    set_int(&stop, 1);
    for (i = 0; i < VISITORS; i++)
        pthread_join(v[i].thread, NULL);
    signal_process(haproxy, SIGTERM);
    CHECK_INT(waitpid(haproxy, &st, 0), haproxy);
    for (i = 0; i < NODES; i++) {
        f[i].deaths_ok = 1;              /* the count is of all nodes */
        fx_down(&f[i]);
    }
}

/* README's words to a newcomer are true in a folder that holds nothing else:
 * its program runs as printed, and the example shows its pages. */
TEST(clients, first_two_minutes)
{
    static const char *const names[] = { "hello", "example_server" };
    char dir[400], here[400], out[2000], path[512];
    int i;

    if (access("README.md", R_OK) != 0 || getcwd(here, sizeof here) == NULL ||
        !installed("cc") || !installed("awk"))
        SKIP("no sources here, no cc or no awk");
    tmp_path(dir, sizeof dir, "newcomer");
    CHECK_INT(mkdir(dir, 0755), 0);
    if (!CHECK_INT(shell(out, sizeof out, "awk '/^```c$/ { f = 1; next } "
                         "/^```$/ { if (f) exit } f' README.md >%s.c && cc -I. "
                         "-o %s.hello %s.c && cc -I. -o %s.example_server "
                         "example_server.c", dir, dir, dir, dir), 0)) {
        fprintf(stderr, "%s", out);
        return;
    }
    for (i = 0; i < 2; i++) {
        char program[512], where[64];
        client c;
        pid_t pid;
        int port, fd = listening_socket(&port), r = -1, status;
        context("%s", names[i]);
        snprintf(program, sizeof program, "%s.%s", dir, names[i]);
        snprintf(where, sizeof where, "127.0.0.1:%d", port);
        close(fd);
        fflush(NULL);
        pid = fork();
        if (pid == 0) {
            fd = open("/dev/null", O_RDWR);
            dup2(fd, 1);
            dup2(fd, 2);
            if (chdir(dir) == 0)
                execl(program, names[i], "-c", "User root", where,
                      (char *)NULL);
            _exit(127);
        }
        CHECK_SOON((r = cl_connect_port(&c, port, 0)) == 0, PATIENCE);
        if (r == 0) {
            CHECK_INT(cl_get(&c, "/hello/world"), 200);
            CHECK_STR(c.body.p, "Hello, world!\n");
            CHECK_INT(cl_get(&c, "/none"), 404);
            CHECK_INT(cl_get(&c, "/"), i == 0 ? 404 : 200);
            if (i == 1) {
                CHECK(strstr(c.body.p, "<a href=\"/hello/world\">") != NULL);
                CHECK(strstr(c.body.p, "<li>POST /echo\n") != NULL);
                snprintf(path, sizeof path, "%s/index.html", dir);
                write_file(path, "mine", 4);
                CHECK_INT(cl_get(&c, "/"), 200);
                CHECK_STR(c.body.p, "mine");
                unlink(path);
            }
            cl_close(&c);
        }
        CHECK(signal_process(pid, SIGINT) == 0);
        CHECK_INT(waitpid(pid, &status, 0), pid);
        CHECK_INT(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
        unlink(program);
    }
    no_context();
    snprintf(path, sizeof path, "%s.c", dir);
    unlink(path);
    CHECK_INT(rmdir(dir), 0);
}

/* ---------------------------------------------------------------------------
 * >>fuzz -- random clients and random handlers, against rules
 *
 * A target is a function of bytes: they are choices, in the order in which it
 * asks for them, so any bytes are a valid case and a case can be replayed. With
 * clang, -DEMPM_FUZZ and -fsanitize=fuzzer, libFuzzer chooses them and the
 * variable FUZZ names the target; else
 *
 *     ./test --fuzz api --seconds 60 --seed 1       draws them
 *     ./test --fuzz api --seed 4711 --runs 1        replays what has failed
 *
 * Connections are driven step by step, without a thread: a socket pair is
 * admitted, and what the listener would see is offered to its record. The
 * client need not be kind: it reads little, nothing, or leaves in the middle. A
 * client that always reads all and ends only when all is answered sees neither
 * a suspension that is lost with a failing send, nor a file that overtakes its
 * head because an earlier answer still waits; and a generator that never calls
 * empm_send_file() after empm_suspend() or in on_body cannot ask for the
 * latter.
 * ------------------------------------------------------------------------- */

enum { FZ_REQUESTS = 4, FZ_WAITS = 256, FZ_MOST = 12 };

static const uint8_t *fz_data;      /* the choices that are left */
static size_t fz_left;
static int    fz_faults;            /* rules broken in this case */

static unsigned fz_byte(void)
{
    if (fz_left == 0)
        return 0;
    fz_left--;
    return *fz_data++;
}

/* One of n; 0 once the input is used up. */
static unsigned fz_pick(unsigned n)
{
    return fz_byte() % n;
}

static void fz_fault(const char *fmt, ...) EMPM__PRINTF(1, 2);
static void fz_fault(const char *fmt, ...)
{
    va_list ap;

    fz_faults++;
    printf("FAULT   ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    fflush(stdout);
}

/* --- a request that a handler answers at random --------------------------- */

typedef struct fz_wait {
    int entered, calls;
} fz_wait;

typedef struct fz_request {
    str     body;                   /* what the program has written */
    int     head;                   /* HEAD: no body */
    int     range;                  /* it asks for bytes 2 to 5 */
    int     cond;                   /* If-None-Match: * */
    int     file;                   /* the body is this file, 1 + its number */
    int     set, returned;          /* statuses, 0: none */
    int64_t declared;               /* -1: no Content-Length of its own */
    int     may_be_cut;             /* something has failed on the way */
    int     any_text;               /* the kit's own text is right */
    int64_t produce;                /* what the producer still has to make */
    int     known;                  /* the length of that is declared */
} fz_request;

static struct {
    fz_request  req[FZ_REQUESTS];
    fz_wait     wait[FZ_WAITS];
    int         waits, defers, deferred;
    empm_ticket ticket;             /* the newest */
    str         files[2];
} fz;

static const char *const fz_file_names[2] = { "a.txt", "big.bin" };

static void fz_deferred(void *p)
{
    (*(int *)p)++;
}

static long fz_produce(empm_request *req, void *buf, size_t cap, void *user)
{
    fz_request *r = (fz_request *)user;
    size_t n = fz_pick(3) ? cap : fz_pick(200) + 1;

    (void)req;
    if (fz_pick(40) == 39) {
        r->may_be_cut = 1;
        return -1;
    }
    if ((int64_t)n > r->produce)
        n = (size_t)r->produce;
    if (n > cap)
        n = cap;
    pattern_fill((char *)buf, n, (int64_t)r->body.n);
    str_add(&r->body, buf, n);
    r->produce -= (int64_t)n;
    return (long)n;
}

static int fz_woken(empm_request *req, enum empm_why why, void *user);

enum fz_where { FZ_ON_HEAD, FZ_ON_BODY, FZ_HANDLER, FZ_WAKE };

/* With -v, what a case does. */
static void fz_say(const char *fmt, ...) EMPM__PRINTF(1, 2);
static void fz_say(const char *fmt, ...)
{
    va_list ap;

    if (!g_verbose)
        return;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
}

/* The random program: calls the response API, and returns as handlers do. */
static int fz_act(empm_request *req, enum fz_where where)
{
    static const size_t sizes[] = { 0, 1, 700, 4096, 16384, 65535, 65536, 65537,
                                    100000, 131072 };
    static const int statuses[] = { 204, 304, 201, 404, 204, 200 };
    static const char *const names[] = { "on_head", "on_body", "handler",
                                        "wake" };
    static char bytes[131072];
    const char *id = empm_path_value(req, "id");
    fz_request *r = &fz.req[id != NULL ? (id[0] - '0') % FZ_REQUESTS : 0];
    int64_t max = where == FZ_HANDLER || where == FZ_WAKE ? FZ_MOST : 3;
    int rc, k, armed = -1;
    size_t n;
    char path[400];

    fz_say("/api/%s, %s:\n", id, names[where]);
    while (max-- > 0) {
        switch (fz_pick(20)) {
        case 0:
            max = 0;
            break;
        case 1: case 2: case 3: case 4: case 5:
            n = sizes[fz_pick(sizeof sizes / sizeof sizes[0])];
            pattern_fill(bytes, n, (int64_t)r->body.n);
            rc = empm_write(req, bytes, n);
            fz_say("  write %lu: %d\n", (unsigned long)n, rc);
            if (rc == EMPM_OK)
                str_add(&r->body, bytes, n);
            else if (rc != EMPM_EMISUSE)
                r->may_be_cut = 1;
            break;
        case 6: case 7:
            rc = empm_flush(req);
            fz_say("  flush: %d\n", rc);
            if (rc != EMPM_OK && rc != EMPM_EMISUSE)
                r->may_be_cut = 1;
            break;
        case 8: case 9:
            k = statuses[fz_pick(6)];
            rc = empm_status(req, k);
            fz_say("  status %d: %d\n", k, rc);
            if (rc == EMPM_OK)
                r->set = k;
            break;
        case 10:
            empm_set_header(req, fz_pick(2) ? "X-A" : "Cache-Control", "a");
            break;
        case 11:
            k = fz_pick(2) ? 10 : 65537;
            snprintf(path, sizeof path, "%d", k);
            rc = empm_set_header(req, "Content-Length", path);
            fz_say("  length %d: %d\n", k, rc);
            if (rc == EMPM_OK)
                r->declared = k;
            break;
        case 12: case 13:
            k = (int)fz_pick(2);
            snprintf(path, sizeof path, "%.300s/www/%s", g_tmp,
                     fz_file_names[k]);
            rc = empm_send_file(req, path);
            fz_say("  file %s: %d\n", fz_file_names[k], rc);
            if (rc == EMPM_OK) {
                r->file = k + 1;
                if (r->body.n != 0)
                    fz_fault("a file is taken after a body");
            }
            break;
        case 14:
            k = (int)fz_pick(2);
            if (r->produce == 0 && r->body.n == 0 && r->file == 0) {
                const int64_t all = (int64_t)sizes[fz_pick(10)];
                rc = empm_stream(req, k ? all : -1, fz_produce, r);
                fz_say("  stream of %ld%s: %d\n", (long)all, k ? "" : " (-1)",
                       rc);
                if (rc == EMPM_OK) {
                    r->produce = all;
                    r->known = k;
                }
            }
            break;
        case 15:
            if (empm_defer(req, fz_deferred, &fz.deferred) == EMPM_OK)
                fz.defers++;
            break;
        case 16: case 17: case 18: {
            empm_ticket t;
            if ((where != FZ_HANDLER && where != FZ_WAKE) ||
                fz.waits == FZ_WAITS)
                break;
            t = empm_suspend(req, 1000000, fz_woken, &fz.wait[fz.waits]);
            fz_say("  suspend: %d\n", t != 0);
            if (t == 0)
                break;
            fz.ticket = t;
            armed = fz.waits++;
            if (fz_pick(4) == 1)
                empm_resume(empm_server_of(req), t);
            if (fz_pick(3) != 1)
                max = 0;
            break;
        }
        case 19:
            empm_alloc(req, fz_pick(2) ? 100 : 9000);
            break;
        }
    }
    if (armed >= 0 && fz_pick(8) != 7) {
        fz.wait[armed].entered = 1;
        fz_say("  waits\n");
        return EMPM_SUSPENDED;
    }
    switch (where == FZ_ON_BODY || where == FZ_ON_HEAD ? fz_pick(6)
                                                        : fz_pick(12)) {
    case 1:  rc = statuses[fz_pick(6)];  break;
    case 6:  rc = 200;                   break;
    case 7:  rc = EMPM_EINVAL;           break;
    default: rc = EMPM_OK;               break;
    }
    if (rc < 0 || (rc > 0 && where == FZ_ON_BODY))
        r->any_text = r->may_be_cut = 1;
    if (rc > 0)
        r->returned = rc;
    fz_say("  returns %d\n", rc);
    return rc;
}

static int fz_woken(empm_request *req, enum empm_why why, void *user)
{
    fz_wait *w = (fz_wait *)user;

    /* goes on waiting: no call of its own */
    if (why == EMPM_HALF_CLOSED && fz_pick(2))
        return EMPM_SUSPENDED;
    w->calls++;
    return fz_act(req, FZ_WAKE);
}

static int fz_on_head(empm_request *req, void *user)
{
    (void)user;
    return fz_pick(8) == 1 ? fz_act(req, FZ_ON_HEAD) : EMPM_OK;
}

static int fz_on_body(empm_request *req, const void *data, size_t len,
                      void *user)
{
    (void)data;
    (void)len;
    (void)user;
    return fz_act(req, FZ_ON_BODY);
}

static int fz_handler(empm_request *req, void *user)
{
    (void)user;
    return fz_act(req, FZ_HANDLER);
}

static const empm_route fz_routes[] = {
    EMPM_ROUTE_WITH("GET /api/{id}",  fz_handler, NULL, fz_on_head, NULL,
                    -1, 0, 0),
    EMPM_ROUTE_WITH("POST /api/{id}", fz_handler, NULL, fz_on_head, fz_on_body,
                    -1, 0, 0),
    EMPM_ROUTE("GET /hello",          h_hello,    NULL),
    EMPM_ROUTE("POST /echo",          h_echo,     NULL),
    EMPM_ROUTE_WITH("POST /piped",    h_end,      NULL, NULL, p_echo, 0, 0, 0),
    EMPM_ROUTE("GET /server-status",  empm_status_page, NULL),
    EMPM_FILES("GET /files/",         NULL),
    EMPM_ROUTES_END
};

/* --- a connection without threads
 * ------------------------------------------ */

static fixture fz_fixture;
static empm__engine *fz_engine;

typedef struct fz_link {
    uint32_t i;                     /* its record, */
    uint16_t gen;                   /* and which use of it */
    int      fd;                    /* our end; -1: left */
    int      ended;                 /* the server has said that it is all */
    str      in;                    /* what has come */
} fz_link;

static void fz_up(void)
{
    char path[400];
    empm__report rep;
    int i;

    if (fz_engine != NULL)
        return;
    memset(&rep, 0, sizeof rep);
    signal(SIGPIPE, SIG_IGN);           /* as for workers, which block it */
    fx_init(&fz_fixture);
    fz_fixture.cfg.routes = fz_routes;
    fz_fixture.cfg.processes = 0;
    fz_fixture.cfg.threads_per_child = 1;
    fz_fixture.cfg.max_open_connections = 8;
    fz_fixture.cfg.max_keep_alive_requests = 0;
    fz_fixture.cfg.log_level = EMPM_LOG_EMERG;
    if (empm__server_new(&fz_fixture.cfg, 0, NULL, &rep, &fz_fixture.s) < 0 ||
        empm__engine_init(&fz_fixture.s->engine, fz_fixture.s, 0, 0) < 0) {
        printf("no server to fuzz\n");
        exit(2);
    }
    fz_engine = &fz_fixture.s->engine;
    for (i = 0; i < 2; i++) {
        static char bytes[300001];
        FILE *f;
        snprintf(path, sizeof path, "%.300s/www/%s", g_tmp, fz_file_names[i]);
        f = fopen(path, "rb");
        if (f != NULL) {
            str_add(&fz.files[i], bytes, fread(bytes, 1, sizeof bytes, f));
            fclose(f);
        }
    }
}

static void fz_down(void)
{
    int i;

    if (fz_engine == NULL)
        return;
    for (i = 0; i < fz_engine->nworkers; i++) {
        empm__pages_free(fz_engine->workers[i].pages);
        EMPM_FREE(fz_engine->workers[i].scratch);
    }
    empm__engine_free(fz_engine);
    empm__server_free(fz_fixture.s);
    fx_close_files(&fz_fixture);
    fz_engine = NULL;
    signal(SIGPIPE, SIG_DFL);
    for (i = 0; i < 2; i++)
        str_free(&fz.files[i]);
    for (i = 0; i < FZ_REQUESTS; i++)
        str_free(&fz.req[i].body);
}

static int fz_alive(const fz_link *l)
{
    const empm__conn *c = empm__slab_conn(&fz_engine->slab, l->i);

    return c->protocol != EMPM__FREE && c->gen == l->gen;
}

/* The listener sees `ready` at the connection; a worker runs what it takes. */
static void fz_poke(fz_link *l, uint32_t ready)
{
    empm__batch b;

    if (!fz_alive(l))
        return;
    if (ready != 0 && empm__listener_take(fz_engine, l->i, ready,
                                          empm__now_ms()))
        empm__conn_run(&fz_engine->workers[0], l->i);
    memset(&b, 0, sizeof b);
    b.head = b.tail = EMPM__NIL;
    b.now_us = empm__now_us();
    b.now_ms = empm__time_us_to_ms(b.now_us);
    empm__listener_drain_inbox(fz_engine, &b);
    while (b.head != EMPM__NIL) {
        const uint32_t i = b.head;
        b.head = empm__slab_conn(&fz_engine->slab, i)->queue_next;
        empm__conn_run(&fz_engine->workers[0], i);
    }
}

/* Reads at most n bytes of what is there; how many. */
static size_t fz_read(fz_link *l, size_t n)
{
    static char buf[262144];
    size_t got = 0;

    while (l->fd >= 0 && got < n) {
        const size_t most = n - got < sizeof buf ? n - got : sizeof buf;
        ssize_t k = recv(l->fd, buf, most, MSG_DONTWAIT);
        l->ended |= k == 0 && most != 0;
        if (k <= 0)
            break;
        str_add(&l->in, buf, (size_t)k);
        got += (size_t)k;
    }
    return got;
}

static void fz_open(fz_link *l, int send_buffer)
{
    int pair[2];
    uint32_t i;

    memset(l, 0, sizeof *l);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
        perror("socketpair");
        exit(2);
    }
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    if (send_buffer > 0)
        setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &send_buffer,
                   sizeof send_buffer);
    fz_engine->paused = 0;
    empm__listener_admit(fz_engine, pair[0], 0, NULL, NULL, empm__now_ms());
    for (i = 0; i < fz_engine->slab.made; i++)
        if (empm__slab_conn(&fz_engine->slab, i)->protocol != EMPM__FREE)
            break;
    l->i = i;
    l->gen = empm__slab_conn(&fz_engine->slab, i)->gen;
    l->fd = pair[1];
    str_add(&l->in, "", 0);
}

/* Sends the bytes in pieces of `step` (0: as many as fit), and reads meanwhile
 * if `reads`. */
static void fz_send(fz_link *l, const char *p, size_t n, size_t step, int reads)
{
    int idle = 0;

    while (n != 0 && idle < 3 && fz_alive(l)) {
        ssize_t k = send(l->fd, p, step != 0 && step < n ? step : n,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (k > 0) {
            p += k;
            n -= (size_t)k;
        } else if (errno != EAGAIN) {
            return;
        }
        idle = k > 0 ? 0 : idle + 1;
        fz_poke(l, EMPM__READY_IN);
        if (reads && fz_read(l, (size_t)-1) != 0)
            fz_poke(l, EMPM__READY_OUT);
    }
}

/* Reads until nothing more comes. */
static void fz_settle(fz_link *l)
{
    int idle;

    for (idle = 0; idle < 3 && fz_alive(l); idle++) {
        fz_poke(l, EMPM__READY_OUT | EMPM__READY_IN);
        if (fz_read(l, (size_t)-1) != 0)
            idle = 0;
    }
    fz_read(l, (size_t)-1);
}

/* The client is gone; the record must go, too, and return what it had. */
static void fz_close(fz_link *l)
{
    int i;

    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
    for (i = 0; i < 100 && fz_alive(l); i++)
        fz_poke(l, EMPM__READY_HUP | EMPM__READY_RDHUP | EMPM__READY_IN |
                   EMPM__READY_OUT);
    if (fz_alive(l)) {
        fz_fault("the connection stays when its client is gone");
        exit(1);                    /* the next case would meet it */
    }
    if (fz_engine->pool.body_memory != 0 ||
        fz_engine->pool.spool[EMPM__FOR_BODIES] != 0 ||
        fz_engine->pool.spool[EMPM__FOR_ANSWERS] != 0 ||
        fz_engine->pool.files[EMPM__FOR_BODIES] != 0)
        fz_fault("body memory, spool bytes or descriptors are not given back");
}

/* --- what comes back
 * ------------------------------------------------------- */

typedef struct fz_answer {
    int    status, closes, whole;
    size_t body;                    /* its bytes, unframed, are moved to here */
    size_t n, end;
} fz_answer;

static const char *fz_field(const char *head, const char *end, const char *name)
{
    const size_t n = strlen(name);

    for (; head < end; head++)
        if (head[0] == '\n' && (size_t)(end - head) > n + 1 &&
            strncasecmp(head + 1, name, n) == 0 && head[n + 1] == ':')
            return head + n + 2 + strspn(head + n + 2, " ");
    return NULL;
}

/* Takes the answer at `at` apart, in place. 0: nothing is there; -1: a fault;
 * else the answer is filled in, and is whole or ends with the input. */
static int fz_take(str *in, size_t at, int head_request, fz_answer *a)
{
    char *p = in->p + at, *end = in->p + in->n, *e = NULL, *q;
    const char *length, *coding;

    memset(a, 0, sizeof *a);
    if (p == end)
        return 0;
    for (q = p; q + 4 <= end && e == NULL; q++)
        if (memcmp(q, "\r\n\r\n", 4) == 0)
            e = q + 4;
    a->end = in->n;
    if ((size_t)(end - p) >= 9 && memcmp(p, "HTTP/1.1 ", 9) != 0) {
        fz_fault("no status line but \"%.60s\"", p);
        return -1;
    }
    if (e == NULL)
        return 1;                    /* cut in its head */
    a->status = (int)strtol(p + 9, NULL, 10);
    for (q = p; q < e; q++)
        if ((unsigned char)*q < 32 && *q != '\r' && *q != '\n' && *q != '\t')
            fz_fault("a control character in a head");
    length = fz_field(p, e, "Content-Length");
    coding = fz_field(p, e, "Transfer-Encoding");
    q = (char *)(uintptr_t)fz_field(p, e, "Connection");
    a->closes = q != NULL && strncasecmp(q, "close", 5) == 0;
    if (length != NULL && coding != NULL)
        fz_fault("a length and a coding");
    if (length != NULL && (a->status < 200 || a->status == 204))
        fz_fault("a length with %d", a->status);
    a->body = (size_t)(e - in->p);
    if (head_request || a->status < 200 || a->status == 204 ||
        a->status == 304) {
        a->end = a->body;
        a->whole = 1;
    } else if (coding != NULL) {
        char *to = e;
        for (q = e; q < end;) {
            char *stop;
            size_t k = (size_t)strtoul(q, &stop, 16);
            if (stop + 2 > end)
                break;
            if (stop == q || memcmp(stop, "\r\n", 2) != 0) {
                fz_fault("no chunk but \"%.40s\"", q);
                return -1;
            }
            q = stop + 2;
            if (k == 0) {
                if (q + 2 > end)
                    break;
                if (memcmp(q, "\r\n", 2) != 0) {
                    fz_fault("no end of a chunked body but \"%.40s\"", q);
                    return -1;
                }
                a->end = (size_t)(q + 2 - in->p);
                a->whole = 1;
                break;
            }
            if (k > (size_t)(end - q)) {
                memmove(to, q, (size_t)(end - q));
                a->n += (size_t)(end - q);
                break;
            }
            memmove(to, q, k);
            to += k;
            a->n += k;
            q += k;
            if (q + 2 <= end && memcmp(q, "\r\n", 2) != 0) {
                fz_fault("no CRLF after a chunk");
                return -1;
            }
            q += 2;
        }
    } else if (length != NULL) {
        const size_t k = (size_t)strtoull(length, NULL, 10);
        a->whole = k <= (size_t)(end - e);
        a->n = a->whole ? k : (size_t)(end - e);
        a->end = a->body + a->n;
    } else {
        if (!a->closes)
            fz_fault("a body without length or close: %.60s", p);
        a->n = (size_t)(end - e);
        a->whole = 1;
    }
    return 1;
}

/* The next final answer from *at on; interim ones are passed over. */
static int fz_next(str *in, size_t *at, int head_request, fz_answer *a)
{
    int r;

    do {
        r = fz_take(in, *at, head_request, a);
        if (r > 0)
            *at = a->end;
    } while (r > 0 && a->whole && a->status < 200);
    return r;
}

/* --- the target api
 * --------------------------------------------------------- */

/* Holds the answer against what its program has done. */
static void fz_judge(const str *in, const fz_answer *a, int id, int cut)
{
    const fz_request *r = &fz.req[id];
    const char *want = r->body.p != NULL ? r->body.p : "";
    const int wanted = r->returned ? r->returned : r->set ? r->set : 200;
    size_t n = r->body.n;

    if (r->file) {
        want = fz.files[r->file - 1].p;
        n = fz.files[r->file - 1].n;
    }
    if (a->status == 206) {
        if (!r->range || !r->file || wanted != 200)
            fz_fault("206 for /api/%d", id);
        want += 2;
        n = 4;
    } else if (a->status != 0 && a->status != r->set && a->status != 200 &&
               a->status != r->returned && !r->any_text && !r->may_be_cut &&
               a->status != 500 && !(r->file && a->status == 304 && r->cond)) {
        fz_fault("/api/%d is answered %d, its program said %d", id, a->status,
                 wanted);
    }
    if (!a->whole) {
        if (!cut && !r->may_be_cut && !(r->declared >= 0 &&
                                        (int64_t)n != r->declared))
            fz_fault("the answer of /api/%d is cut, %lu of %lu bytes", id,
                     (unsigned long)a->n, (unsigned long)n);
        if (a->status == 0 || r->any_text || a->status >= 400)
            return;
        if (a->n > n || memcmp(in->p + a->body, want, a->n) != 0)
            fz_fault("the part of /api/%d that came is not what was written",
                     id);
        return;
    }
    if (r->head || a->status == 204 || a->status == 304 || r->any_text ||
        a->status == 500 || (r->file && r->returned >= 400) ||
        (n == 0 && (r->returned || a->status >= 400)))
        return;                          /* it has no body, or the kit's text */
    if (a->n != n || memcmp(in->p + a->body, want, n) != 0)
        fz_fault("the body of /api/%d (status %d) has %lu bytes, written were "
                 "%lu", id, a->status, (unsigned long)a->n, (unsigned long)n);
}

static int fuzz_api(const uint8_t *data, size_t size)
{
    fz_link l;
    fz_answer a;
    str out;
    size_t at = 0, first;
    int i, n, left = 0, cut;

    fz_up();
    fz_data = data;
    fz_left = size;
    fz.waits = fz.defers = fz.deferred = 0;
    fz.ticket = 0;
    memset(fz.wait, 0, sizeof fz.wait);
    memset(&out, 0, sizeof out);
    n = (int)fz_pick(FZ_REQUESTS) + 1;
    for (i = 0; i < n; i++) {
        fz_request *r = &fz.req[i];
        const unsigned kind = fz_pick(5), body = kind == 4 ? fz_pick(200) : 0;
        str_free(&r->body);
        memset(r, 0, sizeof *r);
        r->declared = -1;
        r->head = kind == 1;
        r->range = kind == 2;
        r->cond = kind == 3 && fz_pick(2);
        str_addf(&out, "%s /api/%d HTTP/1.1\r\nHost: a\r\n%s%s",
                 r->head ? "HEAD" : kind == 4 ? "POST" : "GET", i,
                 r->range ? "Range: bytes=2-5\r\n" : "",
                 r->cond ? "If-None-Match: *\r\n" : "");
        if (kind == 4)
            str_addf(&out, "Content-Length: %u\r\n", body);
        str_addf(&out, "\r\n");
        str_fill(&out, 'q', body);
    }
    fz_say("%s\n", out.p);
    fz_open(&l, fz_pick(2) ? 4608 : 0);
    first = fz_pick(2) ? out.n : fz_pick(256) * out.n / 256;
    fz_send(&l, out.p, first, 0, (int)fz_pick(2));
    for (i = 0; i < 12 && fz_alive(&l) && !left; i++)
        switch (fz_pick(8)) {
        case 0: case 1: fz_poke(&l, EMPM__READY_IN);                  break;
        case 2:         fz_poke(&l, EMPM__READY_OUT);                 break;
        case 3:         fz_read(&l, fz_pick(256) * 64);               break;
        case 4:         fz_read(&l, (size_t)-1);                      break;
        case 5: case 6:
            if (fz.ticket != 0)
                empm_resume(fz_fixture.s, fz.ticket);
            fz_poke(&l, 0);
            break;
        case 7:                         /* it leaves, with or without a word */
            if (fz_pick(3) == 0)
                break;
            left = 1;
            fz_say("the client leaves\n");
            close(l.fd);
            l.fd = -1;
            if (fz_pick(2) && fz.ticket != 0)
                empm_resume(fz_fixture.s, fz.ticket);
            fz_poke(&l, 0);
            break;
        }
    if (!left) {                        /* a patient end: all is answered */
        fz_send(&l, out.p + first, out.n - first, 0, 1);
        for (i = 0; i < 40; i++) {
            fz_settle(&l);
            if (fz.ticket != 0)
                empm_resume(fz_fixture.s, fz.ticket);
            fz_poke(&l, 0);
        }
        fz_settle(&l);
    }
    cut = left;
    for (i = 0; i < n; i++) {
        const int got = fz_next(&l.in, &at, fz.req[i].head, &a);
        if (got < 0)
            break;
        if (got == 0) {
            if (!left && !fz.req[i].may_be_cut && !l.ended)
                fz_fault("/api/%d has no answer", i);
            break;
        }
        fz_judge(&l.in, &a, i, cut);
        if (!a.whole || a.closes || fz_faults)
            break;
    }
    if (fz_faults == 0 && at != l.in.n)
        fz_fault("%lu bytes that belong to no answer: \"%.40s\"",
                 (unsigned long)(l.in.n - at), l.in.p + at);
    fz_close(&l);
    for (i = 0; i < fz.waits; i++)
        if (fz.wait[i].calls != fz.wait[i].entered)
            fz_fault("suspension %d was entered %d times, its function called "
                     "%d times", i, fz.wait[i].entered, fz.wait[i].calls);
    if (fz.defers != fz.deferred)
        fz_fault("%d of %d deferred calls", fz.deferred, fz.defers);
    str_free(&out);
    str_free(&l.in);
    return 0;
}

/* --- the target conn
 * -------------------------------------------------------- */

/* The model: lines, and what they do to the answer. What the parser takes or
 * refuses is one row here. */
static const struct { const char *method, *target; int status; } fz_lines[] = {
    { "GET",  "/hello",        200 }, { "HEAD", "/hello",           200 },
    { "POST", "/echo",         200 }, { "POST", "/piped",           200 },
    { "GET",  "/none",         404 }, { "PUT",  "/hello",           405 },
    { "GET",  "/files/a.txt",  200 }, { "HEAD", "/files/a.txt",     200 },
    { "GET",  "/files/no",     404 }, { "GET",  "/hello?a=%20b",    200 },
    { "GET",  "/%68ello",      200 }, { "GET",  "/hel%00lo",        400 },
    { "GET",  "/../hello",     400 }, { "GET",  "http://a/hello",   200 },
    { "GET",  "/server-status", 200 }, { "GET", "/hello%",          400 },
    { "GET",  "/./hello",      200 }, { "GET",  "/x/../hello",      200 },
    { "GET",  "//hello",       200 }, { "GET",  "/hello#part",      200 },
    { "GET",  "/hello?\xe4",   200 }, { "GET",  "/%2e%2e/hello",    400 },
};

enum { FZ_NOTHING, FZ_LENGTH, FZ_CHUNKED, FZ_CLOSE, FZ_REFUSED };

static const struct { const char *line; int does; int value; } fz_fields[] = {
    { "X-A: b",                    FZ_NOTHING, 0 },
    { "Accept: */*",               FZ_NOTHING, 0 },
    { "Cookie: a=b; c",            FZ_NOTHING, 0 },
    { "Connection: close",         FZ_CLOSE, 0 },
    { "Content-Length: 0",         FZ_LENGTH, 0 },
    { "Content-Length: 5",         FZ_LENGTH, 5 },
    { "Content-Length: 900",       FZ_LENGTH, 900 },
    { "Transfer-Encoding: chunked", FZ_CHUNKED, 0 },
    { "transfer-encoding:Chunked", FZ_CHUNKED, 0 },
    { "Content-Length: +5",        FZ_REFUSED, 400 },
    { "Content-Length: 5, 6",      FZ_REFUSED, 400 },
    { "Content-Length : 5",        FZ_REFUSED, 400 },
    { "Transfer-Encoding: chunked, chunked", FZ_REFUSED, 400 },
    { " folded",                   FZ_REFUSED, 400 },
    { "no colon",                  FZ_REFUSED, 400 },
    { "Host: b",                   FZ_REFUSED, 400 },
    { "Expect: what",              FZ_REFUSED, 417 },
    { "Content-Length: 005",       FZ_LENGTH, 5 },
    { "Transfer-Encoding: ,chunked", FZ_CHUNKED, 0 },
    { "Transfer-Encoding: gzip",   FZ_REFUSED, 400 },
    { "Expect:",                   FZ_NOTHING, 0 },
};

static const char *const fz_chunk_ends[] = {
    "", ";a", ";a=b", ";a=\"b;\\\"c\"",
    " ; a = b", "\t;a",
};

/* Pieces of the language, for input that no model follows. */
static const char *const fz_words[] = {
    "GET ", "HEAD ", "POST ", "/hello", "/echo", "/piped", "/files/a.txt",
    " HTTP/1.1", " HTTP/1.0", "\r\n", "\r\n\r\n", "\n", "\r", "Host: a\r\n",
    "Content-Length: ", "Transfer-Encoding: ", "chunked", "0\r\n\r\n", "5\r\n",
    "hello", "Connection: ", "close", "keep-alive", "Range: bytes=", "0-3",
    "-5",
    ",", ";", "=", "\"", " ", "\t", "If-None-Match: ", "W/\"x\"", "*", "%2f",
    "%", "..", "/", "\xff", "Expect: 100-continue\r\n", "GET /hello "
    "HTTP/1.1\r\nHost: a\r\n\r\n", "If-Modified-Since: ", "Sun, 06 Nov 1994 "
    "08:49:37 GMT",
    "Cookie: a=b", "?a=b&c=%zz", "http://", "[::1]", ":80", "7fffffffffffffff",
    "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
};

typedef struct fz_want {
    int status, head, closes;       /* 0: any status */
} fz_want;

/* Writes one request of the model; returns 0 after one that ends all. */
static int fz_compose(str *out, fz_want *w)
{
    const unsigned line = fz_pick(sizeof fz_lines / sizeof fz_lines[0]);
    unsigned k = fz_pick(4), f;
    int framed = FZ_NOTHING, len = 0, refused = 0;

    w->status = fz_lines[line].status;
    w->head = strcmp(fz_lines[line].method, "HEAD") == 0;
    w->closes = 0;
    str_addf(out, "%s %s HTTP/1.1\r\nHost: a\r\n", fz_lines[line].method,
             fz_lines[line].target);
    while (k-- != 0) {
        f = fz_pick(sizeof fz_fields / sizeof fz_fields[0]);
        if (refused || (framed && fz_fields[f].does != FZ_NOTHING))
            continue;                    /* one of them is enough of a model */
        str_addf(out, "%s\r\n", fz_fields[f].line);
        switch (fz_fields[f].does) {
        case FZ_CLOSE:
            w->closes = 1;
            break;
        case FZ_REFUSED:
            refused = fz_fields[f].value;
            break;
        case FZ_LENGTH: case FZ_CHUNKED:
            framed = fz_fields[f].does;
            len = fz_fields[f].value;
            break;
        }
    }
    str_addf(out, "\r\n");
    if (framed == FZ_LENGTH) {
        str_fill(out, 'b', (size_t)len);
    } else if (framed == FZ_CHUNKED) {
        for (k = fz_pick(4); k != 0; k--) {
            len = (int)fz_pick(250) + 1;
            str_addf(out, "%x%s\r\n", (unsigned)len, fz_chunk_ends[
                     fz_pick(sizeof fz_chunk_ends / sizeof fz_chunk_ends[0])]);
            str_fill(out, 'c', (size_t)len);
            str_addf(out, "\r\n");
        }
        str_addf(out, "0\r\n%s\r\n", fz_pick(2) ? "X-T: y\r\n" : "");
    }
    if (refused == 417 && w->status >= 400)
        w->status = 0;                   /* either of them may be seen first */
    else if (refused)
        w->status = refused;
    return !refused && !w->closes && w->status < 400;
}

/* One connection with this input; the answers' statuses. */
static int fz_converse(const str *out, size_t step, const fz_want *want, int n,
                       int may_head, int *statuses, int most)
{
    fz_link l;
    fz_answer a;
    size_t at = 0;
    int i, got = 1;

    fz_open(&l, 0);
    fz_send(&l, out->p, out->n, step, 1);
    fz_settle(&l);
    for (i = 0; i < most; i++) {
        int head = want != NULL && i < n ? want[i].head : 0;
        if (want == NULL && may_head) {  /* a length, and no such body */
            const char *e = NULL;
            if (at < l.in.n)
                e = strstr(l.in.p + at, "\r\n\r\n");
            head = e != NULL && (e[4] == 0 || strncmp(e + 4, "HTTP/1.1 ",
                                                      9) == 0)
                   && strncmp(l.in.p + at, "HTTP/1.1 1", 10) != 0;
        }
        got = fz_next(&l.in, &at, head, &a);
        if (got <= 0)
            break;
        statuses[i] = a.status;
        if (want != NULL && i < n && want[i].status != 0 &&
            a.status != want[i].status)
            fz_fault("answer %d is %d, not %d", i, a.status, want[i].status);
        if (want != NULL && i >= n)
            fz_fault("an answer that nobody has asked for: %d", a.status);
        if (!a.whole && get_int(&a_fail_at) == 0)
            fz_fault("answer %d is cut", i);
        if (!a.whole || a.closes || fz_faults) {
            if (fz_faults == 0 && a.whole && at != l.in.n)
                fz_fault("bytes after the last answer");
            i++;
            break;
        }
    }
    if (want != NULL && got == 0 && i < n && fz_faults == 0 &&
        get_int(&a_fail_at) == 0)
        fz_fault("%d answers to %d requests", i, n);
    if (fz_faults != 0 && want != NULL)
        printf("--- sent\n%.1500s\n--- received\n%.1500s\n", out->p, l.in.p);
    fz_close(&l);
    str_free(&l.in);
    return i;
}

static int fz_conn(int oom)
{
    enum { MOST = 200 };
    fz_want want[8];
    int one[MOST], two[MOST], n = 0, k, i, m, modelled, may_head;
    size_t step;
    str out;

    fz_up();
    memset(&out, 0, sizeof out);
    modelled = fz_pick(3) != 1;
    step = fz_pick(70) + 1;
    if (modelled) {
        while (n < 8 && (n == 0 || fz_left != 0))
            if (!fz_compose(&out, &want[n++]))
                break;
    } else {
        while (fz_left != 0) {
            const unsigned w = fz_byte();
            const unsigned all = sizeof fz_words / sizeof fz_words[0];
            const char ch = (char)fz_byte();
            if (w < 4 * all)
                str_addf(&out, "%s", fz_words[w % all]);
            else
                str_add(&out, &ch, 1);
        }
        str_add(&out, "", 0);
    }
    may_head = find_bytes(&out, "HEAD", 4) != (size_t)-1;
    /* each allocation fails, one at a time */
    if (oom) {
        for (i = 1; i < 60; i++) {
            empm__worker *w = &fz_engine->workers[0];
            empm__pages_free(w->pages);  /* what is kept would hide some */
            w->pages = NULL;
            w->pages_count = 0;
            empm__pages_free(fz_engine->pool.free);
            fz_engine->pool.free = NULL;
            fz_engine->pool.count = 0;
            set_int(&a_failed, 0);
            set_int(&a_fail_at, i);
            fz_converse(&out, step, NULL, 0, 1, one, MOST);
            set_int(&a_fail_at, 0);
            if (get_int(&a_failed) == 0)
                break;
        }
    } else {
        k = fz_converse(&out, 0, modelled ? want : NULL, n, may_head, one,
                        MOST);
        m = fz_converse(&out, step, modelled ? want : NULL, n, may_head, two,
                        MOST);
        for (i = 0; i < k && i < m; i++) /* how it is cut must not matter */
            if (one[i] != two[i]) {
                fz_fault("answer %d is %d, and %d in pieces of %lu", i, one[i],
                         two[i], (unsigned long)step);
                break;
            }
    }
    str_free(&out);
    return 0;
}

static int fuzz_conn(const uint8_t *data, size_t size)
{
    fz_data = data;
    fz_left = size;
    return fz_conn(0);
}

static int fuzz_oom(const uint8_t *data, size_t size)
{
    fz_data = data;
    fz_left = size < 40 ? size : 40;     /* it is run for each allocation */
    return fz_conn(1);
}

/* --- the target route
 * -------------------------------------------------------- */

enum { FZ_PATTERNS = 7, FZ_SEGMENTS = 5 };

typedef struct fz_pattern {
    char        text[80];
    const char *method;
    int         n, kind[FZ_SEGMENTS];    /* 0, 1: that letter; ONE, REST, END */
} fz_pattern;

enum { FZ_ONE = 2, FZ_REST, FZ_END };

/* Does the pattern serve these segments (-1: an empty one)? */
static int fz_serves(const fz_pattern *p, const int *seg, int n)
{
    int i;

    for (i = 0; i < p->n; i++) {
        if (p->kind[i] == FZ_REST)
            return i < n;
        if (i >= n || (p->kind[i] == FZ_ONE && seg[i] < 0) ||
            (p->kind[i] == FZ_END && seg[i] >= 0) ||
            (p->kind[i] < FZ_ONE && p->kind[i] != seg[i]))
            return 0;
    }
    return i == n;
}

/* How near the pattern's method is: 0 not at all, 3 the same. */
static int fz_nearness(const fz_pattern *p, const char *method)
{
    if (strcmp(p->method, method) == 0)
        return 3;
    if (strcmp(p->method, "GET") == 0 && strcmp(method, "HEAD") == 0)
        return 2;
    return *p->method == 0;
}

/* Of two that serve the same path, is `a` the more specific? */
static int fz_before(const fz_pattern *a, const fz_pattern *b,
                     const char *method)
{
    int i;

    for (i = 0; i < a->n && i < b->n; i++) {
        const int x = a->kind[i], y = b->kind[i];
        const int rx = x < FZ_ONE || x == FZ_END ? 0 : x == FZ_ONE ? 1 : 2;
        const int ry = y < FZ_ONE || y == FZ_END ? 0 : y == FZ_ONE ? 1 : 2;
        if (rx != ry)
            return rx < ry;
    }
    return fz_nearness(a, method) > fz_nearness(b, method);
}

static int fuzz_route(const uint8_t *data, size_t size)
{
    static const char *const methods[] = { "GET", "", "POST", "HEAD" };
    static const char *const segs[] = { "/a", "/b", "/{%c}", "/{%c...}", "/{$}",
                                        "/" };
    static const char *const parts[] = { "/a", "/b", "/%%61", "/c", "/",
                                        "/a%%2f" };
    static const int is[] = { 0, 1, 0, 5, -1, 6 };
    fz_pattern p[FZ_PATTERNS];
    empm_route routes_in[FZ_PATTERNS + 1], end = EMPM_ROUTES_END;
    empm__routes t;
    empm__chars chars;
    empm__report rep;
    int n, i, k, seg[FZ_SEGMENTS], nsegs;

    fz_data = data;
    fz_left = size;
    empm__chars_init(&chars);
    memset(&rep, 0, sizeof rep);
    n = (int)fz_pick(FZ_PATTERNS) + 1;
    for (i = 0; i < n; i++) {
        const empm_route one = EMPM_ROUTE("", h_hello, NULL);
        size_t at;
        p[i].method = methods[fz_pick(4)];
        at = (size_t)snprintf(p[i].text, sizeof p[i].text, "%s%s", p[i].method,
                              *p[i].method ? " " : "");
        p[i].n = 0;
        do {
            k = (int)fz_pick(6);
            at += (size_t)snprintf(p[i].text + at, sizeof p[i].text - at, "%s",
                                   "");
            if (k == FZ_ONE || k == FZ_REST)
                at += (size_t)snprintf(p[i].text + at, sizeof p[i].text - at,
                                       k == FZ_ONE ? "/{%c}" : "/{%c...}",
                                       'p' + p[i].n);
            else
                at += (size_t)snprintf(p[i].text + at, sizeof p[i].text - at,
                                       "%s", segs[k]);
            p[i].kind[p[i].n++] = k == 5 ? (int)FZ_REST : k;
        } while (k < FZ_REST && p[i].n < 3 && fz_pick(3));
        routes_in[i] = one;
        routes_in[i].pattern = p[i].text;
    }
    routes_in[n] = end;
    if (empm__routes_init(&t, routes_in, &chars, &rep) == EMPM_OK) {
        int round;
        for (round = 0; round < 8; round++) {
            char path[80], decoded[80];
            const char *method = methods[fz_pick(2) ? fz_pick(4) : 0];
            size_t at = 0;
            int best = -1;
            empm__path split;
            empm__route *got;
            if (*method == 0)
                method = "PUT";
            nsegs = 0;
            do {
                k = (int)fz_pick(6);
                at += (size_t)snprintf(path + at, sizeof path - at, parts[k],
                                       0);
                seg[nsegs++] = is[k];
            } while (k != 4 && nsegs < 4 && fz_pick(3));
            if (empm__path_split(&split, path, at, decoded) != 0) {
                fz_fault("%s is no path", path);
                break;
            }
            got = empm__route_search(&t, 0, &split, 0, method, NULL);
            for (i = 0; i < n; i++)
                if (fz_serves(&p[i], seg, nsegs) &&
                    fz_nearness(&p[i], method) &&
                    (best < 0 || fz_before(&p[i], &p[best], method)))
                    best = i;
            if (got == NULL ? best >= 0
                            : best < 0 || strcmp(got->user->pattern,
                                                 p[best].text) != 0)
                fz_fault("%s %s goes to %s, not to %s", method, path,
                         got ? got->user->pattern : "nobody",
                         best >= 0 ? p[best].text : "nobody");
        }
    }
    empm__routes_free(&t);
    return 0;
}

/* --- the target fmt
 * ---------------------------------------------------------- */

static int64_t fz_date(const char *s)
{
    return empm__date_parse(s, 0);
}

/* Whatever a text says: taken or refused, with a message that fits. */
static int fuzz_fmt(const uint8_t *data, size_t size)
{
    static const char *const words[] = {
        "%h", "%a", "%{c}a", "%t", "%{%Y-%m}t", "%{usec}t", "%r", "%>s", "%<",
            "%{",
        "}", "%400,501{User-Agent}i", "%!200", "%b", "%%", "\\t", "\\x", "\"",
        "%", "Listen ", "127.0.0.1:0", "[::1]:0", "unix:", "fd:3", " proxy", " "
        "mode=660",
        "KeepAliveTimeout ", "500ms", "5", "-1", "99999999999999999999", "on",
        "<IfModule mpm_event_module>\n", "</IfModule>\n", "#", "\\\n", "\n",
        "LogFormat ", "CustomLog /dev/null ", "${HOME}", "${", " ", "'",
        "MaxMem",
        "ServerLimit ", "Timeout ", "LimitRequestBody ", "0x10", "1e3", "k", "M"
    };
    const unsigned all = sizeof words / sizeof words[0];
    empm__access_log log;
    empm_config cfg;
    char err[64], date[30], path[400], text[300];
    size_t at = 0;
    int64_t when;
    str s;

    fz_data = data;
    fz_left = size;
    memset(&s, 0, sizeof s);
    when = (int64_t)fz_byte() << 24 | fz_byte() << 16 | fz_byte() << 8 |
           fz_byte();
    empm__format_date(date, when);
    if (strlen(date) != 29 || fz_date(date) != when)
        fz_fault("the date %s is %lld, not %lld", date,
                 (long long)fz_date(date), (long long)when);
    date[fz_pick(29)] = (char)(fz_byte() | 1);
    fz_date(date);
    while (fz_left != 0) {
        const unsigned w = fz_byte();
        const char ch = (char)fz_byte();
        if (w < 4 * all)
            str_addf(&s, "%s", words[w % all]);
        else if (ch != 0)
            str_add(&s, &ch, 1);
    }
    str_add(&s, "", 0);
    memset(&log, 0, sizeof log);
    if (empm__access_format_compile(&log, s.p, &at) != NULL && at > s.n)
        fz_fault("a fault at %lu of %lu", (unsigned long)at,
                 (unsigned long)s.n);
    EMPM_FREE(log.items);
    cfg = empm_defaults();
    memset(err, 'x', sizeof err);
    snprintf(text, sizeof text, "%.290s", s.p);
    if (empm_set(&cfg, "Listen", text, err, 40) != EMPM_OK &&
        memchr(err, 0, 40) == NULL)
        fz_fault("a message without end");
    if (err[40] != 'x')
        fz_fault("a message beyond its end");
    empm_config_free(&cfg);
    cfg = empm_defaults();
    snprintf(path, sizeof path, "%.300s/fuzz.conf", g_tmp);
    write_file(path, s.p, s.n);
    memset(err, 'x', sizeof err);
    if (empm_load(&cfg, path, err, 40) != EMPM_OK && memchr(err, 0, 40) == NULL)
        fz_fault("a message without end");
    if (err[40] != 'x')
        fz_fault("a message beyond its end");
    empm_check(&cfg, NULL, NULL);
    empm_config_free(&cfg);
    unlink(path);
    str_free(&s);
    return 0;
}

/* --- the table, and the two drivers
 * ------------------------------------------ */

static const struct fz_target {
    const char *name, *what;
    int       (*fn)(const uint8_t *data, size_t size);
} fz_targets[] = {
    { "conn",  "requests, whole and in pieces, against a model",   fuzz_conn },
    { "api",   "random handlers, clients that stall and leave",    fuzz_api },
    { "route", "patterns against a naive matcher",                 fuzz_route },
    { "fmt",   "dates, log formats, listen strings, files",        fuzz_fmt },
    { "oom",   "each allocation of a connection fails",            fuzz_oom },
    { NULL, NULL, NULL }
};

static const struct fz_target *fz_find(const char *name)
{
    const struct fz_target *t = fz_targets;

    while (t->name != NULL && strcmp(t->name, name) != 0)
        t++;
    return t->name != NULL ? t : NULL;
}

/* Draws the case of this seed and runs it; the faults. */
static int fz_case(const struct fz_target *t, unsigned long long seed)
{
    uint8_t data[400];
    uint64_t x = (uint64_t)seed * 0x9e3779b97f4a7c15u + 1;
    size_t n, i;

    x ^= x >> 31;
    x = x * 0xbf58476d1ce4e5b9u + 1;
    n = 8 + (size_t)(x >> 33) % (x & 1 ? 392 : 56);
    for (i = 0; i < n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        data[i] = (uint8_t)(x >> 56);
    }
    fz_faults = 0;
    t->fn(data, n);
    return fz_faults;
}

/* Each fuzz target runs for a moment in every run of the tests; `make fuzz`
 * has patience. */
TEST(fuzz, a_moment_of_each)
{
    const struct fz_target *t;
    int seed;

    for (t = fz_targets; t->name != NULL; t++) {
        for (seed = 1; seed <= 300 / g_slow; seed++) {
            context("--fuzz %s --seed %d --runs 1", t->name, seed);
            if (!CHECK_INT(fz_case(t, (unsigned long long)seed), 0))
                break;
        }
    }
    no_context();
    fz_down();
}

/* --fuzz TARGET [--seconds N] [--seed S] [--runs N]: a process of its own, so
 * that one that dies has its case named, too. */
static int fz_main(const char *name, long seconds, unsigned long long seed,
                   long long runs)
{
    const struct fz_target *t = fz_find(name);
    unsigned long long *now = (unsigned long long *)mmap(
        NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const uint64_t end = now_ms() + (uint64_t)seconds * 1000u;
    pid_t pid;
    int st = -1;

    if (t == NULL) {
        for (t = fz_targets; t->name != NULL; t++)
            printf("%-8s%s\n", t->name, t->what);
        return 2;
    }
    if (now == MAP_FAILED) {
        perror("mmap");
        return 2;
    }
    *now = seed;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        int bad = 0;
        for (; !bad && (runs > 0 ? *now - seed < (unsigned long long)runs
                                 : now_ms() < end); ++*now)
            bad = fz_case(t, *now) != 0;
        *now -= (unsigned long long)bad;
        fz_down();
        exit(bad);
    }
    while (waitpid(pid, &st, 0) < 0 && errno == EINTR)
        continue;
    if (st != 0)
        printf("FAILED  --fuzz %s --seed %llu --runs 1\n", name, *now);
    else
        printf("ok      %s: %llu cases from seed %llu on\n", name, *now - seed,
               seed);
    printf("%d passed, %d failed\n", st == 0, st != 0);
    munmap(now, 4096);
    return st != 0;
}

/* ---------------------------------------------------------------------------
 * >>main -- picks, runs, counts
 * ------------------------------------------------------------------------- */

static int g_passed, g_failed, g_skipped;

static void *do_nothing(void *arg)
{
    return arg;
}

/* What every test promises to leave as it was. */
static void check_leftovers(int fds, int threads, int live)
{
    int st;
    long kids[16];
    int n, i;

    if (fds >= 0) {
        CHECK_SOON(open_fds() <= fds, 1000);
        if (open_fds() > fds)
            CHECK_INT(open_fds(), fds);
    }
    if (threads >= 0)
        CHECK_SOON(threads_now() <= threads, 1000);
    CHECK_INT(get_int(&a_live), live);
    while (waitpid(-1, &st, WNOHANG) > 0)
        continue;
    n = children_of((long)getpid(), kids, 16);
    for (i = 0; i < n; i++)
        if (n > (g_watch_fd >= 0)) {
            fail(__FILE__, __LINE__, "process %ld is still there", kids[i]);
        }
}

/* A word at each section, so that a long run is never silent. */
static void say_section(const test *t)
{
    static const char *said;

    if (said == NULL || strcmp(said, t->section) != 0)
        printf(">>%s\n", t->section);
    said = t->section;
    fflush(stdout);
}

static void run_one(const test *t, int forked)
{
    char name[128];
    int fds = open_fds(), threads = threads_now(), live = get_int(&a_live);
    uint64_t t0 = now_ms();

    snprintf(name, sizeof name, "%s.%s%s", t->section, t->name,
             forked ? "+fork" : "");
    g_forked = forked;
    g_skip = NULL;
    g_context[0] = 0;
    set_int(&g_failures, 0);
    set_int(&g_printed, 0);
    memset(shm, 0, sizeof *shm);
    watchdog_set(name, (t->flags & T_LONG ? 300000 : 60000) *
                       (g_slow > 1 ? 3 : 1));
    t->fn();
    g_context[0] = 0;
    if (g_skip == NULL)
        check_leftovers(fds, threads, live);
    watchdog_set("", 0);
    set_int(&a_live, 0);
    if (get_int(&g_failures) != 0) {
        printf("FAILED  %s (%d checks, %d ms)\n", name, get_int(&g_failures),
               (int)(now_ms() - t0));
        g_failed++;
    } else if (g_skip != NULL) {
        printf("skipped %s: %s\n", name, g_skip);
        g_skipped++;
    } else {
        if (g_verbose)
            printf("ok      %s (%d ms)\n", name, (int)(now_ms() - t0));
        g_passed++;
    }
    fflush(stdout);
}

static int is_slow_here(void)
{
    const char *p = getenv("EMPM_TEST_SLOW");

    if (p != NULL)
        return (int)strtol(p, NULL, 10);
    p = getenv("LD_PRELOAD");
    if (p != NULL && strstr(p, "vgpreload") != NULL)
        return 8;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    return 4;
#elif defined(__has_feature)
#  if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
    return 4;
#  endif
#endif
    return 1;
}

static int is_picked(const test *t, const char *name, int argc, char **argv)
{
    int i;

    for (i = 1; i < argc; i++)
        if (argv[i][0] != '-' && strcmp(argv[i], "all") != 0 &&
            (strstr(name, argv[i]) != NULL ||
             (strcmp(argv[i], "long") == 0 && (t->flags & T_LONG))))
            return 1;
    return 0;
}

static char g_other;                 /* see program_changes() */

static int program_child_start(empm_server *s, void *user)
{
    (void)user;
    if (g_other == 'h' && s->engine.slot == 1)
        nap(60000);
    return 0;
}

/* A server for >>operate, with its options. */
static int program_main(int argc, char **argv)
{
    static const empm_route program_routes[] = {
        EMPM_ROUTE("GET /hello", h_hello, NULL),
        EMPM_ROUTE("GET /cwd",   h_cwd,   NULL),
        EMPM_ROUTE("GET /sleep", h_sleep, NULL),
        EMPM_ROUTE("GET /log",   h_log,   EMPM_TEXT("stderr")),
        EMPM_ROUTES_END
    };
    empm_config cfg = empm_defaults();
    const char *other = getenv("EMPM_TEST_OTHER");
    int fd = other != NULL ? open(other, O_RDONLY) : -1;

    shm = (shared *)calloc(1, sizeof *shm);
    if (fd >= 0) {
        if (read(fd, &g_other, 1) == 1 && g_other == 'a')
            unsetenv("EMPM_EXCHANGE");
        close(fd);
    }
    cfg.on_child_start = program_child_start;
    cfg.routes = program_routes;
    return empm_main(&cfg, argc, argv);
}

/* Makes our directory and all that tests share. */
static int set_up(int watched)
{
    const char *base = getenv("TMPDIR");
    struct rlimit r;
    pthread_t th;

    g_slow = is_slow_here();
    if (watched)
        watchdog_start();
#if defined(__linux__) && defined(PR_SET_CHILD_SUBREAPER)
    prctl(PR_SET_CHILD_SUBREAPER, 1);   /* so that we see orphans */
#endif
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max < 20000 ? r.rlim_max : 20000;
        setrlimit(RLIMIT_NOFILE, &r);
    }
    shm = (shared *)mmap(NULL, sizeof *shm, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(g_tmp, sizeof g_tmp, "%.200s/empm-test-XXXXXX",
             base != NULL && base[0] == '/' ? base : "/tmp");
    g_faults = (fault_plan *)mmap(NULL, sizeof *g_faults,
                                  PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shm == (shared *)MAP_FAILED || g_faults == (fault_plan *)MAP_FAILED ||
        mkdtemp(g_tmp) == NULL) {
        perror("cannot set up");
        return -1;
    }
    make_tree();
    /* a sanitizer's own thread begins here */
    if (pthread_create(&th, NULL, do_nothing, NULL) == 0)
        pthread_join(th, NULL);
    return 0;
}

static void tear_down(void)
{
    remove_tree(g_tmp);
    munmap(shm, sizeof *shm);
    munmap(g_faults, sizeof *g_faults);
    g_faults = NULL;
}

#ifdef EMPM_FUZZ

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fz_target *t;

    if (t == NULL) {
        const char *name = getenv("FUZZ");
        t = fz_find(name != NULL ? name : "conn");
        if (t == NULL || set_up(0) != 0)
            exit(2);
        atexit(tear_down);
    }
    fz_faults = 0;
    t->fn(data, size);
    if (fz_faults != 0)
        abort();                     /* libFuzzer keeps the input */
    return 0;
}

#else

int main(int argc, char **argv)
{
    const test *t;
    const char *fuzz = NULL;
    unsigned long long seed = 1;
    long long runs = 0;
    long seconds = 60;
    int i, list = 0, with_long = 0, words = 0, forked;

    if (getenv("EMPM_TEST_PROGRAM") != NULL)     /* see >>operate */
        return program_main(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 8192);
    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-l") == 0)
            list = 1;
        else if (strcmp(argv[i], "-v") == 0)
            g_verbose = 1;
        else if (strcmp(argv[i], "-d") == 0)
            g_show_log = 1;
        else if (i + 1 < argc && strcmp(argv[i], "--faults") == 0)
            g_fault_rows = argv[i + 1], argv[i + 1] = argv[i], i++;
        else if (i + 1 < argc && strcmp(argv[i], "--fuzz") == 0)
            fuzz = argv[++i];
        else if (i + 1 < argc && strcmp(argv[i], "--seconds") == 0)
            seconds = strtol(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--runs") == 0)
            runs = strtoll(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--long") == 0 || strcmp(argv[i], "all") == 0)
            with_long = 1;
        else if (argv[i][0] == '-') {
            fprintf(stderr, "usage: %s [-l] [-v] [-d] [--long] [--faults all | "
                    "row] [long | part of a name ...]\n", argv[0]);
            return 2;
        } else {
            words++;
        }
    }
    if (!list && set_up(fuzz == NULL) != 0)
        return 2;
    if (fuzz != NULL) {
        int rc = fz_main(fuzz, seconds, seed, runs);
        tear_down();
        return rc;
    }
    for (t = tests_first; t != NULL; t = t->next)
        for (forked = 0; forked <= ((t->flags & T_LIVE) != 0); forked++) {
            char name[128];
            snprintf(name, sizeof name, "%s.%s%s", t->section, t->name,
                     forked ? "+fork" : "");
            if (words == 0 ? (t->flags & T_LONG) != 0 && !with_long
                           : !is_picked(t, name, argc, argv))
                continue;
            if (words == 0 && forked && g_slow >= 8)
                continue;            /* valgrind: one of the twins is enough */
            if (list)
                printf("%s%s\n", name, t->flags & T_LONG ? "  (long)" : "");
            else {
                if (words == 0)
                    say_section(t);
                run_one(t, forked);
            }
        }
    if (list)
        return 0;
    tear_down();
    printf("%d passed, %d failed, %d skipped\n", g_passed, g_failed, g_skipped);
    return g_failed != 0;
}

#endif
