/* eventmpm.h - v0.1 - an HTTP/1.1 server in one C header, with the architecture
 * of Apache's event MPM.  Licence (public domain or MIT) at the end.
 *
 * Handlers are plain blocking functions; slow and idle clients hold no thread;
 * a crash costs one child process and not the server.
 *
 * ===========================================================================
 * MANUAL
 * ===========================================================================
 *
 * Quick start: a whole program.  `cc hello.c && ./a.out`, then open
 * http://127.0.0.1:8080/hello/world
 *
 *     #define EVENTMPM_IMPLEMENTATION       // in exactly one translation unit
 *     #include "eventmpm.h"
 *
 *     static int hello(empm_request *req, void *user)
 *     {
 *         (void)user;
 *         empm_printf(req, "Hello, %s!\n", empm_path_value(req, "name"));
 *         return EMPM_OK;                   // or an HTTP status: return 404;
 *     }
 *
 *     int main(int argc, char **argv)
 *     {
 *         static const empm_route routes[] = {
 *             EMPM_ROUTE("GET /hello/{name}", hello, NULL),
 *             EMPM_FILES("GET /", "./www"),
 *             EMPM_ROUTES_END
 *         };
 *         empm_config cfg = empm_defaults();
 *         cfg.routes = routes;
 *         return empm_main(&cfg, argc, argv);
 *     }
 *
 * Contents: `grep -n '^ \* >>' eventmpm.h` prints the sections of this file.
 * At its end >>messages and >>letters explain the logs, HISTORY the versions.
 *
 * CONCEPTS
 *   process     A parent owns the listening sockets and serves nobody. It forks
 *               children; each has a listener and threads_per_child workers. A
 *               child that dies is replaced at once; the others go on. With
 *               processes = 0 the engine is threads of the calling process.
 *   listener    Accepts, waits, times out and hands over. It never reads from a
 *               client, never parses, never runs your code. It is a role: an
 *               idle worker plays it or, while all are busy, a standby thread.
 *   worker      Runs a connection until it would have to wait for the network,
 *               then gives it back. Your handler runs here and may block.
 *   connection  READ_HEAD, READ_BODY, HANDLE, WRITE, KEEPALIVE, SUSPENDED,
 *               LINGER, CLOSED: see the picture in >>conn. A connection that
 *               waits holds no worker; idle, it costs 84 bytes and a socket.
 *   one server  A request that finds all workers of its child busy moves, with
 *               its connection, to a child that has an idle one. N children of
 *               M workers serve N * M requests at a time. A connection whose
 *               request has begun, or is suspended, stays in its child.
 *
 * ROUTES  "[METHOD ]/path": literal segments, {name} for one segment, {name...}
 *   for the rest, a trailing "/" for everything below, {$} for exactly the
 *   trailing slash. A name is made of letters, digits, '_' and '-'. The most
 *   specific pattern wins, in any order; two patterns that match one request,
 *   neither of them more specific, are refused at start. GET serves HEAD too; a
 *   pattern without a method serves every method but CONNECT. The server itself
 *   answers OPTIONS, 404, 405 with Allow, and /a with a redirect to /a/.
 *     A path is made normal before it is matched: "/a/./b/../c//d" becomes
 *   "/a/c/d", also where the dots are escaped; above the root is 400.
 *
 * CONFIGURATION  Fields of empm_config are Apache's directives in snake case
 *   and mean the same. empm_set(), -c and files take Apache's spelling, so an
 *   mpm_event.conf loads as it is. `program -L` lists the directives.
 *
 *     # a comment has a line of its own; a '\' at its end continues a line
 *     Listen           127.0.0.1:8080
 *     Listen           "unix:/run/${NAME}.sock"     from the environment
 *     KeepAliveTimeout 100ms                        a bare number: seconds
 *     Include          conf.d                       a file, folder or pattern
 *     Define           NAME web                     for ${NAME}; or -D NAME
 *     <IfDefine NAME>  also <IfModule>, <IfVersion>, <IfFile>; '!' negates
 *
 *   Later beats earlier: defaults, the program's fields, the file (-f), the
 *   command line. Listen, AddType, CustomLog, LogFormat, RemoteIPTrustedProxy
 *   are lists: the entries of a file, or of a command line, replace all earlier
 *   ones. Values that Apache would adjust are adjusted with a warning; with
 *   "Strict On" they are errors. -t prints every warning, the settings that
 *   differ from their defaults and a line with the resulting sizes. A reload
 *   reads everything again; ServerLimit, ThreadLimit, SharedStoreSize stay.
 *
 * OPERATION  of empm_main() and empm_run(): a signal to the parent, or -k
 *     TERM, INT  stop           running requests end within StopTimeout
 *     QUIT, WINCH  graceful-stop  closes no idle connection, ends no suspension
 *     HUP   restart      new children read the configuration; the old ones stop
 *     USR1  graceful     the same, but the old ones drain: waiting connections
 *                        move to the new children, begun requests are finished,
 *                        at most for GracefulRestartTimeout. No client notices
 *     USR2               the program anew, on the same sockets; once it is
 *                        healthy, this one drains (empm_main() only)
 *     URG   reopen       opens ErrorLog and CustomLogs anew, by name
 *   A reload or upgrade that fails changes nothing: the old children serve on.
 *   -k graceful and -k restart start a server if none runs. At a terminal WINCH
 *   (it was resized) is ignored and HUP (it was closed) stops, unless nohup.
 *   on_reload may change a new configuration or refuse it. The parent pings its
 *   children (WatchdogInterval) and speaks systemd's protocols (readiness,
 *   reload, watchdog, sockets). A parent that root starts stays root; children
 *   become user_name, or nobody. Without children (processes = 0, -X) nothing
 *   is reloaded, upgraded or replaced; -t names the settings without effect.
 *
 * BEHIND A PROXY  Listen "8080 proxy" takes the client's address from the PROXY
 *   header of a balancer, RemoteIPHeader from a field such as X-Forwarded-For.
 *   RemoteIPTrustedProxy lists the peers that are believed. empm_client() is
 *   that address; empm_health_page() tells a balancer when to send no more.
 *
 * THREADS
 *   with an empm_request *   only the worker that runs the handler; the pointer
 *                            is invalid once the handler has returned
 *   empm_resume              any thread
 *   empm_stop, empm_stop_graceful   any thread, also in a signal handler
 *   the rest                 the thread that starts and ends the server
 *   Handlers run on several workers at once, in several processes: each child
 *   has its own copy of a global variable, which its workers must lock.
 *   on_thread_start gives each worker a database handle or the like.
 *
 * MEMORY  Strings of a request live until its handler is done for good, through
 *   all suspensions. empm_alloc() lives as long; empm_defer() calls a function
 *   then. No call keeps a pointer given to it, unless its comment says so.
 *   empm_store_*() keeps small values that all children share: counters, rate
 *   limits, sessions.
 *
 * ERRORS  Calls return EMPM_OK or a negative EMPM_E*. Misuse is defined, and
 *   leaves one line in the log: a handler without an answer is 500; so is a
 *   body shorter than declared or, if its head has left, the end of the
 *   connection; a second answer, or a write after the end, is EMPM_EMISUSE.
 *   These end a whole child: a crash, exit(), pthread_exit(), pthread_cancel()
 *   in a handler, a C++ exception that leaves one.
 *
 * LIMITS  HTTP/1.1 and 1.0 on TCP and unix sockets: no TLS, HTTP/2, WebSocket.
 *   Linux (epoll), or any POSIX system (poll). Each limit is a field of
 *   empm_config; its comment has the default and the client's status.
 *
 * STATUS  empm_status_page, as a route's handler or on Listen "127.0.0.1:9000
 *   admin", which answers even when every worker is busy: a page for people;
 *   ?auto as Apache's mod_status prints it, ?json and ?prometheus for programs.
 *
 * LOGS  ErrorLog takes a file, "|program arguments", "syslog:facility" or
 *   "stderr"; each message has a number, EMPM0484. CustomLog takes a file or
 *   "|program", and a format or the name of one: common, combined, combinedio,
 *   vhost_combined, referer, agent, or a LogFormat. env=NAME behind it keeps to
 *   requests with that note (empm_note()), env=!NAME to those without. A line
 *   is in the file half a second after its request has ended. A program is
 *   started again when it dies; no request waits for a log.
 * ======================================================================== */

#ifndef EVENTMPM_H
#define EVENTMPM_H

#if defined(__cplusplus) && __cplusplus < 201103L
#  error "eventmpm.h: needs C++11: compile with -std=c++11 or later"
#elif !defined(__cplusplus) && \
    (!defined(__STDC_VERSION__) || __STDC_VERSION__ < 199901L)
#  error "eventmpm.h: needs C99: compile with -std=c99 or later"
#endif

/* The implementation needs only the names that plain `cc` declares. A strict
 * -std=c99 declares fewer, and the first system header fixes the choice: hence
 * these defines before any include. */
#if defined(EVENTMPM_IMPLEMENTATION) && !defined(_FEATURES_H)
#  if defined(__STRICT_ANSI__) && !defined(_DEFAULT_SOURCE) && \
      !defined(_GNU_SOURCE)
#    define _DEFAULT_SOURCE 1
#  endif
#  if defined(__SIZEOF_LONG__) && __SIZEOF_LONG__ == 4 && \
      !defined(_FILE_OFFSET_BITS)
#    define _FILE_OFFSET_BITS 64
#  endif
#endif

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/* ---------------------------------------------------------------------------
 * >>options -- what can be defined before the include
 *
 *   EVENTMPM_IMPLEMENTATION  in exactly one translation unit: the code itself
 *   EVENTMPM_POLL            use poll() even where epoll exists
 *
 * Each of these leaves a part out, and saves so much of the header and of its
 * compiled text (gcc -Os, x86-64):
 *
 *   EVENTMPM_NO_FILES        1380 lines 14100 bytes static files (EMPM_FILES)
 *   EVENTMPM_NO_STATUS       1070 lines 17600 bytes the status page
 *   EVENTMPM_NO_ACCESS_LOG    980 lines  9500 bytes CustomLog
 *   EVENTMPM_NO_PROXY         410 lines  3500 bytes PROXY and RemoteIP
 *   EVENTMPM_NO_STORE         550 lines  3100 bytes the shared store
 *   EVENTMPM_NO_FORK         1810 lines 27000 bytes the parent: threads only
 *   EVENTMPM_NO_CONFIG_FILES  550 lines  6000 bytes empm_load() and -f
 *   EVENTMPM_NO_MAIN          790 lines 13200 bytes the command line
 * ------------------------------------------------------------------------- */

#define EMPM_VERSION "0.1.0"
#define EMPM__VERSION_MAJOR "0"
#define EMPM__VERSION_MINOR "0.1"

#ifndef EMPM_API
#  define EMPM_API extern
#endif

/* The allocator. All three must be thread-safe; EMPM_FREE takes NULL. */
#ifndef EMPM_MALLOC
#  include <stdlib.h>
#  define EMPM_MALLOC(n)      malloc(n)
#  define EMPM_REALLOC(p, n)  realloc(p, n)
#  define EMPM_FREE(p)        free(p)
#endif

#ifndef EMPM_MAX_LISTEN
#  define EMPM_MAX_LISTEN 16        /* listening sockets */
#endif
#ifndef EMPM_MAX_LIST
#  define EMPM_MAX_LIST 16          /* CustomLog, LogFormat, ... : of each */
#endif
#ifndef EMPM_GENERATIONS
#  define EMPM_GENERATIONS 8        /* of ServerLimit children, of which all but
                                       one drain; >= 2 */
#endif
#ifndef EMPM_PAGE_BYTES
#  define EMPM_PAGE_BYTES 8192      /* unit of all buffers in flight; >= 4096 */
#endif
#ifndef EMPM_RESPONSE_BUFFER
#  define EMPM_RESPONSE_BUFFER 65536 /* a longer response is sent as it grows */
#endif
#ifndef EMPM_PATH_SEGMENTS
#  define EMPM_PATH_SEGMENTS 64     /* segments in a path; more are 414 */
#endif
#ifndef EMPM_RANGES
#  define EMPM_RANGES 32            /* in a Range field; more: the whole file */
#endif
#ifndef EMPM_DROP_BODY
#  define EMPM_DROP_BODY 65536      /* of a body that no handler reads, as with
                                       a 404; the connection ends at more */
#endif
#ifndef EMPM_STORE_ITEM
#  define EMPM_STORE_ITEM 512       /* a key and its value in empm_store_*() */
#endif
#ifndef EMPM_TURN_REQUESTS
#  define EMPM_TURN_REQUESTS 16     /* requests, bytes and time that one */
#  define EMPM_TURN_BYTES (1 << 20) /* connection may use in a row while */
#  define EMPM_TURN_US 1000         /* others wait for a worker */
#endif

#if defined(__GNUC__) || defined(__clang__)
#  define EMPM__PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#  define EMPM__PRINTF(fmt, args)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------
 * >>types -- results, routes, configuration
 * ------------------------------------------------------------------------- */

/* Results. A call returns EMPM_OK or a negative error. A handler returns
 * EMPM_OK (it has written the answer), an HTTP status of 200 to 599 (it becomes
 * that of the answer, with a short text unless a body has been written),
 * EMPM_SUSPENDED, or a negative error (500). */
enum {
    EMPM_OK        = 0,
    EMPM_SUSPENDED = 1,    /* empm_suspend() was called: wait */
    EMPM_EINVAL    = -1,   /* an argument or a setting makes no sense */
    EMPM_ENOMEM    = -2,
    EMPM_ECLOSED   = -3,   /* the peer is gone */
    EMPM_EFULL     = -4,   /* a limit of the server is reached */
    EMPM_EGONE     = -5,   /* the ticket is stale: nothing was done */
    EMPM_EMISUSE   = -6,   /* the call comes too late or too early */
    EMPM_ETIMEDOUT = -7,
    EMPM_ESYS      = -8    /* a system call failed; the log has the reason */
};

/* The reason for which the function given to empm_suspend() is called. */
enum empm_why {
    EMPM_RESUMED = 1,      /* empm_resume() */
    EMPM_TIMEOUT,          /* timeout_ms has passed */
    EMPM_HALF_CLOSED,      /* the client sends no more, but may still read */
    EMPM_GONE,             /* the client is gone: no answer reaches it */
    EMPM_STOPPING          /* the server stops: answer now. In a graceful stop
                              or reload that is the end of its time limit;
                              empm_draining() is 1 earlier */
};

/* Bits of empm_should_stop(). */
enum {
    EMPM_STOP_HALF_CLOSED = 1,
    EMPM_STOP_GONE        = 2,
    EMPM_STOP_DEADLINE    = 4,
    EMPM_STOP_STOPPING    = 8      /* a plain stop; a graceful one waits */
};

/* Bits of file_etag. With the inode goes the time of its last change: a program
 * can set back the time of the content, but not that one. */
enum {
    EMPM_ETAG_INODE = 1,
    EMPM_ETAG_MTIME = 2,
    EMPM_ETAG_SIZE  = 4,
    EMPM_ETAG_ALL   = 7
};

enum empm_log_level {      /* as syslog and Apache have them */
    EMPM_LOG_EMERG, EMPM_LOG_ALERT, EMPM_LOG_CRIT, EMPM_LOG_ERROR,
    EMPM_LOG_WARN, EMPM_LOG_NOTICE, EMPM_LOG_INFO, EMPM_LOG_DEBUG
};

typedef struct empm_server empm_server;
typedef struct empm_request empm_request;
typedef uint64_t empm_ticket;           /* names one suspension; 0 is none */

typedef int  empm_handler(empm_request *req, void *user);
typedef int  empm_body_piece(empm_request *req, const void *data, size_t len,
                             void *user);
typedef int  empm_wake(empm_request *req, enum empm_why why, void *user);
typedef long empm_producer(empm_request *req, void *buf, size_t cap,
                           void *user);
typedef void empm_cleanup(void *p);

/* One route. The macros below set every field. */
typedef struct empm_route {
    const char      *pattern;     /* "[METHOD ]/path", see ROUTES above */
    empm_handler    *handler;     /* runs when the whole request is here */
    void            *user;        /* given to the functions of this route */
    empm_handler    *on_head;     /* before any body is read: EMPM_OK to go on,
                                     a status or a whole answer to refuse */
    empm_body_piece *on_body;     /* gets each piece of the body as it arrives;
                                     the server keeps none. EMPM_OK to go on, a
                                     status to refuse. NULL: the handler gets
                                     the whole body */
    const char      *root;       /* EMPM_FILES: directory; NULL: DocumentRoot */
    int64_t          limit_body;  /* bytes; -1: LimitRequestBody; 0: no limit */
    int              timeout_ms;  /* sets EMPM_STOP_DEADLINE; 0: never */
    int              max_workers; /* workers of a child that run its functions
                                     at the same time; beyond: 503; 0: all */
    int              max_requests; /* requests of a child between their complete
                                     head and the end of their answer, uploads
                                     and suspended ones included; beyond: 503;
                                     0: no limit */
    int              kind;        /* set by the macros */
} empm_route;

enum { EMPM__ROUTE_END, EMPM__ROUTE_HANDLER, EMPM__ROUTE_FILES };

#define EMPM_ROUTE(pattern, handler, user) \
    EMPM_ROUTE_WITH(pattern, handler, user, NULL, NULL, -1, 0, 0)
#define EMPM_ROUTE_WITH(pattern, handler, user, on_head, on_body, limit_body, \
                        timeout_ms, max_workers) \
    EMPM_ROUTE_FULL(pattern, handler, user, on_head, on_body, limit_body, \
                    timeout_ms, max_workers, 0)
#define EMPM_ROUTE_FULL(pattern, handler, user, on_head, on_body, limit_body, \
                        timeout_ms, max_workers, max_requests) \
    { pattern, handler, user, on_head, on_body, NULL, limit_body, timeout_ms, \
      max_workers, max_requests, EMPM__ROUTE_HANDLER }
#define EMPM_FILES(pattern, dir) EMPM_FILES_ELSE(pattern, dir, NULL, NULL)
/* Files, and `handler` for each path without a file. */
#define EMPM_FILES_ELSE(pattern, dir, handler, user) \
    { pattern, handler, user, NULL, NULL, dir, -1, 0, 0, 0, EMPM__ROUTE_FILES }
#define EMPM_ROUTES_END \
    { NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, EMPM__ROUTE_END }

/* A text as the `user` of a route, in both languages. */
#define EMPM_TEXT(text) ((void *)(uintptr_t)(text))

/* All settings. empm_defaults() makes one; change its fields or call
 * empm_set(), and leave it in place while the server lives. Brackets name the
 * directive where its name differs by more than its spelling.
 *
 * Listen strings: "8080" (all addresses), "127.0.0.1:8080", "[::1]:8080",
 * "localhost:0" (all addresses of that name; 0: any free port, which
 * empm_port() returns), "unix:/run/a.sock mode=660 user=root group=www" (names,
 * or "#number"), "fd:3" (an inherited listening socket), "systemd:web" (the
 * sockets that the service manager passes under that name). Words that may
 * follow: "v6only"; "proxy": each connection begins with a PROXY header,
 * version 1 or 2; "admin": the status only, from an engine of its own that no
 * busy worker can hold up. */
typedef struct empm_config {
    const empm_route *routes;          /* ends with EMPM_ROUTES_END */
    void       *user;                  /* given to the hooks */
    const char *listen[EMPM_MAX_LISTEN]; /* NULL ends; none at all: "8080" */
    const char *document_root;         /* "." */
    const char *add_type[EMPM_MAX_LIST]; /* media types of files by extension,
                                          "video/x-matroska .mkv .mka"; they
                                          come before the built-in ones */
    int         file_etag;             /* parts of an ETag, EMPM_ETAG_*:
                                          all of it. Servers behind one balancer
                                          with copies of the same files need
                                          MTime and Size only */
    const char *spool_directory;       /* large bodies, unlinked: "/tmp" */
    const char *server_field;          /* value of Server: "eventmpm"; "": none
                                          [also ServerTokens] */
    const char *server_name;           /* NULL: the name of the host */
    const char *server_root;           /* relative names of files begin there;
                                          NULL: in the working directory */
    int         strict;                /* 1: a value that would be adjusted with
                                          a warning is an error: 0 */

    /* a whole program: empm_run() and empm_main() only */
    const char *pid_file;              /* NULL: none */
    const char *user_name;             /* [User] of the children, if root starts
                                          the server: nobody. "#1000" is a
                                          number; "root" stays root */
    const char *group_name;            /* [Group] NULL: the user's */
    const char *chroot_dir;            /* NULL; the paths above are names
                                          outside of it, their directories must
                                          lie within */
    const char *core_dump_directory;   /* NULL: where it was started */
    int    graceful_stop_signal;       /* beside WINCH: SIGQUIT. If SIGTERM,
                                          only INT is a plain stop; 0: none */

    /* logs */
    const char *error_log;             /* a file, "|program", "stderr",
                                          "syslog[:facility[:tag]]"; NULL: see
                                          log. A file also gets the stderr of
                                          the children */
    const char *log_format[EMPM_MAX_LIST]; /* "format" nickname */
    const char *custom_log[EMPM_MAX_LIST]; /* file nickname, or file "format";
                                          env=name or env=!name may follow */
    int         extended_status;       /* times and requests in the status: 1 */

    /* proxies in front */
    const char *remote_ip_header;      /* such as X-Forwarded-For; NULL: none */
    const char *remote_ip_trusted_proxy[EMPM_MAX_LIST]; /* addresses or
                                          networks, several per string. Peers in
                                          the list may set the client's address,
                                          by remote_ip_header or a PROXY header.
                                          An empty list: "proxy" sockets believe
                                          every peer, the header none. Peers on
                                          unix sockets are always trusted */
    int         max_connections_per_peer; /* of one IPv4 address or IPv6 /64, in
                                          a child; further ones are closed. Not
                                          on "proxy" sockets. 0: no limit */

    int64_t     shared_store_size;     /* bytes for empm_store_*(), at least 10
                                          KiB: 0, none */

    /* processes and threads */
    int    processes;                  /* -1: by MinSpareThreads and
                                          MaxSpareThreads; 0: none, threads of
                                          the caller; N: exactly N children */
    int    start_servers;              /* 3 */
    int    server_limit;               /* 16 */
    int    threads_per_child;          /* 25 */
    int    thread_limit;               /* 64 */
    int    max_request_workers;        /* 400 */
    int    min_spare_threads;          /* 75: with the defaults all workers, so
                                          the first busy one starts a child */
    int    max_spare_threads;          /* 250 */
    int    max_connections_per_child;  /* 0: no limit */
    double async_request_worker_factor; /* 2.0 */
    int    max_open_connections;       /* per child; 0: two thirds of the
                                          descriptors in RLIMIT_NOFILE */
    int    max_open_files;             /* per child; 0: a third of them. Spooled
                                          bodies take half of it at most, beyond
                                          is 503; files that are sent or kept
                                          and spooled answers the rest, beyond
                                          is 503 or the end of the answer */
    int    thread_stack_size;          /* bytes, 0: the system's */
    int    listen_backlog;             /* 511 */
    int    send_buffer_size;           /* bytes, 0: the system's */
    int    receive_buffer_size;        /* bytes, 0: the system's */
    int64_t max_mem_free;              /* idle buffers kept per child: 2 MiB; 0:
                                          all of them */
    int    open_file_cache;            /* files kept per child: 64, at most a
                                          quarter of max_open_files; 0: none */

    /* time, in milliseconds; directives take seconds, or 100ms */
    int    timeout_ms;                 /* no progress in writing: 60000 */
    int    response_min_rate;          /* bytes/s that a client must take, over
                                          each timeout_ms of waiting for it:
                                          100; 0: none */
    int    keep_alive;                 /* 1 */
    int    keep_alive_timeout_ms;      /* 5000; 0: as keep_alive 0 */
    int    max_keep_alive_requests;    /* 1000; 0: no limit */
    int    header_timeout_ms;          /* 20000 [RequestReadTimeout header=] */
    int    header_timeout_max_ms;      /* 40000 */
    int    header_min_rate;           /* bytes/s that extend it: 500; 0: none */
    int    body_timeout_ms;            /* 20000 [RequestReadTimeout body=] */
    int    body_timeout_max_ms;        /* 0: none */
    int    body_min_rate;              /* 500 */
    int    linger_timeout_ms;          /* 30000 */
    int    linger_short_ms;            /* after a time-out: 2000 */
    int    graceful_shutdown_timeout_ms; /* 0: no limit */
    int    graceful_shutdown_delay_ms; /* health is 503, all else goes on: 0 */
    /* for the old children: 600000; 0: none */
    int    graceful_restart_timeout_ms;
    int    start_timeout_ms;           /* for children to be healthy: 30000 */
    int    watchdog_interval_ms;       /* a child that misses three pings, and
                                          waits for no disk, is replaced;
                                          without children, the watchdog of the
                                          service manager gets no more answers:
                                          10000; 0: off */
    int    stuck_worker_timeout_ms;    /* a handler that takes longer is logged
                                          at the next ping: 60000; 0: off */
    int    stuck_worker_replace;       /* ... and its child replaced: 0 */
    int    stop_timeout_ms;            /* a plain stop waits so long: 5000 */

    /* limits, in bytes */
    int    limit_request_line;         /* 8190, else 414 */
    int    limit_request_field_size;   /* 8190, else 431 */
    int    limit_request_fields;       /* 100, else 431; 0: no limit but that
                                          of the whole head */
    int    limit_request_head;         /* all of it: 65536, else 431 */
    int64_t limit_request_body;        /* 1 MiB, else 413; 0: no limit */
    int64_t limit_body_in_memory;      /* longer ones are spooled: 64 KiB */
    int64_t max_body_memory;           /* per child: 64 MiB, else 503 */
    int64_t max_spool_bytes;           /* per child: 1 GiB, half of it at most
                                          for answers; else 503 */
    int64_t limit_response_spool;      /* bytes of one response that wait for
                                          the client: 64 MiB, else aborted */
    int64_t limit_linger_bytes;        /* 0: no limit but linger_timeout_ms,
                                          which no client can prolong */

    /* Hooks, each NULL or called with `user`, the thread hooks on the worker. A
     * child serves no client before all of its start hooks have returned 0, and
     * has start_timeout_ms for that. If one returns anything else, the stop
     * hooks of those that returned 0 run and the child ends: empm_start() then
     * returns EMPM_ESYS; a parent tries again and soon gives up; a reload keeps
     * the old children */
    int  (*on_child_start)(empm_server *s, void *user);
    void (*on_child_stop)(empm_server *s, void *user);
    int  (*on_thread_start)(empm_server *s, void **thread_data, void *user);
    void (*on_thread_stop)(empm_server *s, void *thread_data, void *user);

    /* Called before new children start with this config, first in a process
     * that only tries it, then in the parent. Not 0: the old children stay */
    int  (*on_reload)(struct empm_config *cfg, void *user);

    /* Gets each message, from any thread: a line without newline and date,
     * "EMPM5011: ..." or "[client 192.0.2.1:4711] EMPM5002: ...". NULL: they go
     * to error_log. If both are NULL, empm_main() and empm_run() write to
     * stderr, empm_start() drops them: set one to learn why a start fails */
    void (*log)(enum empm_log_level level, const char *line, void *user);
    int  log_level;                    /* EMPM_LOG_WARN; notices (serving, stop,
                                          reload) are always logged */

    void *arena;                       /* strings that empm_set() copied */
    int   log_target;                  /* of error_log, when open (>>log) */
    int   log_echo;                 /* atomic: and on stderr, until it serves */
    unsigned log_lost;                 /* atomic: lines that had no room */
} empm_config;

/* ---------------------------------------------------------------------------
 * >>calls-server -- configure, start, stop
 * ------------------------------------------------------------------------- */

/* Returns the defaults. Free with empm_config_free() if empm_set() was used. */
EMPM_API empm_config empm_defaults(void);

/* Sets one directive, as "KeepAliveTimeout", "5" or "Listen", "127.0.0.1:0".
 *
 *   value     copied
 *   err, n    gets a message of at most n - 1 bytes when the result is not
 *             EMPM_OK; may be NULL, 0
 *   returns   EMPM_OK (also for a directive of Apache without a meaning here),
 *             EMPM_EINVAL (unknown name, bad value), EMPM_ENOMEM
 *   note      a list gets one more entry; after the first call the config must
 *             not be copied
 */
EMPM_API int empm_set(empm_config *cfg, const char *directive,
                      const char *value, char *err, size_t n);

/* Reads a file in Apache's syntax: see CONFIGURATION. The entries of its lists
 * (Listen, AddType, CustomLog, LogFormat, RemoteIPTrustedProxy) replace those
 * that cfg had before.
 *
 *   err, n    gets the first message, "file:line: ..."
 *   returns   EMPM_OK; EMPM_EINVAL, EMPM_ENOMEM: some may have been set
 */
EMPM_API int empm_load(empm_config *cfg, const char *path, char *err, size_t n);

/* Returns the bytes that the server takes if every child serves as many
 * connections as it may, each with the longest head and a full buffer, and
 * every thread uses all of its stack. Memory that handlers allocate, and the
 * kernel's buffers, are not included. Call empm_check() first. */
EMPM_API int64_t empm_memory_estimate(const empm_config *cfg);

/* Checks all settings. A value that Apache would adjust is adjusted with a
 * warning; one without a sensible meaning is an error.
 *   say       gets each warning and error as one line; may be NULL
 *   returns   the number of errors; 0: the server can start
 */
EMPM_API int empm_check(empm_config *cfg,
                        void (*say)(enum empm_log_level level, const char *line,
                                    void *user), void *user);
EMPM_API void empm_config_free(empm_config *cfg);

/* Runs a whole program: options (-h lists them), signals, messages on stderr.
 *   returns   the exit status for main()
 *   blocks    until the server has stopped
 */
EMPM_API int empm_main(empm_config *cfg, int argc, char **argv);

/* Runs the server in the foreground: forks the children (unless processes is 0)
 * and serves until a signal stops it. TERM and INT stop (a second one, at least
 * a second later, at once); WINCH and graceful_stop_signal stop gracefully. HUP
 * and USR1 reload, USR2 upgrades, URG opens the logs anew: see OPERATION. While
 * it runs it handles these signals, CHLD, PIPE and XFSZ, afterwards it restores
 * them; programs that handlers start do not inherit this.
 *   cfg       is read, not changed; if root starts it without user_name, the
 *             children are the user nobody
 *   returns   EMPM_OK after a stop, or the error that prevented the start
 *   blocks    until the server has stopped
 */
EMPM_API int empm_run(empm_config *cfg);

/* Starts the engine as threads of this process and returns at once. It changes
 * no signal disposition, rlimit, umask or directory. Several servers may live
 * at a time. (A process that the caller forks inherits the open sockets.)
 *   cfg       must stay until empm_free()
 *   out       the server, or NULL
 *   returns   EMPM_OK, EMPM_EINVAL, EMPM_ENOMEM, EMPM_ESYS
 */
EMPM_API int empm_start(empm_config *cfg, empm_server **out);

/* Asks the server to stop, and returns at once. empm_stop() closes the idle
 * connections, gives running requests stop_timeout_ms, then drops those that
 * still wait for a client. empm_stop_graceful() closes no idle connection and
 * ends no suspension: the next answer on each connection carries "Connection:
 * close"; after graceful_shutdown_timeout_ms (0: never) it stops like
 * empm_stop().
 *   thread    any, a handler or a signal handler included; any number of times
 */
EMPM_API void empm_stop(empm_server *s);
EMPM_API void empm_stop_graceful(empm_server *s);

/* Opens ErrorLog and the CustomLogs anew, by name, after they were moved away.
 * For a server without children; the parent of others takes SIGURG.
 *   thread    any, but no signal handler
 *   returns   EMPM_OK; EMPM_ESYS: a log could not be opened and stays as it
 *             was; a message names it
 */
EMPM_API int empm_reopen_logs(empm_server *s);

/* Waits until the server has stopped, at most timeout_ms (-1: for ever).
 *   returns   EMPM_OK; EMPM_ETIMEDOUT: a handler is still running, call again
 */
EMPM_API int empm_wait(empm_server *s, int timeout_ms);

/* Frees the server; one that still runs is stopped first, however long that
 * takes. NULL is allowed. */
EMPM_API void empm_free(empm_server *s);

/* Returns the port of the i-th listening socket, 0 if it has none, -1 if there
 * is no such socket. */
EMPM_API int empm_port(const empm_server *s, int i);

/* ---------------------------------------------------------------------------
 * >>calls-request -- the request that a handler answers
 *
 * All strings end with NUL and live as long as the request; no call blocks or
 * fails except as noted.
 * ------------------------------------------------------------------------- */

EMPM_API const char *empm_method(const empm_request *req);   /* "GET" */
EMPM_API const char *empm_target(const empm_request *req);  /* as it was sent */
EMPM_API const char *empm_path(const empm_request *req);     /* see below */
EMPM_API const char *empm_query_string(const empm_request *req);  /* or "" */
EMPM_API int         empm_minor_version(const empm_request *req); /* 1, 0 */

/* empm_path() is the path that the route was matched with, without the query:
 * dot segments are resolved, "//" is "/", escapes are as they were sent. Base
 * each decision about access on this path, not on empm_target().
 *
 * The decoded value of {name} or {name...} in the route's pattern, or NULL. A
 * {name} is one segment, decoded whole: "..%2Fx" is "../x" here, so look for
 * '/' before you make it part of a file's name. In a {name...} "%2F" and "%25"
 * stay as they were sent: a "/" always separates two segments, and decoding
 * these two escapes in a segment gives its bytes. */
EMPM_API const char *empm_path_value(const empm_request *req, const char *name);

/* The requested host, with its port if one was sent: from a target in
 * absolute-form, else from the field Host; "" if there is neither. */
EMPM_API const char *empm_host(empm_request *req);

/* The first field called `name` (case is ignored), or NULL. */
EMPM_API const char *empm_header(const empm_request *req, const char *name);

/* Field i in the order of sending.
 *   returns   EMPM_OK, EMPM_EINVAL (past the last) */
EMPM_API int empm_header_at(const empm_request *req, int i, const char **name,
                            const char **value);

/* The first trailer field of a chunked body called `name`, once the body has
 * been read, or NULL. Fields that are not allowed there (Host, Content-Type,
 * Authorization ...) are dropped. */
EMPM_API const char *empm_trailer(const empm_request *req, const char *name);

/* The first value of `name` in the query, in a urlencoded body, in the cookies,
 * or NULL. Values are decoded, cookies excepted. Decoding is strict: a value
 * with half an escape, such as "100%", or with "%00" is NULL; the _raw calls
 * return it as it was sent. */
EMPM_API const char *empm_query(empm_request *req, const char *name);
EMPM_API const char *empm_form(empm_request *req, const char *name);
EMPM_API const char *empm_query_raw(empm_request *req, const char *name);
EMPM_API const char *empm_form_raw(empm_request *req, const char *name);
EMPM_API const char *empm_cookie(empm_request *req, const char *name);

/* The whole body, in one piece and with a NUL after it; "" if there is none.
 * The memory is the request's own and may be written to. */
EMPM_API char *empm_body(empm_request *req, size_t *len);

/* The other end of the connection; on a "proxy" socket the address that the
 * PROXY header names. */
EMPM_API const char  *empm_peer(empm_request *req);  /* "192.0.2.1:4711", ... */

/* The client's address alone, "192.0.2.1". If the peer is in
 * RemoteIPTrustedProxy, the address comes from RemoteIPHeader: the last one in
 * it that is not in the list. */
EMPM_API const char  *empm_client(empm_request *req);
EMPM_API const char  *empm_scheme(const empm_request *req);      /* "http" */
EMPM_API empm_server *empm_server_of(const empm_request *req);

/* A pointer of yours that stays with the request, from on_head to on_body, the
 * handler and its wake functions; NULL until it is set. */
EMPM_API void         empm_set_data(empm_request *req, void *data);
EMPM_API void        *empm_data(const empm_request *req);

/* The thread_data that on_thread_start() has set for this worker. */
EMPM_API void        *empm_thread_data(const empm_request *req);

/* ---------------------------------------------------------------------------
 * >>calls-response -- how to answer
 *
 * The head is fixed by the first of: the end of the handler, a suspension after
 * a write, empm_flush(), or more than EMPM_RESPONSE_BUFFER bytes of body. Until
 * then status and fields can be changed; later such calls return EMPM_EMISUSE.
 * ------------------------------------------------------------------------- */

/* Sets the status, 200 to 599. Answers with 204, 205 and 304 have no body: the
 * bytes written to them are dropped. */
EMPM_API int empm_status(empm_request *req, int status);

/* Sets (replaces) or adds a field.
 *   name, value  copied. Refused (EMPM_EINVAL): a name that is no token; a
 *                value with CR, LF, NUL or another control; Transfer-Encoding,
 *                Connection, Keep-Alive, Trailer, Upgrade, Date and Server,
 *                which are the server's. "Content-Length" declares the length
 *                of the body.
 *   returns      EMPM_OK, EMPM_EINVAL, EMPM_EMISUSE, EMPM_EFULL (the head would
 *                exceed a page), EMPM_ENOMEM
 */
EMPM_API int empm_set_header(empm_request *req, const char *name,
                             const char *value);
EMPM_API int empm_add_header(empm_request *req, const char *name,
                             const char *value);

/* Appends to the response body.
 *
 *   data      len bytes, copied before the call returns; may be NULL if len is
 *             0
 *   returns   EMPM_OK
 *             EMPM_ECLOSED  the peer is gone; later writes are cheap no-ops
 *             EMPM_EFULL    more than limit_response_spool would wait for the
 *                           client: the response will be aborted, never cut
 *                           short in silence; empm_stream() has no such limit
 *             EMPM_EMISUSE  the answer is complete, or longer than declared
 *             EMPM_ENOMEM, EMPM_ESYS  likewise aborted
 *   blocks    never on the client: bytes that the socket refuses are kept
 *   source    RFC 9110 8.6 (Content-Length), RFC 9112 7.1 (chunked)
 */
EMPM_API int empm_write(empm_request *req, const void *data, size_t len);
EMPM_API int empm_printf(empm_request *req, const char *fmt, ...)
    EMPM__PRINTF(2, 3);
EMPM_API int empm_vprintf(empm_request *req, const char *fmt, va_list ap);

/* Sends the bytes written so far, as many as the socket takes; the rest follows
 * with the next call, a suspension or the handler's end. Never blocks. */
EMPM_API int empm_flush(empm_request *req);

/* Answers with the file: type from its name (AddType), Last-Modified, ETag
 * (FileETag), conditions and ranges as RFC 9110 13 and 14 have them, several as
 * multipart/byteranges. Conditions apply if the final status is 2xx, ranges if
 * it is 200. The file is sent after the handler and the last of its suspensions
 * have ended, by sendfile() in bounded pieces on a worker; between pieces the
 * connection waits and holds none. A file that claims to be empty and is not,
 * as in /proc, is read to its end at once, at most limit_response_spool bytes.
 *   path      opened at once, symbolic links followed; never pass a client's
 *             text, use EMPM_FILES for that
 *   returns   EMPM_OK, EMPM_EINVAL (no such regular file, or no right to it),
 *             EMPM_EFULL (MaxOpenFiles, or no descriptors: 503 is the answer),
 *             EMPM_ESYS, EMPM_EMISUSE
 */
EMPM_API int empm_send_file(empm_request *req, const char *path);

/* Answers with the bytes that `fn` produces, on a worker, whenever the client
 * has room for more.
 *   length    bytes in all, or -1: unknown (chunked)
 *   fn        fills buf with up to cap bytes and returns their number; 0: the
 *             end; negative: abort. Runs after the handler has returned.
 *   user      given to fn; empm_defer() can free it
 *   returns   EMPM_OK, EMPM_EMISUSE
 */
EMPM_API int empm_stream(empm_request *req, int64_t length, empm_producer *fn,
                         void *user);

/* Lets the request wait without a worker. The handler must then return
 * EMPM_SUSPENDED. The bytes written before are sent meanwhile.
 *
 *   timeout_ms  > 0, at most 24 days
 *   fn          called once, on a worker: after empm_resume(), when the time is
 *               over, when the client is gone, when the server stops (a
 *               graceful stop waits). Its results are those of a handler; it
 *               may suspend again. After EMPM_HALF_CLOSED it may return
 *               EMPM_SUSPENDED without another call, to wait on with the same
 *               ticket.
 *   returns     the ticket for empm_resume(); 0: not possible here (no memory,
 *               already suspended, answer complete, the client is gone, or the
 *               server stops at once)
 */
EMPM_API empm_ticket empm_suspend(empm_request *req, int timeout_ms,
                                  empm_wake *fn, void *user);

/* Ends a suspension.
 *   thread    any, any number of times
 *   returns   EMPM_OK: fn will run, with EMPM_RESUMED or a reason that came
 *             earlier; EMPM_EGONE: that suspension is over, nothing was done
 */
EMPM_API int empm_resume(empm_server *s, empm_ticket ticket);

/* Returns the reasons for which a long handler may stop: EMPM_STOP_* bits. */
EMPM_API int empm_should_stop(const empm_request *req);

/* Returns 1 once this process is about to end, gracefully or not, and accepts
 * no connection. Running requests may go on; a stream without an end can end at
 * a good moment, so that its client comes back to the new children.
 *   thread    any */
EMPM_API int empm_draining(const empm_server *s);

/* empm_alloc() returns memory that lives as long as the request, aligned for
 * any type, or NULL. empm_defer() calls fn(p), the last one first, once no
 * function of yours can see the request again; the answer may still be on its
 * way. */
EMPM_API void *empm_alloc(empm_request *req, size_t n);
EMPM_API int   empm_defer(empm_request *req, empm_cleanup *fn, void *p);

/* Writes a line to the error log, with the client's address and the worker, and
 * without a number, if LogLevel includes `level`. No other limit applies: do
 * not log events that a client can cause in a loop.
 *   fmt       at most 900 bytes are written; control characters become '?' */
EMPM_API void empm_log(empm_request *req, enum empm_log_level level,
                       const char *fmt, ...) EMPM__PRINTF(3, 4);

/* Sets a note on the request for CustomLog: %{name}n and %{name}e print it,
 * env=name and env=!name test for it. %u prints the note REMOTE_USER;
 * empm_health_page() sets the note health. Both texts are copied. A later note
 * replaces one of the same name; the value NULL removes it.
 *   returns   EMPM_OK, EMPM_ENOMEM */
EMPM_API int empm_note(empm_request *req, const char *name, const char *value);

/* Removes the server's signal handlers and masks from a process that a handler
 * has forked: call it there. Async-signal-safe. Under empm_main(), empm_run()
 * system(), popen(), posix_spawn() need no such call; under empm_start() they
 * inherit the signals that workers block: use fork(), this call and exec(). */
EMPM_API void empm_after_fork(void);

/* A handler, for GET: the state of the whole server, from each of its
 * processes. Without a query it is a page for people: ?refresh=N reloads it
 * every N seconds, ?notable leaves out the table of workers. For programs:
 * ?auto has the format of Apache's mod_status, ?json all figures, ?prometheus
 * its text format 0.0.4.
 *   user      NULL, or the form without a query: EMPM_TEXT("auto"), "json",
 *             "prometheus"
 *   note      it shows addresses and requests: do not put it on a public route
 */
EMPM_API int empm_status_page(empm_request *req, void *user);

/* A handler, for a balancer: 200 "OK", or 503 "draining" once the server is
 * about to stop. */
EMPM_API int empm_health_page(empm_request *req, void *user);

/* ---------------------------------------------------------------------------
 * >>calls-store -- small values that all children share
 *
 * An entry takes EMPM_STORE_ITEM (512) of shared_store_size bytes, for key and
 * value together: 1 MiB holds 1,900 of them. Keys are hashed into parts of the
 * store; one part can be full when the store as a whole is 80 % full. The store
 * outlives the children, not the parent. A child that dies in a call leaves the
 * old value or the new one, never anything else.
 *
 *   s             a handler has it from empm_server_of()
 *   key, key_len  any bytes, at least one
 *   ttl_ms        the entry expires after that; 0: never. When there is no room
 *                 for a new entry, the one that expires next is dropped early;
 *                 one without expiry is never dropped. If clients choose the
 *                 keys they can push out entries that expire: leave room
 *   returns       EMPM_OK, or else nothing has changed:
 *                 EMPM_EGONE      there is no such entry
 *                 EMPM_EFULL      no room, and no entry that could be dropped
 *                 EMPM_EINVAL     no key, key and value too long, ttl_ms < 0
 *                 EMPM_ETIMEDOUT  a child that is stopped in the middle of a
 *                                 call has held the lock for a second
 *                 EMPM_EMISUSE    shared_store_size is 0
 *   thread        any
 *   blocks        for a microsecond or so, while other threads use the store
 * ------------------------------------------------------------------------- */

/* Copies the value, at most cap bytes, and sets its length and its version,
 * which no other value of the key has (len and version may be NULL).
 *   returns   also EMPM_EFULL: it is longer than cap; nothing is copied, but
 *             len and version are set
 */
EMPM_API int empm_store_get(empm_server *s, const void *key, size_t key_len,
                            void *value, size_t cap, size_t *len,
                            uint64_t *version);

/* Sets the value, whether or not there was one. */
EMPM_API int empm_store_put(empm_server *s, const void *key, size_t key_len,
                            const void *value, size_t len, int64_t ttl_ms);

/* Sets the value if it still has that version; version 0: if there is none.
 *   returns   EMPM_EGONE: another caller was faster: get the value again
 */
EMPM_API int empm_store_cas(empm_server *s, const void *key, size_t key_len,
                            uint64_t version, const void *value, size_t len,
                            int64_t ttl_ms);

EMPM_API int empm_store_delete(empm_server *s, const void *key, size_t key_len);

/* Adds to a counter: a value that is an int64_t, 0 if there is no entry.
 *   ttl_ms    counts from the first add; later ones do not prolong it
 *   result    gets the sum; may be NULL
 *   returns   also EMPM_EINVAL: the value has another length, or the sum would
 *             not fit
 */
EMPM_API int empm_store_add(empm_server *s, const void *key, size_t key_len,
                            int64_t delta, int64_t ttl_ms, int64_t *result);

#ifdef __cplusplus
}
#endif
#endif /* EVENTMPM_H */

/* ===========================================================================
 * IMPLEMENTATION
 * ======================================================================== */

#ifdef EVENTMPM_IMPLEMENTATION
#ifndef EVENTMPM_IMPLEMENTED
#define EVENTMPM_IMPLEMENTED

/* ---------------------------------------------------------------------------
 * >>map -- the page to begin with
 *
 * Each section uses only those above it:
 *
 *   platform descriptors tools log log-lines  what a server stands on
 *   settings values directives check          what can be set, and how
 *   score peer                                counters; who is at the other end
 *   handover wheel queue inbox poller         a connection changes hands
 *   route engine-types pages                  patterns; workers, engines
 *   transport io                              bytes in, bytes out
 *   exchange taking accepting moving admission listener
 *                                             who accepts, and gives away
 *   head head-lines body                      HTTP in
 *   request request-memory values notes       what a handler holds
 *   protocol response response-head response-calls
 *                                             what it answers
 *   steps dispatch reading reading-body handling writing conn
 *                                             the life of a connection
 *   engine endpoints endpoint-unix endpoint-sockets limits users logs server
 *                                             threads, sockets, all together
 *   -- here ends the core --
 *   config-files config-sections proxy store access files health status wings
 *                                             wings, each of them closed
 *   signals manager attend identity           one process that serves
 *   generations children growth reload upgrade parent program
 *                                             a parent and its children
 *   main configtest control                   a command line
 *
 * Processes and threads. With Processes 0 the engine's threads belong to the
 * caller's process, and there is no parent:
 *
 *   parent   opens sockets, forks, reloads, replaces; serves no client
 *     |      orders by a pipe (>>attend), words back by the same
 *     +-- child   an engine of its own (>>engine)
 *     |     main thread   waits for orders
 *     |     workers       ThreadsPerChild of them: run connections (>>conn)
 *     |     listener      a role, not a thread: the worker that has nothing to
 *     |                   do has it (>>queue), or the standby if all are busy
 *     +-- child ...       all accept from the same sockets; the scoreboard and
 *                         the shared store are memory of all processes
 *
 * The owner of a connection's record is one of three at each moment, and alone
 * may touch what the record owns: its io, and the request in it (>>handover).
 *
 *                  event, deadline, order (offer, take)
 *      listener  ------------------------------------->  run queue
 *         ^                                                  | a worker pops
 *         |                                                  v
 *         +---- waits for an event, or a ticket (give) ---- worker
 *                                                            | calls
 *                                                            v
 *                                                         handler
 *
 * States of a connection; >>conn has all arrows and the function behind each:
 *
 *   HANDSHAKE -> READ_HEAD -> READ_BODY -> HANDLE <-> SUSPENDED
 *                 ^     |  no body  |      ^ |
 *                 |     +-----------|------+ |
 *                 |     |  refused  |        v
 *                 |     +-----------+----> WRITE ----> LINGER ----> CLOSED
 *                 |                          |                        ^
 *                 +------- KEEPALIVE <-------+      each of them -----+
 *
 * Locks, in the order in which they may be taken; none is held over a user's
 * function or over a call that can wait:
 *
 *   queue.lock        the run queue and the idle stack; a few stores long
 *   pool.lock         spare pages of the child; a few stores long
 *   files.lock        files that are kept; a few stores long
 *   engine.done_lock  that the end has come; a few stores long
 *   shard.lock        a part of the shared store, with no other; of all
 *                     processes
 *
 * Time. Instants are of the clock that only goes forward, in 64 bits of
 * microseconds (_at_us) or in 32 bits of milliseconds (_at_ms, a deadline),
 * which wrap: empm__time_until() and _earlier() compare them, EMPM__NEVER is
 * later than all. Durations end in _ms, _us or _s. The wall clock is read for
 * dates and logs only.
 *
 * Results. A public call returns EMPM_OK (0) or EMPM_E*, which are negative. An
 * internal one that can fail returns 0, or -1 with errno, or EMPM_E*, as its
 * comment says; one that asks, 1 or 0. In HTTP a number from 100 to 599 is the
 * status that refuses the request. A transport returns bytes or EMPM__WANTS_*
 * (>>transport); a step returns the state to go to (>>steps).
 *
 * Words that are this file's own:
 *
 *   record      what the server knows of a connection, 64 bytes (>>handover)
 *   offer, give, take   how a record changes its owner
 *   post        a hint to the listener: look at this record (>>inbox)
 *   second descriptor   of a back end, for which a record waits beside its own
 *   place, horizon      when the wheel looks at a record; at most so far ahead
 *   flight      input and output under way on a connection; it may hold several
 *               requests (>>request)
 *   turn        what one connection may use of a worker in a row (>>steps)
 *   gate        closed while no worker has time: the listener does not accept
 *   credit      how quick the handler of a route has been (>>route)
 *   chore       maintenance that may wait for a disk: a worker does it
 *   standby     the thread that listens when no worker is free
 *   exchange, bell      sockets by which children pass connections on, and what
 *               wakes all of them
 *   cull        to close idle connections so that others find room
 *   generation  the children that one reading of the configuration has made
 *   drain       to finish what has begun, and accept nothing
 *   wing        an optional part, which the core knows by its hooks alone
 *   slab        a block of records; never unmapped, so an index stays valid
 *   ticket      index and serial of a suspended request: empm_resume()
 *   inbox       the records at which the listener is to look (>>inbox)
 *   drained     the transport has given all that it had: only an event can
 *               bring more (>>transport)
 *   round       one wait of the listener and all that follows from it
 *   pause       a reason why the child does not accept (EMPM__PAUSE_*)
 *   admission   accept() in turn with the siblings (>>admission)
 *   budget      memory that all workers of a child share (>>pages)
 *   endpoint    a socket that listens (>>endpoints)
 *   park        to give back a connection that waits; >>score counts by state
 *   slot        the place of a child on the scoreboard; it outlives the child
 *   share       the part of MinSpareThreads that falls to one child
 *   snapshot    the scoreboard, copied once for a status page (>>status)
 *
 * To add something, edit these places; the test fails while one is missing:
 *
 *   a directive    a field of empm_config in >>types; a row of
 *                  empm__directives in >>settings; README's list, if one sets
 *                  it often. Test config.every_directive_from_a_file
 *   a message      a number of its own in the call; a line in >>messages. Test
 *                  log.table_of_codes
 *   a state        a row of EMPM__STATE_LIST in >>score; a step in the table
 *                  empm__http1 in >>conn, and its lines in the picture there.
 *                  Test conn.picture_and_table_name_every_state
 *   a counter      a row of EMPM__COUNTER_LIST in >>score; an empm__bump().
 *                  Test status.every_counter_is_told_everywhere
 *   a log letter   a row of empm__letters in >>access-items; a line in
 *                  >>letters. Test access.table_of_letters
 *   a wing         a struct empm__wing, as empm__store_wing in >>store-calls; a
 *                  row of empm__wings in >>wings; a switch in >>options
 *   an order       an enumerator beside EMPM__ORDER_PING in >>inbox;
 *                  empm__child_tell in >>children sends it; >>attend passes it
 *                  on to empm__listener_round in >>listener
 *   a transport    a table such as empm__plain in >>transport; its session in
 *                  empm__endpoint_add in >>endpoint-sockets. Test
 *                  transport.one_that_does_all_it_may
 *   a protocol     a table such as empm__http1 in >>conn; a number beside
 *                  EMPM__HTTP1 in >>handover; a row of empm__protocol_of in
 *                  >>conn
 *   a public call  its declaration in >>calls-server, >>calls-request or
 *                  >>calls-response, with the comment that is its manual
 *   a section      its place above, and a line `prefix` below. Check .ci/text
 *   a test         see the top of test_eventmpm.c
 *
 * Four calls go up, since the lower side begins what only the upper can do:
 *
 *   up empm__loader_file           Include: a file within a file
 *   up empm__listener_run          a worker that has nothing to do listens
 *   up empm__wings                 the core calls its wings, whose list stands
 *                                  behind them
 *   up empm__protocol_of           an answer is framed as its protocol has it,
 *                                  whose table names the steps behind it
 *
 * The name of an internal function begins with a prefix of its section (as both
 * lists say it, make test-headers holds it):
 *
 *   prefix platform        fence now time processor parker process
 *   prefix descriptors     quiet fd
 *   prefix tools           min ascii text parse format chars
 *   prefix log             log
 *   prefix log-lines       log
 *   prefix settings        directive
 *   prefix values          config directive request
 *   prefix directives      text directive config report
 *   prefix check           config
 *   prefix score           score
 *   prefix peer            peer counts
 *   prefix handover        conn slab
 *   prefix wheel           wheel
 *   prefix queue           queue
 *   prefix inbox           poller
 *   prefix poller          poller
 *   prefix route           route routes path
 *   prefix engine-types    wings engine worker
 *   prefix pages           budget pool file worker page pages
 *   prefix transport       transport socket plain conn
 *   prefix io              io
 *   prefix exchange        exchange
 *   prefix taking          listener
 *   prefix accepting       listener engine move
 *   prefix moving          move
 *   prefix admission       listener move
 *   prefix listener        listener
 *   prefix head            head list
 *   prefix head-lines      head
 *   prefix body            chunk
 *   prefix request         request
 *   prefix request-memory  request
 *   prefix notes           request
 *   prefix response        response
 *   prefix response-head   response text
 *   prefix response-calls  response
 *   prefix steps           step turn
 *   prefix dispatch        dispatch
 *   prefix reading         do reading
 *   prefix reading-body    body do
 *   prefix handling        handling do
 *   prefix writing         writing do
 *   prefix conn            http1 protocol conn worker
 *   prefix engine          engine
 *   prefix endpoints       endpoint inherited
 *   prefix endpoint-unix   endpoint
 *   prefix endpoint-sockets endpoint inherited
 *   prefix limits          check config memory
 *   prefix users           identity check
 *   prefix logs            server logs
 *   prefix server          server
 *   prefix config-files    loader define load
 *   prefix config-sections loader config
 *   prefix proxy           proxy reading
 *   prefix store           random shared sip kv
 *   prefix store-calls     store
 *   prefix access-items    access
 *   prefix access-formats  access
 *   prefix access-lines    access
 *   prefix files           types file
 *   prefix conditions      date condition range file
 *   prefix file-cache      file files
 *   prefix multipart       parts
 *   prefix files-serving   parts file files
 *   prefix health          health
 *   prefix status          process snapshot status
 *   prefix metrics         metric status
 *   prefix page            status
 *   prefix wings           wings
 *   prefix signals         signals program orders
 *   prefix manager         manager program stop time process
 *   prefix attend          process watchdog program parent attend check
 *   prefix identity        identity program pid
 *   prefix generations     child parent
 *   prefix children        children generation process child parent
 *   prefix growth          children watchdog reload parent
 *   prefix reload          reload generation child children parent
 *   prefix upgrade         inherited upgrade
 *   prefix parent          parent
 *   prefix program         program
 *   prefix main            main args
 *   prefix configtest      main test
 *   prefix control         main
 * ------------------------------------------------------------------------- */

/* ---------------------------------------------------------------------------
 * >>platform -- what differs between systems, under one name each
 * ------------------------------------------------------------------------- */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <locale.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <glob.h>
#include <grp.h>
#include <netdb.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#ifdef __linux__
#  include <sys/prctl.h>
#endif
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>

#if defined(__GLIBC__) && !defined(__USE_MISC)
#  error "eventmpm.h: include it before other headers, or compile with -std=gnu99, or define _DEFAULT_SOURCE"
#endif
#if !defined(__GNUC__) && !defined(__clang__)
#  error "eventmpm.h: needs the __atomic builtins of gcc or clang"
#endif
#if defined(__GLIBC__) && __SIZEOF_LONG__ == 4 && \
    !(defined(_FILE_OFFSET_BITS) && _FILE_OFFSET_BITS == 64)
#  error "eventmpm.h: include it before other headers, or compile with -D_FILE_OFFSET_BITS=64"
#endif

#define EMPM__OPTIONAL __attribute__((unused))    /* only wings may use it */

#define EMPM__JOIN2(a, b) a##b
#define EMPM__JOIN(a, b) EMPM__JOIN2(a, b)
#define EMPM__ASSERT_STATIC(what, why) \
    typedef char EMPM__JOIN(empm__static_##why##_, __LINE__)[(what) ? 1 : -1] \
        __attribute__((unused))

EMPM__ASSERT_STATIC(sizeof(off_t) == 8, files_need_64_bits);
EMPM__ASSERT_STATIC(EMPM_PAGE_BYTES >= 4096, page_too_small);

#if defined(__linux__)
#  include <sys/eventfd.h>
#  include <sys/sendfile.h>
#  include <sys/syscall.h>
#  if !defined(EVENTMPM_POLL)
#    include <sys/epoll.h>
#    define EMPM__EPOLL 1
#  endif
#endif
#ifndef EMPM__EPOLL
#  define EMPM__EPOLL 0
#endif

#ifndef MSG_NOSIGNAL
#  define MSG_NOSIGNAL 0    /* SIGPIPE is blocked, or caught, in any case */
#endif
#ifndef MSG_MORE
#  define MSG_MORE 0
#endif
#ifndef MSG_CMSG_CLOEXEC
#  define MSG_CMSG_CLOEXEC 0       /* empm__fd_flags() sets it a moment later */
#endif
#ifdef __linux__
#  define EMPM__POLLRDHUP 0x2000  /* <poll.h> hides it without _GNU_SOURCE */
#  define EMPM__WNOTHREAD 0x20000000   /* not the children of other threads */
#else
#  define EMPM__POLLRDHUP 0
#  define EMPM__WNOTHREAD 0
#endif

#if defined(O_PATH)
#  define EMPM__O_PATH O_PATH
#elif defined(__linux__)        /* <fcntl.h> hides it without _GNU_SOURCE */
#  define EMPM__O_PATH 010000000
#endif

/* Relaxed where nothing else is said; every other order is at its use. */
#define empm__load(p)         __atomic_load_n((p), __ATOMIC_RELAXED)
#define empm__load_acq(p)     __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define empm__store(p, v)     __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define empm__store_rel(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#if defined(__SANITIZE_THREAD__)
/* ThreadSanitizer knows no fences; an exchange in our own stack is one, too, on
 * every machine that it runs on */
static void empm__fence(void)
{
    uint32_t x = 0;
    (void)__atomic_exchange_n(&x, 1u, __ATOMIC_SEQ_CST);
}
#else
#  define empm__fence()       __atomic_thread_fence(__ATOMIC_SEQ_CST)
#endif

/* A counter that one thread writes and anybody reads. */
#define empm__bump(p, n)      empm__store((p), empm__load(p) + (n))

static uint64_t empm__now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* Deadlines are 32 bits of milliseconds: they wrap every 49 days, so they are
 * compared as signed differences, and 0 is kept for "none". The tests start the
 * clock just before the wrap. */
#ifndef EMPM__CLOCK_OFFSET_MS
#  define EMPM__CLOCK_OFFSET_MS 0u
#endif
#define EMPM__NEVER 0u

static uint32_t empm__time_us_to_ms(uint64_t us)
{
    return (uint32_t)(us / 1000u) + EMPM__CLOCK_OFFSET_MS;
}

static uint32_t empm__now_ms(void)
{
    return empm__time_us_to_ms(empm__now_us());
}

static uint32_t empm__time_after(uint32_t now_ms, int64_t wait_ms)
{
    uint32_t t = now_ms + (uint32_t)(wait_ms > 0x7ffffffe ? 0x7ffffffe
                                                          : wait_ms);
    return t == EMPM__NEVER ? 1u : t;
}

/* How many processors this process may use. */
static uint32_t empm__processor_count(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
#if defined(__linux__) && defined(CPU_COUNT)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
#endif
    return n > 0 ? (uint32_t)n : 1;
}

/* Milliseconds from now to t; negative once it is past. */
static int32_t empm__time_until(uint32_t t, uint32_t now_ms)
{
    return (int32_t)(t - now_ms);
}

static uint32_t empm__time_earlier(uint32_t a, uint32_t b)
{
    if (a == EMPM__NEVER || b == EMPM__NEVER)
        return a == EMPM__NEVER ? b : a;
    return (int32_t)(a - b) < 0 ? a : b;
}

static int empm__time_is_late(uint32_t deadline_ms, uint32_t now_ms)
{
    return deadline_ms != EMPM__NEVER && empm__time_until(deadline_ms,
                                                          now_ms) <= 0;
}

/* Where one thread sleeps until another one wakes it: a private futex, or a
 * condition variable. One wake-up is remembered. */
typedef struct empm__parker {
    uint32_t        awake;        /* atomic */
#if !defined(__linux__)
    pthread_mutex_t lock;
    pthread_cond_t  cond;
#endif
} empm__parker;

static void empm__parker_init(empm__parker *p)
{
    p->awake = 0;
#if !defined(__linux__)
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->cond, NULL);
#endif
}

/* Sleeps until woken, or for about `ms` (-1: no limit). 1: woken. */
static int empm__parker_park(empm__parker *p, int ms)
{
#if defined(__linux__)
#  ifdef SYS_futex
    const long futex = SYS_futex;
    struct { long s, ns; } limit;            /* what this call expects */
#  else
    const long futex = SYS_futex_time64;
    struct { int64_t s, ns; } limit;
#  endif
    limit.s = ms / 1000;
    limit.ns = ms % 1000 * 1000000;
    while (!__atomic_exchange_n(&p->awake, 0u, __ATOMIC_ACQUIRE))
        if (syscall(futex, &p->awake, 128 /* WAIT | PRIVATE */, 0,
                    ms < 0 ? NULL : &limit, NULL, 0) < 0 && errno == ETIMEDOUT)
            return (int)__atomic_exchange_n(&p->awake, 0u, __ATOMIC_ACQUIRE);
    return 1;
#else
    struct timespec until;
    int r = 0, woken;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&p->lock);
    while (!p->awake && r == 0)
        r = ms < 0 ? pthread_cond_wait(&p->cond, &p->lock)
                   : pthread_cond_timedwait(&p->cond, &p->lock, &until);
    woken = (int)p->awake;
    p->awake = 0;
    pthread_mutex_unlock(&p->lock);
    return woken;
#endif
}

static void empm__parker_unpark(empm__parker *p)
{
#if defined(__linux__)
#  ifdef SYS_futex
    const long futex = SYS_futex;
#  else
    const long futex = SYS_futex_time64;
#  endif
    empm__store_rel(&p->awake, 1u);
    syscall(futex, &p->awake, 129 /* WAKE | PRIVATE */, 1, NULL, NULL, 0);
#else
    pthread_mutex_lock(&p->lock);
    p->awake = 1;
    pthread_cond_signal(&p->cond);
    pthread_mutex_unlock(&p->lock);
#endif
}

#ifndef EVENTMPM_NO_FORK
/* fork() with all signals blocked, lest a handler of the parent's runs in the
 * child, on descriptors that both share. In the parent `old` is the mask again;
 * the child sets it when its own handlers are in place. Returns as fork(). */
static pid_t empm__process_fork(sigset_t *old)
{
    sigset_t all;
    pid_t pid;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, old);
    pid = fork();
    if (pid != 0)
        pthread_sigmask(SIG_SETMASK, old, NULL);
    return pid;
}
#endif

/* ---------------------------------------------------------------------------
 * >>descriptors -- files, sockets and pipes under one name each
 *
 * Each call does what its system offers best, and means the same on all of
 * them: a descriptor is closed on exec, a wait is short, errno survives a
 * clean-up.
 * ------------------------------------------------------------------------- */

/* On the way out of an error: errno stays its own. */
static void empm__quiet_close(int fd)
{
    const int saved = errno;
    close(fd);
    errno = saved;
}

static void empm__quiet_unlink(const char *path)
{
    const int saved = errno;
    unlink(path);
    errno = saved;
}

static int empm__fd_flags(int fd, int nonblocking)
{
    int fl;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -1;
    if (!nonblocking)
        return 0;
    fl = fcntl(fd, F_GETFL);
    return fl < 0 ? -1 : fcntl(fd, F_SETFL, fl | O_NONBLOCK);
}

/* `from`, unless it is NULL, gets the peer's address. */
static int empm__fd_accept(int fd, struct sockaddr_storage *from)
{
    socklen_t n = sizeof *from, *len = from != NULL ? &n : NULL;
#if defined(__linux__) && defined(SYS_accept4)
    return (int)syscall(SYS_accept4, fd, from, len,
                        SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    int c = accept(fd, (struct sockaddr *)from, len);
    int on = 1;
    if (c >= 0 && empm__fd_flags(c, 1) < 0) {
        close(c);
        return -1;
    }
    if (c >= 0)     /* Linux inherits it from the listening socket */
        setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return c;
#endif
}

static int empm__fd_pipe(int fd[2], int nonblocking)
{
    if (pipe(fd) < 0)
        return -1;
    if (empm__fd_flags(fd[0], nonblocking) < 0 ||
        empm__fd_flags(fd[1], nonblocking) < 0) {
        close(fd[0]);
        close(fd[1]);
        return -1;
    }
    return 0;
}

#ifndef EVENTMPM_NO_FORK
/* A hint: so many bytes shall fit into the pipe. */
static void empm__fd_pipe_room(int fd, int bytes)
{
#if defined(__linux__)
    (void)fcntl(fd, 1031 /* F_SETPIPE_SZ, hidden without _GNU_SOURCE */, bytes);
#else
    (void)fd;
    (void)bytes;
#endif
}

/* Closes this descriptor and all above it. */
static void empm__fd_close_from(int fd)
{
    struct rlimit r;
#if defined(__linux__) && defined(SYS_close_range)
    if (syscall(SYS_close_range, (unsigned)fd, ~0u, 0u) == 0)
        return;
#endif
    if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur > 1 << 20)
        r.rlim_cur = 1 << 20;
    for (; (rlim_t)fd < r.rlim_cur; fd++)
        close(fd);
}
#endif

/* Bytes that the peer has not acknowledged yet, or -1 where nobody knows. */
static int empm__fd_unacked(int fd)
{
#if defined(__linux__)
    int n = 0;
    return ioctl(fd, TIOCOUTQ, &n) == 0 ? n : -1;
#else
    (void)fd;
    return -1;
#endif
}

/* Sends up to n bytes of the file from *off on, which it moves.
 * Returns what write() would; 0: the file has become shorter. */
static ssize_t empm__fd_sendfile(int out, int in, int64_t *off, size_t n)
{
#if defined(__linux__)
    off_t o = (off_t)*off;
    ssize_t r = sendfile(out, in, &o, n > 0x7ffff000 ? 0x7ffff000 : n);
    if (r > 0)
        *off = (int64_t)o;
    return r;
#else
    char buf[16384];
    ssize_t r = pread(in, buf, n < sizeof buf ? n : sizeof buf, (off_t)*off);
    if (r > 0)
        r = send(out, buf, (size_t)r, MSG_NOSIGNAL);
    if (r > 0)
        *off += r;
    return r;
#endif
}

/* A new file that has no name, in the directory, for reading and writing. */
static int empm__fd_unnamed_file(int dir)
{
    char name[64];
    int fd = -1, i;
#if defined(O_TMPFILE)
    fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
#elif defined(__O_TMPFILE)       /* glibc without _GNU_SOURCE */
    fd = openat(dir, ".", __O_TMPFILE | O_DIRECTORY | O_RDWR | O_CLOEXEC, 0600);
#endif
    /* elsewhere, and where the file system cannot: a name for a moment */
    for (i = 0; fd < 0 && i < 100; i++) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        snprintf(name, sizeof name, ".eventmpm-%ld-%lx-%d", (long)getpid(),
                 (unsigned long)t.tv_nsec, i);
        fd = openat(dir, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
        if (fd >= 0)
            unlinkat(dir, name, 0);
        else if (errno != EEXIST)
            break;
    }
    return fd;
}

/* Descriptors in a message of a unix socket (SCM_RIGHTS). */
#define EMPM__FDS_MOST (4 * (EMPM_MAX_LIST + 1) + 16)    /* in one message */

typedef union empm__fd_control {
    struct cmsghdr head;             /* for its alignment */
    char           room[CMSG_SPACE(EMPM__FDS_MOST * sizeof(int))];
} empm__fd_control;

/* Sends n descriptors along with `bytes` of data; they stay open here. Returns
 * 0, or -1 with errno. */
static int empm__fd_send(int to, const void *data, size_t bytes, const int *fds,
                         size_t n, int flags)
{
    struct msghdr m;
    struct iovec v;
    empm__fd_control c;
    memset(&m, 0, sizeof m);
    memset(&c, 0, sizeof c);
    v.iov_base = (void *)(uintptr_t)data;
    v.iov_len = bytes;
    m.msg_iov = &v;
    m.msg_iovlen = 1;
    m.msg_control = c.room;
    m.msg_controllen = (socklen_t)CMSG_SPACE(n * sizeof *fds);
    c.head.cmsg_level = SOL_SOCKET;
    c.head.cmsg_type = SCM_RIGHTS;
    c.head.cmsg_len = (socklen_t)CMSG_LEN(n * sizeof *fds);
    memcpy(CMSG_DATA(&c.head), fds, n * sizeof *fds);
    return sendmsg(to, &m, flags | MSG_NOSIGNAL) < 0 ? -1 : 0;
}

/* Receives a message of at most `size` bytes and `most` descriptors, which are
 * the caller's, *n of them. *flags is for recvmsg(), and then from it: with
 * MSG_TRUNC or MSG_CTRUNC there were more. Returns the bytes, or -1 with
 * errno. */
static ssize_t empm__fd_receive(int from, void *data, size_t size, int *fds,
                                size_t most, size_t *n, int *flags)
{
    struct msghdr m;
    struct iovec v;
    empm__fd_control c;
    size_t at = 0;
    ssize_t r;
    memset(&m, 0, sizeof m);
    v.iov_base = data;
    v.iov_len = size;
    m.msg_iov = &v;
    m.msg_iovlen = 1;
    m.msg_control = c.room;
    m.msg_controllen = (socklen_t)CMSG_SPACE(most * sizeof *fds);
    *n = 0;
    r = recvmsg(from, &m, *flags | MSG_CMSG_CLOEXEC);
    *flags = m.msg_flags;
    while (r >= 0 && at + CMSG_LEN(0) <= m.msg_controllen) {
        const struct cmsghdr *part = (struct cmsghdr *)(void *)(c.room + at);
        const size_t got = part->cmsg_len >= CMSG_LEN(0)
                               ? part->cmsg_len - CMSG_LEN(0) : 0;
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS) {
            *n = got / sizeof *fds < most ? got / sizeof *fds : most;
            memcpy(fds, CMSG_DATA(part), *n * sizeof *fds);
        }
        at += CMSG_SPACE(got);
    }
    return r;
}

static int empm__fd_would_block(int e)
{
#if EAGAIN == EWOULDBLOCK
    return e == EAGAIN;
#else
    return e == EAGAIN || e == EWOULDBLOCK;
#endif
}

/* ---------------------------------------------------------------------------
 * >>tools -- small things that the C library lacks
 * ------------------------------------------------------------------------- */

#define EMPM__COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define EMPM__NIL 0xffffffffu      /* no index */

static size_t empm__min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ASCII only: HTTP is not a matter of locale. */
static int empm__ascii_lower(int ch)
{
    return ch >= 'A' && ch <= 'Z' ? ch + 32 : ch;
}

static int empm__ascii_is_digit(int ch)
{
    return ch >= '0' && ch <= '9';
}

static int empm__text_same(const char *a, size_t a_len, const char *b,
                           size_t b_len)
{
    size_t i;
    if (a_len != b_len)
        return 0;
    for (i = 0; i < a_len; i++)
        if (empm__ascii_lower((unsigned char)a[i]) !=
            empm__ascii_lower((unsigned char)b[i]))
            return 0;
    return 1;
}

/* ASCII alone, whatever setlocale() has been told: with Turkish rules TIMEOUT
 * would be no Timeout, and with German ones 2.5 no number. */
static int empm__text_equal(const char *a, const char *b)
{
    return empm__text_same(a, strlen(a), b, strlen(b));
}

static int empm__text_begins(const char *s, const char *with)
{
    const size_t n = strlen(with);
    return strlen(s) >= n && empm__text_same(s, n, with, n);
}

/* Returns the length of s[0..n) without the blanks at its end. */
static size_t empm__text_trimmed(const char *s, size_t n)
{
    while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
        n--;
    return n;
}

static int empm__ascii_hex(int ch)
{
    if (empm__ascii_is_digit(ch))
        return ch - '0';
    ch = empm__ascii_lower(ch);
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* Returns the byte that two digits mean, or -1. Stops at a NUL. */
static int empm__text_unhex(const char *s)
{
    const int hi = empm__ascii_hex((unsigned char)s[0]);
    const int lo = hi < 0 ? -1 : empm__ascii_hex((unsigned char)s[1]);
    return lo < 0 ? -1 : hi * 16 + lo;
}

/* Do n bytes begin with "%" and two digits? */
static int empm__text_is_escape(const char *s, size_t n)
{
    return n > 2 && *s == '%' && empm__text_unhex(s + 1) >= 0;
}

/* Decimal digits and nothing else. Returns -1 if it is not a number, -2 if it
 * does not fit. */
static int64_t empm__parse_u63(const char *s, size_t n)
{
    int64_t v = 0;
    size_t i;
    if (n == 0)
        return -1;
    for (i = 0; i < n; i++)
        if (!empm__ascii_is_digit((unsigned char)s[i]))
            return -1;
    for (i = 0; i < n; i++) {
        if (v > (INT64_MAX - (s[i] - '0')) / 10)
            return -2;
        v = v * 10 + (s[i] - '0');
    }
    return v;
}

/* Writes v in decimal, without a NUL, and returns the number of digits. */
static size_t empm__format_u64(char *to, uint64_t v)
{
    char tmp[20];
    size_t n = 0, i;
    do
        tmp[n++] = (char)('0' + v % 10);
    while ((v /= 10) != 0);
    for (i = 0; i < n; i++)
        to[i] = tmp[n - 1 - i];
    return n;
}

/* Decodes %XX (and, for forms, '+') of n bytes into to, which may be the same
 * memory, and adds a NUL. Returns the length, or -1 on a bad escape or %00. */
static long empm__text_decode(char *to, const char *s, size_t n, int plus)
{
    size_t i, k = 0;
    for (i = 0; i < n; i++) {
        char ch = s[i];
        if (ch == '%') {
            const int code = n - i < 3 ? -1 : empm__text_unhex(s + i + 1);
            if (code <= 0)
                return -1;
            ch = (char)code;
            i += 2;
        } else if (ch == '+' && plus)
            ch = ' ';
        to[k++] = ch;
    }
    to[k] = '\0';
    return (long)k;
}

/* Reads the head of a file into `to`, as a string: "" if it cannot be read. It
 * is for what the system tells, which one read() gets whole. */
static void empm__text_of_file(const char *path, char *to, size_t size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd < 0 ? -1 : read(fd, to, size - 1);
    if (fd >= 0)
        close(fd);
    to[n > 0 ? n : 0] = '\0';
}

/* The next word of a line: up to a space, or what stands in quotes, where '\'
 * goes before a quote or another '\'. 1, or 0: there is none; -1: a quote is
 * never closed, or the word is too long. */
static int empm__text_word(const char **line, char *to, size_t cap)
{
    const char *p = *line + strspn(*line, " \t");
    char quote = '\0';
    size_t n = 0;
    if (*p == '\0') {
        *line = p;
        return 0;
    }
    if (*p == '"' || *p == '\'')
        quote = *p++;
    while (*p != '\0' && (quote ? *p != quote : *p != ' ' && *p != '\t')) {
        if (quote && p[0] == '\\' && (p[1] == '\\' || p[1] == quote))
            p++;
        if (n + 1 >= cap)
            return -1;
        to[n++] = *p++;
    }
    to[n] = '\0';
    if (quote && *p++ != quote)
        return -1;
    *line = p;
    return 1;
}

/* RFC 9110 5.6.7: "Sun, 06 Nov 1994 08:49:37 GMT", 29 bytes and a NUL. Own
 * arithmetic: strftime() is a matter of locale, gmtime() of a static buffer. */
static const char empm__days[] = "SunMonTueWedThuFriSat";
static const char empm__months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

static void empm__format_date(char to[30], int64_t t)
{
    int64_t days = t / 86400, rest = t % 86400;
    int64_t era, doe, yoe, doy, mp, d, m, y;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    days += 719468;                 /* since 1 March of year 0 */
    era = days / 146097;
    doe = days - era * 146097;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;       /* the month, counted from March */
    d = doy - (153 * mp + 2) / 5 + 1;
    m = mp < 10 ? mp + 2 : mp - 10; /* from 0 */
    y = yoe + era * 400 + (m < 2);
    snprintf(to, 30, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT",
             empm__days + (days + 3) % 7 * 3, (unsigned)d % 100,
             empm__months + m * 3, (unsigned)y % 10000,
             (unsigned)(rest / 3600) % 100, (unsigned)(rest / 60) % 60,
             (unsigned)rest % 60);
}

/* Character classes of the grammar, as bits of one table. */
enum {
    EMPM__TCHAR  = 1,     /* RFC 9110 5.6.2: in a token */
    EMPM__VCHAR  = 2,     /* in a field value: visible, SP, HTAB, obs-text */
    EMPM__TARGET = 4,     /* in a request target: visible, or above 0x7f */
    EMPM__HOST   = 8     /* RFC 3986 3.2.2: plain in a reg-name or an address */
};

static unsigned empm__chars_class(unsigned ch)
{
    unsigned bits = 0;
    int alnum = (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') ||
                (ch >= 'A' && ch <= 'Z');
    if (alnum || (ch > 32 && ch < 127 && strchr("!#$%&'*+-.^_`|~", (int)ch)))
        bits |= EMPM__TCHAR;
    if (ch == 9 || (ch >= 32 && ch != 127))
        bits |= EMPM__VCHAR;
    if (ch > 32 && ch != 127)
        bits |= EMPM__TARGET;
    if (alnum || (ch > 32 && ch < 127 && strchr("-._~!$&'()*+,;=", (int)ch)))
        bits |= EMPM__HOST;
    return bits;
}

/* Built once per server, so that no file-scope state has to be initialised. */
typedef struct empm__chars {
    unsigned char of[256];
} empm__chars;

static void empm__chars_init(empm__chars *t)
{
    unsigned i;
    for (i = 0; i < 256; i++)
        t->of[i] = (unsigned char)empm__chars_class(i);
}

/* Eight bytes at once: is one of them below `n` (at most 128), or equal to it?
 * Whichever it is, and in any order of bytes. */
#define EMPM__EACH(byte)     (UINT64_C(0x0101010101010101) * (byte))
#define EMPM__ANY_BELOW(w, n) (((w) - EMPM__EACH(n)) & ~(w) & EMPM__EACH(0x80))
#define EMPM__ANY_IS(w, n)   EMPM__ANY_BELOW((w) ^ EMPM__EACH(n), 1)

/* Are all n bytes of the class? Values and targets are long, and so are looked
 * at by the word; a word with anything special is left to the table. */
static int empm__chars_all(const empm__chars *t, const char *s, size_t n,
                           unsigned bits)
{
    unsigned all = bits;
    size_t i = 0;
    uint64_t w;
    if (bits & (EMPM__VCHAR | EMPM__TARGET))
        for (; i + sizeof w <= n; i += sizeof w) {
            memcpy(&w, s + i, sizeof w);
            if (EMPM__ANY_IS(w, 127) |
                EMPM__ANY_BELOW(w, bits == EMPM__VCHAR ? 32u : 33u))
                break;
        }
    for (; i < n; i++)
        all &= t->of[(unsigned char)s[i]];
    return all == bits;
}

/* ---------------------------------------------------------------------------
 * >>log -- one way for every message
 *
 *     [Sun Nov 22 14:00:00.123456 2026] [mpm_event:error] [pid 12:tid 3]
 *     [client 192.0.2.1:4711] EMPM5002: GET /x: gave no answer
 *
 * is one line, and one write(). The number stays as it is, and stands in the
 * table of >>messages; a handler's own line has none. A callback
 * (empm_config.log) gets the second half only.
 *
 * LogLevel decides what is written, except for notices: that the server serves,
 * stops, reloads is in every log, as with Apache. Until the server serves,
 * errors and warnings are on stderr as well, where its starter looks.
 *
 *   empm__log           for a caller that has only a config
 *   empm__engine_log    the listener; limited
 *   empm__worker_log    a worker; limited           (>>engine-types)
 *   empm__request_log   ... with a request; limited (>>notes)
 *
 * What load can repeat must not fill the disk: of each number a child writes a
 * few lines a minute, and counts the others in a line that comes with the next.
 * ------------------------------------------------------------------------- */

/* Text that came from a client must not forge a line or drive a terminal. */
static void empm__log_tame(char *line)
{
    for (; *line != '\0'; line++)
        if ((unsigned char)*line < 32 || (unsigned char)*line == 127)
            *line = '?';
}

#if !defined(EVENTMPM_NO_STATUS) || !defined(EVENTMPM_NO_ACCESS_LOG)
/* The name alone of "[scheme://]name[:port]", or what the host calls itself. */
static void empm__log_name_alone(const empm_config *cfg, char *to, size_t n)
{
    const char *name = cfg->server_name, *end;
    to[0] = to[n - 1] = '\0';
    if (name == NULL) {
        if (gethostname(to, n - 1) < 0 || to[0] == '\0')
            snprintf(to, n, "localhost");
    } else {
        end = strstr(name, "://");
        name = end != NULL ? end + 3 : name;
        snprintf(to, n, "%.*s",
                 (int)strcspn(name, name[0] == '[' ? "]/" : ":/"),
                 name + (name[0] == '['));
    }
    empm__log_tame(to);
}
#endif

static const char *empm__log_level_name(enum empm_log_level level)
{
    static const char *const names[] = { "emerg", "alert", "crit", "error",
                                         "warn", "notice", "info", "debug" };
    return (size_t)level < EMPM__COUNT(names) ? names[level] : "?";
}

/* The facility that "syslog" or "syslog:local3[:tag]" names; -1: none, -2: it
 * is not syslog that is meant. Apache's default is local7. */
static int empm__log_facility(const char *target)
{
    static const struct { char name[12]; int facility; } list[] = {
        { "", LOG_LOCAL7 }, { "auth", LOG_AUTH }, { "cron", LOG_CRON },
        { "daemon", LOG_DAEMON }, { "kern", LOG_KERN }, { "lpr", LOG_LPR },
        { "mail", LOG_MAIL }, { "news", LOG_NEWS }, { "syslog", LOG_SYSLOG },
        { "user", LOG_USER }, { "uucp", LOG_UUCP }, { "local0", LOG_LOCAL0 },
        { "local1", LOG_LOCAL1 }, { "local2", LOG_LOCAL2 },
        { "local3", LOG_LOCAL3 }, { "local4", LOG_LOCAL4 },
        { "local5", LOG_LOCAL5 }, { "local6", LOG_LOCAL6 },
        { "local7", LOG_LOCAL7 }
    };
    const char *name = target + 6;
    size_t i, n;
    if (strncmp(target, "syslog", 6) != 0 || (*name != '\0' && *name != ':'))
        return -2;
    name += *name == ':';
    n = strcspn(name, ":");
    for (i = 0; i < EMPM__COUNT(list); i++)
        if (empm__text_same(name, n, list[i].name, strlen(list[i].name)))
            return list[i].facility;
    return -1;
}

/* What lines in syslog begin with. */
static const char *empm__log_tag(const char *target)
{
    const char *tag = strchr(target, ':');
    tag = tag != NULL ? strchr(tag + 1, ':') : NULL;
    return tag != NULL && tag[1] != '\0' ? tag + 1 : "eventmpm";
}

/* Standard output or error as a log. Other programs share the description and
 * must not find it non-blocking, so a pipe or a terminal is opened anew. A file
 * is not: both must write at one offset. */
static int empm__log_std(int std)
{
    char path[32];
    struct stat st;
    int fd = -1;
    snprintf(path, sizeof path, "/dev/fd/%d", std);
    if (fstat(std, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)))
        fd = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY |
                  O_CLOEXEC);
    return fd >= 0 ? fd : fcntl(std, F_DUPFD_CLOEXEC, 3);
}

/* Opens a log to append to, never as one of the first three descriptors, and
 * without a wait: a FIFO that nobody reads yet is kept open by ourselves. */
static int empm__log_file(const char *path)
{
    const int flags = O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    int fd, high;
    if (strcmp(path, "/dev/stdout") == 0 || strcmp(path, "/dev/stderr") == 0)
        return empm__log_std(path[8] == 'o' ? 1 : 2);
    fd = open(path, O_WRONLY | flags, 0640);
    if (fd < 0 && errno == ENXIO)
        fd = open(path, O_RDWR | flags, 0640);
    if (fd < 0 || fd > 2)
        return fd;
    high = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    close(fd);
    return high;
}

#ifndef EVENTMPM_NO_FORK
/* "|program arguments", or "|$text for a shell": a program that gets the log on
 * its standard input. It is started by a process of its own, the keeper, which
 * holds the reading end of the pipe: when the program ends it is started again,
 * and finds the lines that have come meanwhile. Once nobody has the writing end
 * any more, since the server, or this generation of it, has ended, the program
 * reads what there is, sees the end, and both are gone. So no parent has to
 * live or to listen for it, and a program is never killed with lines in its
 * pipe. */

#define EMPM__PIPE_WORDS 32

/* Its words, in `room`; argv ends with NULL. How many; 0: it makes no sense. */
static int empm__log_pipe_words(const char *command, char room[1024],
                                char *argv[EMPM__PIPE_WORDS + 1])
{
    const char *rest = command + 1 + (command[1] == '|');
    char *at = room;
    int n = 0, r = 1;
    if (*rest == '$' && strlen(rest) < 1000) {
        memcpy(at, "/bin/sh\0-c", 11);
        argv[0] = at;
        argv[1] = at + 8;
        argv[2] = strcpy(at + 11, rest + 1);
        argv[3] = NULL;
        return rest[1] != '\0' ? 3 : 0;
    }
    while (n < EMPM__PIPE_WORDS &&
           (r = empm__text_word(&rest, at, (size_t)(room + 1024 - at))) == 1) {
        argv[n++] = at;
        at += strlen(at) + 1;
    }
    argv[n] = NULL;
    return r == 0 ? n : 0;
}

/* The keeper: never returns. `told` gets errno if the program cannot be started
 * the first time, and is closed if it can. */
static void empm__log_pipe_keep(char **argv, int told)
{
    const struct timespec second = { 1, 0 };
    struct pollfd in;
    in.fd = 0;
    in.events = POLLIN;
    for (;;) {
        const uint64_t began = empm__now_us();
        int status = -1;
        const pid_t pid = fork();
        if (pid == 0) {
            empm_after_fork();
            execvp(argv[0], argv);
            status = errno;
            if (told >= 0 && write(told, &status, sizeof status) < 0)
                _exit(126);
            _exit(127);
        }
        if (told >= 0)
            close(told);
        told = -1;
        while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        in.revents = 0;
        if (poll(&in, 1, 0) > 0 && (in.revents & POLLHUP) &&
            (!(in.revents & POLLIN) || status != 0))
            _exit(0);                /* nobody is left to write */
        if (empm__now_us() - began < 1000000u)
            nanosleep(&second, NULL);
    }
}

/* Starts the program of a log. Its standard error is `err`, or what ours is.
 * Returns where to write, or -1 and errno. */
static int empm__log_pipe_start(const char *command, int err)
{
    char room[1024], *argv[EMPM__PIPE_WORDS + 1];
    int in[2], told[2], why = EINVAL;
    sigset_t old;
    struct pollfd p;
    pid_t pid;
    if (empm__log_pipe_words(command, room, argv) == 0 ||
        empm__fd_pipe(in, 0) < 0) {
        errno = why;
        return -1;
    }
    if (empm__fd_pipe(told, 0) < 0) {
        close(in[0]);
        close(in[1]);
        return -1;
    }
    pid = empm__process_fork(&old);
    if (pid == 0) {                  /* the keeper is nobody's child, ... */
        setsid();                    /* hears no ^C, no signal at all, ... */
        if (fork() != 0)
            _exit(0);
        dup2(in[0], 0);
        if (err >= 0)
            dup2(err, 2);
        if (dup2(told[1], 3) < 0)
            _exit(1);
        empm__fd_close_from(4);      /* and holds nothing of the server's */
        empm__fd_flags(3, 0);
        empm__log_pipe_keep(argv, 3);
    }
    close(in[0]);
    close(told[1]);
    why = pid < 0 ? EAGAIN : 0;
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    p.fd = told[0];
    p.events = POLLIN;
    if (pid > 0 && poll(&p, 1, 5000) > 0 &&
        read(told[0], &why, sizeof why) != (ssize_t)sizeof why)
        why = 0;
    close(told[0]);
    /* a burst shall find room; and nothing is waited for */
    if (why == 0 && empm__fd_flags(in[1], 1) == 0) {
        empm__fd_pipe_room(in[1], 1 << 20);
        return in[1];
    }
    close(in[1]);
    errno = why;
    return -1;
}
#else
static int empm__log_pipe_start(const char *command, int err)
{
    (void)command;
    (void)err;
    errno = ENOSYS;
    return -1;
}
#endif

/* ---------------------------------------------------------------------------
 * >>log-lines -- a line, from its words to where it goes
 *
 * A line is put together in one buffer and leaves in one write(), so lines of
 * several processes do not mix. No line waits for its reader. What load can
 * repeat is counted, and only the first few of a minute are written.
 * ------------------------------------------------------------------------- */

/* A write() that does not wait, whoever is to empty the pipe: EAGAIN then. What
 * we have opened ourselves never blocks; of all else it is asked whether there
 * is room, which for a pipe means PIPE_BUF bytes. */
static ssize_t empm__log_put(int fd, const char *s, size_t n)
{
    struct pollfd p;
    p.fd = fd;
    p.events = POLLOUT;
    p.revents = 0;
    if (poll(&p, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    return write(fd, s, n);
}

/* One line of the error log. `to` is 0 for stderr, a descriptor, or ~facility
 * of syslog, which has a date of its own; `tid` a worker's number, or -1. 0, or
 * -1: the line is lost. */
static int empm__log_write(int to, enum empm_log_level level, long tid,
                           const char *line)
{
    char text[1280], who[24] = "-";
    struct timespec now;
    struct tm tm;
    size_t n;
    if (to < 0) {
        syslog(~to | (int)level, "%s", line);
        return 0;
    }
    if (tid >= 0)
        snprintf(who, sizeof who, "%ld", tid);
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &tm);
    n = (size_t)snprintf(text, sizeof text,
                         "[%.3s %.3s %02d %02d:%02d:%02d.%06ld %d] "
                         "[mpm_event:%s] [pid %ld:tid %s] %s\n",
                         empm__days + tm.tm_wday * 3,
                         empm__months + tm.tm_mon * 3, tm.tm_mday, tm.tm_hour,
                         tm.tm_min, tm.tm_sec, now.tv_nsec / 1000,
                         tm.tm_year + 1900, empm__log_level_name(level),
                         (long)getpid(), who, line);
    n = empm__min(n, sizeof text - 1);
    text[n - 1] = '\n';
    return empm__log_put(to > 0 ? to : 2, text, n) == (ssize_t)n ? 0 : -1;
}

/* Marks "use ErrorLog" in cfg->log: the functions below recognise it and write
 * to cfg->log_target instead. Called directly it writes to stderr. */
static void empm__log_stderr(enum empm_log_level level, const char *line,
                             void *user)
{
    (void)user;
    empm__log_write(0, level, -1, line);
}

static int empm__log_wanted(const empm_config *cfg, enum empm_log_level level)
{
    return cfg->log != NULL && ((int)level <= cfg->log_level ||
                                level == EMPM_LOG_NOTICE);
}

static void empm__log_line(const empm_config *cfg, enum empm_log_level level,
                           long tid, const char *line)
{
    unsigned *uncounted = (unsigned *)(uintptr_t)&cfg->log_lost, lost;
    char text[128];
    if (cfg->log != empm__log_stderr) {
        cfg->log(level, line, cfg->user);
        return;
    }
    if (cfg->log_target < 0)         /* it keeps a pointer to the tag */
        openlog(empm__log_tag(cfg->error_log), LOG_PID | LOG_NDELAY,
                ~cfg->log_target);
    /* what had no room before is told with the next line that has */
    lost = __atomic_exchange_n(uncounted, 0u, __ATOMIC_RELAXED);
    if (lost > 0) {
        snprintf(text, sizeof text, "EMPM0646: %u lines before this one are "
                 "lost: the ErrorLog has no reader, or its disk is full", lost);
        if (empm__log_write(cfg->log_target, EMPM_LOG_ERROR, -1, text) == 0)
            lost = 0;
    }
    if (empm__log_write(cfg->log_target, level, tid, line) < 0)
        lost++;
    if (lost > 0)
        __atomic_fetch_add(uncounted, lost, __ATOMIC_RELAXED);
    if (level <= EMPM_LOG_WARN && cfg->log_target != 0 &&
        empm__load(&cfg->log_echo))
        empm__log_write(0, level, tid, line);
}

static void empm__log_v(const empm_config *cfg, enum empm_log_level level,
                        int code, long tid, const char *client, const char *fmt,
                        va_list ap) EMPM__PRINTF(6, 0);

static void empm__log_v(const empm_config *cfg, enum empm_log_level level,
                        int code, long tid, const char *client, const char *fmt,
                        va_list ap)
{
    char line[1024];
    size_t n = 0;
    if (client != NULL)
        n = (size_t)snprintf(line, 128, "[client %.100s] ", client);
    if (code != 0)
        n += (size_t)snprintf(line + n, 16, "EMPM%04d: ", code);
    vsnprintf(line + n, sizeof line - n, fmt, ap);
    empm__log_tame(line);
    empm__log_line(cfg, level, tid, line);
}

static void empm__log(const empm_config *cfg, enum empm_log_level level,
                      int code, const char *fmt, ...) EMPM__PRINTF(4, 5);

/* `code` is the message's number in >>messages; 0: it has none. */
static void empm__log(const empm_config *cfg, enum empm_log_level level,
                      int code, const char *fmt, ...)
{
    va_list ap;
    if (!empm__log_wanted(cfg, level))
        return;
    va_start(ap, fmt);
    empm__log_v(cfg, level, code, -1, NULL, fmt, ap);
    va_end(ap);
}

#define EMPM__LOG_CODES 64u          /* that one child limits; others are not */
#define EMPM__LOG_MOST  10u          /* lines of one code in a window */
#ifndef EMPM__LOG_WINDOW_MS
#  define EMPM__LOG_WINDOW_MS 60000
#endif

typedef struct empm__log_limit {     /* of one code; all atomic */
    uint32_t code;                   /* 0: free */
    uint32_t began_ms;               /* of the window */
    uint32_t count;                  /* lines in it so far, or left out */
    uint32_t left_out;               /* and not yet told */
} empm__log_limit;

static void empm__log_left_out(const empm_config *cfg,
                               enum empm_log_level level, int code, uint32_t n)
{
    char line[64];
    snprintf(line, sizeof line, "EMPM%04d: %u more of these were left out",
             code, (unsigned)n);
    if (n > 0)
        empm__log_line(cfg, level, -1, line);
}

/* May one more line with this code be written? Threads that meet at the turn of
 * a window may write a line more or less. */
static int empm__log_may(const empm_config *cfg, empm__log_limit *limits,
                         enum empm_log_level level, int code, uint32_t most)
{
    const uint32_t now = empm__time_after(empm__now_ms(), 0);
    empm__log_limit *l = NULL;
    uint32_t i, was;
    int32_t began;
    for (i = 0; l == NULL && i < EMPM__LOG_CODES; i++) {
        was = 0;
        if (__atomic_compare_exchange_n(&limits[i].code, &was, (uint32_t)code,
                                        0, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED) ||
            was == (uint32_t)code)
            l = &limits[i];
    }
    if (l == NULL)
        return 1;
    was = empm__load(&l->began_ms);
    /* far ahead: so long ago that it wrapped */
    began = empm__time_until(was, now);
    if ((was == EMPM__NEVER || began <= -EMPM__LOG_WINDOW_MS ||
         began > EMPM__LOG_WINDOW_MS) &&
        __atomic_compare_exchange_n(&l->began_ms, &was, now, 0,
                                    __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        empm__store(&l->count, 0u);
        empm__log_left_out(cfg, level, code,
                           __atomic_exchange_n(&l->left_out, 0u,
                                               __ATOMIC_RELAXED));
    }
    if (__atomic_fetch_add(&l->count, 1u, __ATOMIC_RELAXED) < most)
        return 1;
    __atomic_fetch_add(&l->left_out, 1u, __ATOMIC_RELAXED);
    return 0;
}

/* ---------------------------------------------------------------------------
 * >>settings -- one table: what can be set, from where to where, and to what
 *
 * A row of the table is all that is known of a setting: its name, its field,
 * its kind, its range, its default and a line of help. Defaults, the setters,
 * the check, -t and -L are loops over the rows, and a test compares the README
 * and the comments of empm_config with them. A default is the text that a file
 * of directives would give, so one reader for each kind is enough.
 * ------------------------------------------------------------------------- */

enum empm__kind {
    /* a number in a field of int, and in one of int64_t */
    EMPM__KIND_INT,
    EMPM__KIND_COUNT,                  /* outside of its range: corrected */
    EMPM__KIND_MS, EMPM__KIND_STUCK,   /* a time */
    EMPM__KIND_I64, EMPM__KIND_KB,
    EMPM__KIND_BOOL, EMPM__KIND_LEVEL, EMPM__KIND_SIGNAL, EMPM__KIND_ETAG,
    EMPM__KIND_REAL,                   /* above min and below max */
    EMPM__KIND_TEXT, EMPM__KIND_TOKENS,
    EMPM__KIND_LIST,                   /* max: texts that there is room for */
    EMPM__KIND_READ                    /* six fields */
};

typedef struct empm__directive {
    const char     *name;
    size_t          offset;
    enum empm__kind kind;
    int64_t         min, max;          /* in the unit of the field */
    const char     *preset;            /* the default; NULL: none */
    const char     *help;
} empm__directive;

#ifndef EVENTMPM_NO_MAIN
#  define EMPM__HELP(text) text
#else
#  define EMPM__HELP(text) NULL        /* -L alone prints it */
#endif
#define EMPM__SET(name, field, kind, min, max, preset, help) \
    { name, offsetof(empm_config, field), EMPM__KIND_##kind, min, max, preset, \
      EMPM__HELP(help) }

/* The first row of a field is its name; those that follow are other names. */
static const empm__directive empm__directives[] = {
    EMPM__SET("Listen", listen, LIST, 0, EMPM_MAX_LISTEN, "8080",
              "address:port, unix:, fd: or systemd:; then proxy, admin, "
              "v6only"),
    EMPM__SET("DocumentRoot", document_root, TEXT, 0, 0, ".",
              "the folder of EMPM_FILES routes that name none"),
    EMPM__SET("AddType", add_type, LIST, 0, EMPM_MAX_LIST, NULL,
              "the media type of files: video/x-matroska .mkv .mka"),
    EMPM__SET("FileETag", file_etag, ETAG, 0, EMPM_ETAG_ALL, "All",
              "what an ETag is made of"),
    EMPM__SET("SpoolDirectory", spool_directory, TEXT, 0, 0, "/tmp",
              "where long bodies wait, in files without a name"),
    EMPM__SET("ServerField", server_field, TEXT, 0, 0, "eventmpm",
              "the value of the field Server; \"\" for none"),
    EMPM__SET("ServerTokens", server_field, TOKENS, 0, 0, "Prod",
              "how much of the version ServerField tells"),
    EMPM__SET("ServerName", server_name, TEXT, 0, 0, NULL,
              "the server's name; none: what the host calls itself"),
    EMPM__SET("ServerRoot", server_root, TEXT, 0, 0, NULL,
              "where relative names of files begin"),
    EMPM__SET("Strict", strict, BOOL, 0, 1, "Off",
              "a number that would be corrected is an error"),
    EMPM__SET("PidFile", pid_file, TEXT, 0, 0, NULL,
              "the file by which -k finds the server"),
    EMPM__SET("User", user_name, TEXT, 0, 0, NULL,
              "the user that serves, if root starts it; none: nobody"),
    EMPM__SET("Group", group_name, TEXT, 0, 0, NULL,
              "the group that serves; none: that of User"),
    EMPM__SET("ChrootDir", chroot_dir, TEXT, 0, 0, NULL,
              "the root directory of the children"),
    EMPM__SET("CoreDumpDirectory", core_dump_directory, TEXT, 0, 0, NULL,
              "where children run; none: where the server was started"),
    EMPM__SET("GracefulStopSignal", graceful_stop_signal, SIGNAL, 0, 64, "QUIT",
              "stops gracefully, as WINCH does"),
    EMPM__SET("ErrorLog", error_log, TEXT, 0, 0, NULL,
              "file, |program or syslog:facility; none: stderr"),
    EMPM__SET("LogFormat", log_format, LIST, 0, EMPM_MAX_LIST, NULL,
              "a format of access logs and its nickname"),
    EMPM__SET("CustomLog", custom_log, LIST, 0, EMPM_MAX_LIST, NULL,
              "an access log: file or |program, format, env=NAME"),
    EMPM__SET("ExtendedStatus", extended_status, BOOL, 0, 1, "On",
              "the status shows times and requests of workers"),
    EMPM__SET("RemoteIPHeader", remote_ip_header, TEXT, 0, 0, NULL,
              "the field in which a proxy names its client"),
    EMPM__SET("RemoteIPTrustedProxy", remote_ip_trusted_proxy, LIST, 0,
              EMPM_MAX_LIST, NULL,
              "addresses and networks of proxies that are believed"),
    EMPM__SET("RemoteIPInternalProxy", remote_ip_trusted_proxy, LIST, 0,
              EMPM_MAX_LIST, NULL, "the same as RemoteIPTrustedProxy"),
    EMPM__SET("MaxConnectionsPerPeer", max_connections_per_peer, INT, 0,
              INT_MAX, "0", "of one address, in a child; 0: no limit"),
    EMPM__SET("SharedStoreSize", shared_store_size, I64, 0, INT64_MAX, "0",
              "bytes of memory for empm_store_*(); 0: none"),
    EMPM__SET("Processes", processes, INT, -1, 20000, "-1",
              "children; -1: by the spare limits; 0: none, threads only"),
    EMPM__SET("StartServers", start_servers, COUNT, 1, INT_MAX, "3",
              "children at first"),
    EMPM__SET("ServerLimit", server_limit, COUNT, 1, 20000, "16",
              "children at most; stays until a restart"),
    EMPM__SET("ThreadsPerChild", threads_per_child, COUNT, 1, INT_MAX, "25",
              "workers of a child"),
    EMPM__SET("ThreadLimit", thread_limit, COUNT, 1, 100000, "64",
              "the most of ThreadsPerChild; stays until a restart"),
    EMPM__SET("MaxRequestWorkers", max_request_workers, COUNT, 1, INT_MAX,
              "400", "workers of all children at most"),
    EMPM__SET("MaxClients", max_request_workers, COUNT, 1, INT_MAX, NULL,
              "the old name of MaxRequestWorkers"),
    EMPM__SET("MinSpareThreads", min_spare_threads, COUNT, 1, 1 << 24, "75",
              "with fewer idle workers, children are started"),
    EMPM__SET("MaxSpareThreads", max_spare_threads, COUNT, 1, INT_MAX, "250",
              "with more idle workers, a child is ended"),
    EMPM__SET("MaxConnectionsPerChild", max_connections_per_child, INT, 0,
              INT_MAX, "0", "then a child is replaced; 0: no limit"),
    EMPM__SET("MaxRequestsPerChild", max_connections_per_child, INT, 0,
              INT_MAX, NULL, "the old name of MaxConnectionsPerChild"),
    EMPM__SET("AsyncRequestWorkerFactor", async_request_worker_factor, REAL, 0,
              1000000, "2",
              "a child accepts while fewer jobs queue per idle worker, plus 1"),
    EMPM__SET("MaxOpenConnections", max_open_connections, INT, 0, 10000000, "0",
              "of a child; 0: two thirds of the descriptors there are"),
    EMPM__SET("MaxOpenFiles", max_open_files, INT, 0, 10000000, "0",
              "of a child; 0: a third of the descriptors there are"),
    EMPM__SET("ThreadStackSize", thread_stack_size, INT, 0, INT_MAX, "0",
              "bytes; 0: the system's"),
    EMPM__SET("ListenBacklog", listen_backlog, INT, 1, 1 << 20, "511",
              "connections that wait to be accepted"),
    EMPM__SET("SendBufferSize", send_buffer_size, INT, 0, INT_MAX, "0",
              "bytes that a socket buffers; 0: the system's"),
    EMPM__SET("ReceiveBufferSize", receive_buffer_size, INT, 0, INT_MAX, "0",
              "bytes that a socket buffers; 0: the system's"),
    EMPM__SET("MaxMemFree", max_mem_free, KB, 0, INT64_MAX, "2048",
              "KiB of idle buffers that a child keeps; 0: all"),
    EMPM__SET("OpenFileCache", open_file_cache, INT, 0, 4096, "64",
              "open files that a child keeps; 0: none"),
    EMPM__SET("Timeout", timeout_ms, MS, 1, INT_MAX, "60",
              "without progress in writing, the connection is closed"),
    EMPM__SET("ResponseMinRate", response_min_rate, INT, 0, 1 << 20, "100",
              "bytes/s that a client takes in each Timeout; 0: any"),
    EMPM__SET("KeepAlive", keep_alive, BOOL, 0, 1, "On",
              "a connection may carry several requests"),
    EMPM__SET("KeepAliveTimeout", keep_alive_timeout_ms, MS, 0, INT_MAX, "5",
              "how long a connection waits for its next request"),
    EMPM__SET("MaxKeepAliveRequests", max_keep_alive_requests, INT, 0, INT_MAX,
              "1000", "then a connection is closed; 0: no limit"),
    EMPM__SET("RequestReadTimeout", header_timeout_ms, READ, 0, INT_MAX,
              "header=20-40,MinRate=500 body=20,MinRate=500",
              "how long head and body of a request may take"),
    EMPM__SET("LingerTimeout", linger_timeout_ms, MS, 1, INT_MAX, "30",
              "of reading on after a refusal, so that it arrives"),
    EMPM__SET("LingerTimeoutShort", linger_short_ms, MS, 1, INT_MAX, "2",
              "the same after a time-out, or without progress"),
    EMPM__SET("GracefulShutdownTimeout", graceful_shutdown_timeout_ms, MS, 0,
              INT_MAX, "0", "of a graceful stop; 0: no limit"),
    EMPM__SET("GracefulShutdownDelay", graceful_shutdown_delay_ms, MS, 0,
              INT_MAX, "0", "health is 503 so long before a graceful stop"),
    EMPM__SET("GracefulRestartTimeout", graceful_restart_timeout_ms, MS, 0,
              INT_MAX, "600", "for old children to drain; 0: no limit"),
    EMPM__SET("StartTimeout", start_timeout_ms, MS, 1, INT_MAX, "30",
              "for new children to be healthy"),
    EMPM__SET("WatchdogInterval", watchdog_interval_ms, MS, 0, INT_MAX, "10",
              "a child that misses three pings is replaced; 0: off"),
    EMPM__SET("StuckWorkerTimeout", stuck_worker_timeout_ms, STUCK, 0, INT_MAX,
              "60", "a handler that takes longer is logged; 0: off"),
    EMPM__SET("StopTimeout", stop_timeout_ms, MS, 1, INT_MAX, "5",
              "for running requests to end at a plain stop"),
    EMPM__SET("LimitRequestLine", limit_request_line, INT, 16, 1 << 20, "8190",
              "bytes; else 414"),
    EMPM__SET("LimitRequestFieldSize", limit_request_field_size, INT, 16,
              1 << 20, "8190", "bytes of a field; else 431"),
    EMPM__SET("LimitRequestFields", limit_request_fields, INT, 0, 32767, "100",
              "fields of a request; else 431; 0: no limit"),
    EMPM__SET("LimitRequestHead", limit_request_head, INT, 64, 1 << 24, "65536",
              "bytes of the whole head; else 431"),
    EMPM__SET("LimitRequestBody", limit_request_body, I64, 0, INT64_MAX,
              "1048576", "bytes; else 413; 0: no limit"),
    EMPM__SET("LimitBodyInMemory", limit_body_in_memory, I64, 0, 1 << 30,
              "65536", "bytes; longer bodies are spooled"),
    EMPM__SET("MaxBodyMemory", max_body_memory, I64, 0, INT64_MAX, "67108864",
              "bytes of all bodies in a child; else 503"),
    EMPM__SET("MaxSpoolBytes", max_spool_bytes, I64, 0, INT64_MAX,
              "1073741824", "bytes on disk for a child; else 503"),
    EMPM__SET("LimitResponseSpool", limit_response_spool, I64, 0, INT64_MAX,
              "67108864", "bytes of an answer that wait; else aborted"),
    EMPM__SET("LimitLingerBytes", limit_linger_bytes, I64, 0, INT64_MAX, "0",
              "bytes that a lingering connection reads; 0: no limit"),
    EMPM__SET("LogLevel", log_level, LEVEL, 0, EMPM_LOG_DEBUG, "warn",
              "the least important messages that are logged")
};

static const empm__directive *empm__directive_find(const char *name)
{
    size_t i;
    for (i = 0; i < EMPM__COUNT(empm__directives); i++)
        if (empm__text_equal(name, empm__directives[i].name))
            return &empm__directives[i];
    return NULL;
}

/* The default of a directive that has one. */
static const char *empm__directive_preset(const char *name)
{
    return empm__directive_find(name)->preset;
}

/* The row that gives the field of `d` its name; others are other names. */
static const empm__directive *empm__directive_first(const empm__directive *d)
{
    size_t i = 0;
    while (empm__directives[i].offset != d->offset)
        i++;
    return &empm__directives[i];
}

/* --- fields --------------------------------------------------------------- */

static int empm__directive_is_number(const empm__directive *d)
{
    return d->kind <= EMPM__KIND_ETAG;
}

/* The number in the field of a directive, whatever its type. */
static int64_t empm__directive_number(const empm_config *cfg,
                                      const empm__directive *d)
{
    const char *at = (const char *)cfg + d->offset;
    int64_t wide;
    int v;
    if (d->kind == EMPM__KIND_I64 || d->kind == EMPM__KIND_KB) {
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
    memcpy(&v, at, sizeof v);
    return v;
}

static void empm__directive_set_number(empm_config *cfg,
                                       const empm__directive *d, int64_t wide)
{
    char *at = (char *)cfg + d->offset;
    const int v = (int)wide;
    if (d->kind == EMPM__KIND_I64 || d->kind == EMPM__KIND_KB)
        memcpy(at, &wide, sizeof wide);
    else
        memcpy(at, &v, sizeof v);
}

static int empm__directive_in_range(const empm__directive *d, int64_t v)
{
    return v >= d->min && v <= d->max;
}

static double empm__directive_real(const empm_config *cfg,
                                   const empm__directive *d)
{
    double x;
    memcpy(&x, (const char *)cfg + d->offset, sizeof x);
    return x;
}

/* The text of a directive; of a list, the first. */
static const char *empm__directive_text(const empm_config *cfg,
                                        const empm__directive *d)
{
    const char *text;
    memcpy(&text, (const char *)cfg + d->offset, sizeof text);
    return text;
}

static int empm__directive_is_real(const empm__directive *d, double x)
{
    return x > (double)d->min && x < (double)d->max;
}

/* A word that stands for a number. */
typedef struct empm__named {
    const char *name;
    int         value;
} empm__named;

static const empm__named empm__stop_signals[] = {
    { "none", 0 }, { "QUIT", SIGQUIT }, { "TERM", SIGTERM },
    { "USR2", SIGUSR2 }, { "ALRM", SIGALRM }, { "WINCH", SIGWINCH },
#ifdef SIGPWR
    { "PWR", SIGPWR },
#endif
    { "IO", SIGIO }
};

static const empm__named empm__etags[] = {
    { "None", 0 }, { "All", EMPM_ETAG_ALL }, { "INode", EMPM_ETAG_INODE },
    { "MTime", EMPM_ETAG_MTIME }, { "Size", EMPM_ETAG_SIZE }
};

/* Writes a number as a file of directives gives it. */
static void empm__directive_format(const empm__directive *d, int64_t v,
                                   char *to, size_t n)
{
    const long long shown = (long long)v;
    size_t i, at = 0;
    snprintf(to, n, "%lld", shown);
    if (d->kind == EMPM__KIND_MS || d->kind == EMPM__KIND_STUCK)
        snprintf(to, n, v % 1000 == 0 ? "%lld" : "%lldms",
                 v % 1000 == 0 ? shown / 1000 : shown);
    else if (d->kind == EMPM__KIND_KB)
        snprintf(to, n, "%lld", shown / 1024 + (shown % 1024 != 0));
    else if (d->kind == EMPM__KIND_BOOL)
        snprintf(to, n, "%s", v != 0 ? "On" : "Off");
    else if (d->kind == EMPM__KIND_LEVEL)
        snprintf(to, n, "%s", empm__log_level_name((enum empm_log_level)v));
    else if (d->kind == EMPM__KIND_SIGNAL) {
        for (i = 0; i < EMPM__COUNT(empm__stop_signals); i++)
            if (v == empm__stop_signals[i].value)
                snprintf(to, n, "%s", empm__stop_signals[i].name);
    } else if (d->kind == EMPM__KIND_ETAG) {
        for (i = 0; i < EMPM__COUNT(empm__etags) && at < n; i++)
            if (v == empm__etags[i].value ||
                (i > 1 && v != EMPM_ETAG_ALL && (v & empm__etags[i].value)))
                at += (size_t)snprintf(to + at, n - at, at > 0 ? " %s" : "%s",
                                       empm__etags[i].name);
    }
}

/* ---------------------------------------------------------------------------
 * >>values -- from the text of a directive to its field
 *
 * Each kind of setting has one reader, which the defaults, the program, files
 * and the command line all go by. It returns NULL or what is wrong, as the end
 * of a sentence that begins with name and value. Texts are copied into the
 * config's arena.
 * ------------------------------------------------------------------------- */

/* The config's arena: a list of blocks, each a pointer to the next and a
 * text. */
static char *empm__config_keep(empm_config *cfg, const char *text)
{
    size_t n = strlen(text) + 1;
    void **block = (void **)EMPM_MALLOC(sizeof(void *) + n);
    if (block == NULL)
        return NULL;
    block[0] = cfg->arena;
    cfg->arena = block;
    return (char *)memcpy(block + 1, text, n);
}

EMPM_API void empm_config_free(empm_config *cfg)
{
    while (cfg->arena != NULL) {
        void **block = (void **)cfg->arena;
        cfg->arena = block[0];
        EMPM_FREE(block);
    }
}

/* "2" or "2.5"; -1: no such number. */
static double empm__config_parse_real(const char *s)
{
    const size_t n = strspn(s, "0123456789");
    const char *rest = s + n;
    double v = 0, unit = 1;
    for (; empm__ascii_is_digit((unsigned char)*s); s++)
        v = v * 10 + (*s - '0');
    if (*rest == '.')
        for (rest++; empm__ascii_is_digit((unsigned char)*rest); rest++)
            v += (*rest - '0') * (unit /= 10);
    return *rest == '\0' && (n > 0 || unit < 1) ? v : -1;
}

/* "5" (seconds), "100ms", "1min" -> milliseconds, at most those that there are
 * (24 days); -1: not a time. */
static int64_t empm__config_parse_ms(const char *s, size_t n)
{
    static const struct { char unit[4]; int64_t ms; } units[] = {
        { "", 1000 }, { "ms", 1 }, { "s", 1000 }, { "mi", 60000 },
        { "min", 60000 }, { "h", 3600000 }
    };
    size_t digits = 0, i;
    int64_t v;
    while (digits < n && empm__ascii_is_digit((unsigned char)s[digits]))
        digits++;
    v = empm__parse_u63(s, digits);
    if (v < 0 || v > INT_MAX)
        return -1;
    for (i = 0; i < EMPM__COUNT(units); i++)
        if (empm__text_same(s + digits, n - digits, units[i].unit,
                            strlen(units[i].unit)))
            return v <= INT_MAX / units[i].ms ? v * units[i].ms : INT_MAX;
    return -1;
}

/* "header=20-40,MinRate=500 body=20,MinRate=500", mod_reqtimeout's syntax; its
 * handshake= is taken and has no meaning yet. Returns NULL or what is wrong. */
static const char *empm__config_set_read_timeout(empm_config *cfg,
                                                 const char *s)
{
    static const char *const stages[] = { "header=", "body=", "handshake=" };
    while (*s != '\0') {
        int64_t first, last = 0, rate = 0;
        size_t n, stage;
        s += strspn(s, " \t");
        for (stage = 0; stage < EMPM__COUNT(stages); stage++)
            if (empm__text_begins(s, stages[stage]))
                break;
        if (stage == EMPM__COUNT(stages))
            return "wants header=N[-M][,MinRate=R] or body=...";
        s += strlen(stages[stage]);
        n = strcspn(s, "-, \t");
        if ((first = empm__config_parse_ms(s, n)) < 0)
            return "is not a time";
        s += n;
        if (*s == '-') {
            n = strcspn(++s, ", \t");
            if ((last = empm__config_parse_ms(s, n)) < 0)
                return "is not a time";
            s += n;
            if (last <= first)
                return "has a maximum that is not above the initial time";
        }
        if (*s == ',') {
            if (!empm__text_begins(++s, "MinRate="))
                return "wants MinRate= after the comma";
            n = strcspn(s += 8, " \t");
            rate = empm__parse_u63(s, n);
            if (rate <= 0 || rate > INT_MAX)
                return "wants a MinRate above 0";
            s += n;
        } else if (last > 0)
            return "has a range without MinRate";
        s += strspn(s, " \t");
        if (stage == 0) {
            cfg->header_timeout_ms = (int)first;
            cfg->header_timeout_max_ms = (int)last;
            cfg->header_min_rate = (int)rate;
        } else if (stage == 1) {
            cfg->body_timeout_ms = (int)first;
            cfg->body_timeout_max_ms = (int)last;
            cfg->body_min_rate = (int)rate;
        }
    }
    return NULL;
}

/* SIGQUIT, QUIT or 3; "none" is 0. -1: no signal that could be meant. */
static int empm__config_parse_signal(const char *s)
{
    const int64_t n = empm__parse_u63(s, strlen(s));
    size_t i;
    if (empm__text_begins(s, "SIG"))
        s += 3;
    for (i = 0; i < EMPM__COUNT(empm__stop_signals); i++)
        if (empm__text_equal(s, empm__stop_signals[i].name) ||
            n == empm__stop_signals[i].value)
            return empm__stop_signals[i].value;
    return -1;
}

/* LogLevel: one word of it; -1: it is none. What Apache traces, nobody does. */
static int empm__config_parse_level(const char *s)
{
    int v;
    for (v = 0; v <= EMPM_LOG_DEBUG; v++)
        if (empm__text_equal(s, empm__log_level_name((enum empm_log_level)v)))
            return v;
    return empm__text_begins(s, "trace") && s[5] >= '1' && s[5] <= '8' &&
           s[6] == '\0' ? EMPM_LOG_DEBUG : -1;
}

/* FileETag: a word as EMPM_ETAG_* bits; -1: it is none. */
static int empm__config_parse_etag(const char *s)
{
    size_t i;
    for (i = 0; i < EMPM__COUNT(empm__etags); i++)
        if (empm__text_equal(s, empm__etags[i].name))
            return empm__etags[i].value;
    return -1;
}

/* ServerTokens: what Server tells of us. */
static const char *empm__config_tokens(const char *value)
{
    static const char *const names[][2] = {
        { "Prod", "eventmpm" }, { "ProductOnly", "eventmpm" },
        { "Major", "eventmpm/" EMPM__VERSION_MAJOR },
        { "Minor", "eventmpm/" EMPM__VERSION_MINOR },
        { "Min", "eventmpm/" EMPM_VERSION },
        { "Minimal", "eventmpm/" EMPM_VERSION },
        { "OS", "eventmpm/" EMPM_VERSION " (Unix)" },
        { "Full", "eventmpm/" EMPM_VERSION " (Unix)" }
    };
    size_t i;
    for (i = 0; i < EMPM__COUNT(names); i++)
        if (empm__text_equal(value, names[i][0]))
            return names[i][1];
    return NULL;
}

static const char empm__no_memory[] = "out of memory";
static const char empm__out_of_range[] = "is out of range";

#define EMPM__ARGUMENT 1024            /* bytes of one argument, and a NUL */

/* LogLevel and FileETag: any number of words, each changes *v. `word` is the
 * first. 0: that was all; negative: one is wrong. */
static int empm__directive_parse_words(const empm__directive *d, char *word,
                                       const char **rest, int64_t *v)
{
    int r = 1, one;
    for (; r > 0; r = empm__text_word(rest, word, EMPM__ARGUMENT)) {
        /* "core:info" is for one module: not here */
        const char *module = strrchr(word, ':');
        if (d->kind == EMPM__KIND_ETAG)
            *v |= one = empm__config_parse_etag(word);
        else {
            one = empm__config_parse_level(module != NULL && module != word
                                           ? module + 1 : word);
            *v = module == NULL ? one : *v;
        }
        if (one < 0)
            return -1;
    }
    return r;
}

/* Reads a number of whatever kind, of which `word` is the first argument and
 * *rest what follows. Returns NULL or what is wrong. */
static const char *empm__directive_parse(empm_config *cfg,
                                         const empm__directive *d, char *word,
                                         const char **rest, int64_t *v)
{
    const int minus = word[0] == '-';
    int r;
    switch (d->kind) {
    case EMPM__KIND_BOOL:
        *v = empm__text_equal(word, "on");
        return *v || empm__text_equal(word, "off") ? NULL : "must be On or Off";
    case EMPM__KIND_LEVEL:
        *v = empm__directive_number(cfg, d);
        return empm__directive_parse_words(d, word, rest, v) == 0 ? NULL
               : "must be emerg, alert, crit, error, warn, notice, info, "
                 "debug or trace1 to trace8";
    case EMPM__KIND_ETAG:
        *v = 0;
        return empm__directive_parse_words(d, word, rest, v) == 0 ? NULL
               : "must be None, All, or some of INode, MTime and Size";
    case EMPM__KIND_SIGNAL:
        *v = empm__config_parse_signal(word);
        return *v >= 0 ? NULL : "must be none, QUIT, ALRM, IO, PWR or WINCH";
    case EMPM__KIND_MS:
    case EMPM__KIND_STUCK:
        *v = empm__config_parse_ms(word, strlen(word));
        if (*v < 0)
            return "is not a time (5, 100ms, 1min)";
        if (d->kind == EMPM__KIND_MS)
            return NULL;
        r = empm__text_word(rest, word, EMPM__ARGUMENT);
        if (r < 0 || (r > 0 && !empm__text_equal(word, "replace")))
            return "takes a time and perhaps: replace";
        cfg->stuck_worker_replace = r;
        return NULL;
    default:
        *v = empm__parse_u63(word + minus, strlen(word + minus));
        if (*v < 0)
            return "is not a whole number (and takes no unit)";
        *v = minus ? -*v : *v;
        if (d->kind == EMPM__KIND_KB)
            *v = *v < 0 || *v > INT64_MAX / 1024 ? -1 : *v * 1024;
        return NULL;
    }
}

/* Adds to a list; `replace`: it begins anew. */
static const char *empm__directive_store_list(empm_config *cfg,
                                              const empm__directive *d,
                                              const char *value, int replace)
{
    const char **list = (const char **)(void *)((char *)cfg + d->offset);
    const char *rest = value;
    char word[EMPM__ARGUMENT];
    int i;
    for (i = 0; replace && i < d->max; i++)
        list[i] = NULL;
    for (i = 0; i < d->max && list[i] != NULL; i++)
        ;
    if (*value == '\0')
        return "wants a value";
    if (i == d->max)
        return "is given more often than there is room for";
    /* formats have quotes of their own; all else may have them around it */
    if (list != cfg->log_format && list != cfg->custom_log &&
        empm__text_word(&rest, word, sizeof word) == 1 && *rest == '\0')
        value = word;
    return (list[i] = empm__config_keep(cfg, value)) != NULL ? NULL
                                                             : empm__no_memory;
}

static const char *empm__directive_store_text(empm_config *cfg,
                                              const empm__directive *d,
                                              const char *word,
                                              const char *rest)
{
    const char *text = d->kind == EMPM__KIND_TEXT ? word
                                                  : empm__config_tokens(word);
    if (text == NULL)
        return "must be Prod, Major, Minor, Min, OS or Full";
    if (rest[strspn(rest, " \t")] != '\0')
        return "takes one argument: quotes go around what has spaces";
    if (strcmp(text, ".") == 0)
        text = "./";                 /* ServerRoot; the default "." is not */
    if ((text = empm__config_keep(cfg, text)) == NULL)
        return empm__no_memory;
    memcpy((char *)cfg + d->offset, &text, sizeof text);
    return NULL;
}

/* Stores one value; returns NULL or what is wrong with it. `replace`: a list
 * begins anew. */
static const char *empm__directive_store(empm_config *cfg,
                                         const empm__directive *d,
                                         const char *value, int replace)
{
    char word[EMPM__ARGUMENT] = "";
    const char *rest = value, *why = NULL;
    double real = 0;
    int64_t v = 0;
    int r;
    if (d->kind == EMPM__KIND_LIST)
        return empm__directive_store_list(cfg, d, value, replace);
    if (d->kind == EMPM__KIND_READ)
        return *value != '\0' ? empm__config_set_read_timeout(cfg, value)
                              : "wants a value";
    if ((r = empm__text_word(&rest, word, sizeof word)) < 0)
        return "has a quote that is not closed, or is too long";
    /* an empty one means something to ServerField alone */
    if (d->kind == EMPM__KIND_TEXT ? *word == '\0' && d->offset !=
                                         offsetof(empm_config, server_field)
                                   : r == 0)
        return "wants a value";
    if (d->kind == EMPM__KIND_TEXT || d->kind == EMPM__KIND_TOKENS)
        return empm__directive_store_text(cfg, d, word, rest);
    if (d->kind != EMPM__KIND_REAL)
        why = empm__directive_parse(cfg, d, word, &rest, &v);
    else if (!empm__directive_is_real(d, real = empm__config_parse_real(word)))
        why = "must be a positive number, such as 2 or 2.5";
    if (why != NULL)
        return why;
    if (rest[strspn(rest, " \t")] != '\0')
        return "takes one argument";
    if (d->kind == EMPM__KIND_REAL)
        memcpy((char *)cfg + d->offset, &real, sizeof real);
    else if (d->kind == EMPM__KIND_COUNT ? v < INT_MIN || v > INT_MAX
                                         : !empm__directive_in_range(d, v))
        return empm__out_of_range;
    else
        empm__directive_set_number(cfg, d, v);
    return NULL;
}

/* A text is taken from its row as it is, so nothing is allocated; an empty list
 * means its default by itself. */
EMPM_API empm_config empm_defaults(void)
{
    empm_config cfg;
    size_t i;
    memset(&cfg, 0, sizeof cfg);
    for (i = 0; i < EMPM__COUNT(empm__directives); i++) {
        const empm__directive *d = &empm__directives[i];
        if (d->kind == EMPM__KIND_TEXT)
            memcpy((char *)&cfg + d->offset, &d->preset, sizeof d->preset);
        else if (d->preset != NULL && d->kind != EMPM__KIND_TOKENS &&
                 d->kind != EMPM__KIND_LIST)
            empm__directive_store(&cfg, d, d->preset, 0);
    }
    return cfg;
}

/* ---------------------------------------------------------------------------
 * >>directives -- a name and a value from outside
 *
 * A name may be one of ours, one of Apache's, or misspelt. The first is set,
 * the second is ignored where it has no meaning here and refused, with what
 * takes its place, where it has one; for the third the nearest name is
 * proposed.
 * ------------------------------------------------------------------------- */

/* Directives of Apache's that have no meaning here: accepted, so that its files
 * load, and said. */
static const char empm__meaningless[] =
    "AcceptErrorsNonFatal AcceptFilter AcceptMutex AccessFileName "
    "AllowOverride AllowOverrideList AsyncFilter DefaultRuntimeDir "
    "DefaultStateDir EnableExceptionHook EnableMMAP EnableSendfile "
    "ErrorLogFormat FlushMaxPipelined FlushMaxThreshold "
    "HostnameLookups HttpProtocolOptions LimitInternalRecursion "
    "LimitXMLRequestBody ListenCoresBucketsRatio LoadFile LoadModule LockFile "
    "LogIOTrackTTFB MaxRangeOverlaps MaxRangeReversals MaxRanges "
    "MergeTrailers Mutex NameVirtualHost ReadBufferSize RegisterHttpMethod "
    "ScoreBoardFile SeeRequestTail ServerAdmin ServerSignature TraceEnable "
    "UseCanonicalName UseCanonicalPhysicalPort";

/* Directives and sections of Apache's that mean something and are not here: to
 * leave one out in silence could open what it closes, so each is an error that
 * says what takes its place. "SSL*": all names that begin so. */
static const struct { const char *names, *instead; } empm__apaches[] = {
    { "MinSpareServers MaxSpareServers",
      "this is the event MPM: MinSpareThreads, MaxSpareThreads" },
    { "AssignUserID MaxThreads MaxThreadsPerChild NumServers StartThreads "
      "ThreadsPerProcess",
      "this is the event MPM: ThreadsPerChild, MaxRequestWorkers" },
    { "SSL* MD* NSS* <MDomainSet",
      "there is no TLS yet: put a proxy that has it in front of a "
      "Listen \"127.0.0.1:8080 proxy\"" },
    { "H2* Protocols ProtocolsHonorOrder",
      "HTTP/1.1 is spoken: put a proxy that has HTTP/2 in front" },
    { "Proxy* Balancer* AllowCONNECT NoProxy SetProxy* <Proxy <ProxyMatch",
      "write a handler that asks the other server, or put a proxy in front" },
    { "RemoteIPInternalProxyList RemoteIPTrustedProxyList",
      "RemoteIPTrustedProxy names them" },
    { "RemoteIPProxyProtocol RemoteIPProxyProtocolExceptions",
      "the word proxy stands behind the port: Listen \"8080 proxy\"" },
    { "RemoteIPProxiesHeader", "RemoteIPHeader is all there is" },
    { "Rewrite* Redirect RedirectMatch RedirectPermanent RedirectRelative "
      "RedirectTemp QualifyRedirectURL",
      "write a route whose handler sets Location and returns 301" },
    { "Alias AliasMatch AliasPreservePath UserDir",
      "write a route: EMPM_FILES(\"GET /path/\", \"/folder\")" },
    { "Action AddHandler CGI* ForceLanguagePriority Imap* Lua* Passenger* "
     "Perl* "
      "RemoveHandler SSI* Script ScriptAlias ScriptAliasMatch "
     "ScriptInterpreter* "
      "ScriptSock SetHandler SuexecUserGroup WSGI* XBitHack php_* php5_* "
      "Dav* DBD* Session* ISAPI* <Perl",
      "write a handler in C: EMPM_ROUTE(\"GET /path\", handler, NULL)" },
    { "Header RequestHeader Expires* CookieDomain CookieExpires CookieName "
      "CookieStyle CookieTracking MetaDir MetaFiles MetaSuffix",
      "a handler calls empm_set_header()" },
    { "ErrorDocument",
      "a handler writes the text of its own errors after empm_status()" },
    { "AddAlt AddAltBy* AddDescription AddIcon AddIconBy* DefaultIcon "
      "HeaderName Index* Options ReadmeName",
      "folders are not listed: write an index.html, or a handler" },
    { "DirectoryIndex DirectoryCheckHandler DirectoryIndexRedirect",
      "a folder shows its index.html" },
    { "DirectorySlash", "/a is always redirected to the folder /a/" },
    { "FallbackResource CheckSpelling CheckCaseOnly CheckBasenameMatch",
      "EMPM_FILES_ELSE names a handler for what is no file" },
    { "AddCharset AddDefaultCharset AddEncoding AddLanguage "
      "DefaultLanguage DefaultType ForceType LanguagePriority MimeMagicFile "
      "ModMimeUsePathInfo MultiviewsMatch RemoveCharset RemoveEncoding "
      "RemoveLanguage RemoveType TypesConfig CacheNegotiatedDocs",
      "a handler sets Content-Type and calls empm_send_file()" },
    { "Auth* Allow AllowMethods Anonymous* Deny LDAP* Order Require Satisfy "
      "<AuthnProviderAlias <AuthzProviderAlias <RequireAll <RequireAny "
      "<RequireNone", "a route's on_head says who may come in: see "
      "members_only() in example_server.c" },
    { "TransferLog", "CustomLog FILE common" },
    { "BufferedLogs CookieLog ForensicLog GlobalLog LogMessage RewriteLog "
      "RewriteLogLevel ScriptLog ScriptLogBuffer ScriptLogLength",
      "CustomLog and ErrorLog are all the logs" },
    { "BrowserMatch* PassEnv SetEnv SetEnvIf* UnsetEnv",
      "a handler asks getenv() and empm_header()" },
    { "Brotli* Buffer* Charset* Deflate* DumpIO* ExtFilter* Filter* InputSed "
      "OutputSed Substitute* AddInputFilter AddOutputFilter "
      "AddOutputFilterByType RemoveInputFilter RemoveOutputFilter "
      "SetInputFilter SetOutputFilter",
      "nothing changes what is sent: a handler can, or a proxy in front" },
    { "Cache* Socache*", "put a cache in front" },
    { "<VirtualHost ServerAlias ServerPath VirtualDocumentRoot* "
      "VirtualScriptAlias*", "one host is served: its settings stand "
      "outside of any section" },
    { "<Directory <DirectoryMatch <Files <FilesMatch <Location <LocationMatch "
      "<Limit <LimitExcept <If <ElseIf <Else",
      "the program's routes say what is served, and to whom" },
    { "RLimitCPU RLimitMEM RLimitNPROC",
      "ulimit sets it before the start, or systemd's Limit...=" },
    { "Macro <Macro Use UndefMacro <IfDirective <IfSection",
      "Define, ${NAME}, <IfDefine> and Include are all there is" },
    { "Define UnDefine Include IncludeOptional",
      "it stands in a file, which -f names" },
    { "AcceptPathInfo AllowEncodedSlashes CGIPassAuth ContentDigest "
     "KeptBodySize "
      "MergeSlashes RegexDefaultOptions StrictHostCheck UnsafeAllow3F",
      "there is one way here: leave it out" }
};

/* Is `name` one of `list`, whose names stand between spaces? */
static int empm__text_listed(const char *list, const char *name)
{
    const size_t len = strlen(name);
    for (;;) {
        const size_t n = strcspn(list, " ");
        if (list[n - 1] == '*' && len >= n - 1
                ? empm__text_same(list, n - 1, name, n - 1)
                : empm__text_same(list, n, name, len))
            return 1;
        if (list[n] == '\0')
            return 0;
        list += n + 1;
    }
}

/* What takes the place of a directive, or "<Section", of Apache's, or NULL. */
static const char *empm__directive_instead_of(const char *name)
{
    size_t i;
    for (i = 0; i < EMPM__COUNT(empm__apaches); i++)
        if (empm__text_listed(empm__apaches[i].names, name))
            return empm__apaches[i].instead;
    return NULL;
}

/* How many letters have to be changed, added or taken away; at most 99. */
static size_t empm__directive_distance(const char *a, const char *b)
{
    size_t row[48], n = strlen(b), i, k;
    if (n >= EMPM__COUNT(row) || strlen(a) >= EMPM__COUNT(row))
        return 99;
    for (k = 0; k <= n; k++)
        row[k] = k;
    for (i = 0; a[i] != '\0'; i++) {
        size_t corner = row[0], above;
        row[0] = i + 1;
        for (k = 1; k <= n; k++) {
            const int differ = empm__ascii_lower((unsigned char)a[i]) !=
                               empm__ascii_lower((unsigned char)b[k - 1]);
            above = row[k];
            row[k] = empm__min(empm__min(row[k - 1], above) + 1,
                               corner + (size_t)differ);
            corner = above;
        }
    }
    return row[n];
}

static const char *empm__directive_nearest(const char *name)
{
    const char *best = NULL;
    size_t least = strlen(name) / 3 + 2, i;
    for (i = 0; i < EMPM__COUNT(empm__directives); i++) {
        const size_t d = empm__directive_distance(name,
                                                  empm__directives[i].name);
        if (d < least) {
            least = d;
            best = empm__directives[i].name;
        }
    }
    return best;
}

/* A name of a file as a configuration gives it: relative to ServerRoot; but
 * ".", the default DocumentRoot, must not become the configuration's folder. */
static const char *empm__config_path(const empm_config *cfg, const char *name,
                                     char *to, size_t n)
{
    if (name[0] == '/' || strcmp(name, ".") == 0 || cfg->server_root == NULL)
        return name;
    return snprintf(to, n, "%s/%s", cfg->server_root, name) < (int)n ? to
                                                                     : name;
}

/* What empm_check() says, and how often it was an error. */
typedef struct empm__report {
    void (*say)(enum empm_log_level, const char *, void *);
    void  *user;
    int    errors;
    int    result;               /* EMPM_EINVAL or EMPM_ENOMEM after an error */
} empm__report;

static void empm__report_say(empm__report *r, enum empm_log_level level,
                             int code, const char *fmt, ...) EMPM__PRINTF(4, 5);

static void empm__report_say(empm__report *r, enum empm_log_level level,
                             int code, const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    const size_t n = (size_t)snprintf(line, 16, "EMPM%04d: ", code);
    va_start(ap, fmt);
    vsnprintf(line + n, sizeof line - n, fmt, ap);
    va_end(ap);
    empm__log_tame(line);
    if (level <= EMPM_LOG_ERROR) {
        r->errors++;
        r->result = r->result == EMPM_ENOMEM ? r->result : EMPM_EINVAL;
    }
    if (r->say != NULL)
        r->say(level, line, r->user);
}

typedef struct empm__first {           /* keeps the first error */
    char  *err;
    size_t n;
} empm__first;

static void empm__report_first(enum empm_log_level level, const char *line,
                               void *user)
{
    empm__first *f = (empm__first *)user;
    if (level <= EMPM_LOG_ERROR && f->n > 0) {
        snprintf(f->err, f->n, "%s", line);
        f->n = 0;
    }
}

static void empm__report_first_init(empm__report *rep, empm__first *f,
                                    char *err, size_t n)
{
    f->err = err;
    f->n = err != NULL ? n : 0;
    memset(rep, 0, sizeof *rep);
    rep->say = empm__report_first;
    rep->user = f;
}

/* Sets one directive, wherever it stands: `where` is "file:line: " or "".
 * `lists`: a bit for each list that has begun here; another one begins anew. */
static void empm__directive_set(empm_config *cfg, const char *where,
                                const char *name, const char *value,
                                uint64_t *lists, empm__report *rep)
{
    static const char *const old[][2] = {
        { "MaxClients", "MaxRequestWorkers" },
        { "MaxRequestsPerChild", "MaxConnectionsPerChild" }
    };
    const empm__directive *d = empm__directive_find(name);
    const char *why, *near;
    char min[24], max[24];
    uint64_t bit;
    size_t i;
    if (d == NULL && empm__text_listed(empm__meaningless, name)) {
        empm__report_say(rep, EMPM_LOG_INFO, 5121, "%s%s has no meaning here "
                         "and is ignored", where, name);
        return;
    }
    if (d == NULL && (why = empm__directive_instead_of(name)) != NULL) {
        empm__report_say(rep, EMPM_LOG_ERROR, 5126, "%s%s is Apache's and not "
                         "here: %s", where, name, why);
        return;
    }
    if (d == NULL) {
        near = empm__directive_nearest(name);
        empm__report_say(rep, EMPM_LOG_ERROR, 5122, "%sInvalid command '%s', "
                         "%s%s%s", where, name, near != NULL ? "perhaps '"
                                                   : "there is no such "
                         "directive",
                         near != NULL ? near : "", near != NULL ? "' is meant"
                                                                : "");
        return;
    }
    for (i = 0; i < EMPM__COUNT(old); i++)
        if (empm__text_equal(name, old[i][0]))
            empm__report_say(rep, EMPM_LOG_INFO, i == 0 ? 521 : 545,
                             "%s%s is deprecated, use %s", where, old[i][0],
                             old[i][1]);
    bit = d->kind != EMPM__KIND_LIST ? 0
          : UINT64_C(1) << (empm__directive_first(d) - empm__directives) % 64;
    why = empm__directive_store(cfg, d, value, !(*lists & bit));
    *lists |= bit;
    if (why == empm__no_memory)
        rep->result = EMPM_ENOMEM;
    if (why == empm__out_of_range) {
        empm__directive_format(d, d->min, min, sizeof min);
        empm__directive_format(d, d->max, max, sizeof max);
        empm__report_say(rep, EMPM_LOG_ERROR, 5123, "%s%s %s: must be from "
                         "%s to %s", where, d->name, value, min, max);
    } else if (why != NULL)
        empm__report_say(rep, EMPM_LOG_ERROR, 5123, "%s%s %s: %s", where,
                         d->name, value, why);
}

EMPM_API int empm_set(empm_config *cfg, const char *directive,
                      const char *value, char *err, size_t n)
{
    uint64_t lists = ~UINT64_C(0);     /* one more of each */
    empm__first first;
    empm__report rep;
    empm__report_first_init(&rep, &first, err, n);
    empm__directive_set(cfg, "", directive, value, &lists, &rep);
    return rep.result;
}

/* ---------------------------------------------------------------------------
 * >>check -- numbers in their ranges, and the rules of Apache's event MPM
 *
 * A program may have put anything into the fields, so each is held against the
 * range of its row. What Apache's MPM corrects is corrected here, in its order
 * and with its message numbers, and is an error under Strict. The check of
 * names, paths and limits of the system needs more and stands in >>limits.
 * ------------------------------------------------------------------------- */

#ifndef EMPM__STACK_LEAST
#  define EMPM__STACK_LEAST 16384    /* for our own frames; musl allows 2048 */
#endif

/* What is corrected is a warning, or under Strict an error. */
static enum empm_log_level empm__config_correction_level(const empm_config *cfg)
{
    return cfg->strict ? EMPM_LOG_ERROR : EMPM_LOG_WARN;
}

/* Corrects a number into the range of its row, and to at least `least`. low,
 * high: the messages' codes. */
static void empm__config_clamp(empm_config *cfg, empm__report *r, int low,
                               int high, const char *name, int least)
{
    const empm__directive *d = empm__directive_find(name);
    const int64_t v = empm__directive_number(cfg, d);
    const int64_t min = d->min > least ? d->min : least;
    const int64_t to = v < min ? min : v > d->max ? d->max : v;
    if (to != v)
        empm__report_say(r, empm__config_correction_level(cfg), to == min
                         ? low : high, "%s of %lld is %s the %s of %lld, using "
                         "that", name, (long long)v,
                         to == min ? "below" : "above",
                         to == min ? "minimum" : "limit", (long long)to);
    empm__directive_set_number(cfg, d, to);
}

/* What cannot change while scoreboard and store live stays as it was. */
static void empm__config_keep_limits(empm_config *cfg, const empm_config *old,
                                     empm__report *r)
{
    if (cfg->server_limit != old->server_limit)
        empm__report_say(r, EMPM_LOG_WARN, 501, "changing ServerLimit to %d "
                         "from %d needs a restart: ignored", cfg->server_limit,
                         old->server_limit);
    if (cfg->thread_limit != old->thread_limit)
        empm__report_say(r, EMPM_LOG_WARN, 506, "changing ThreadLimit to %d "
                         "from %d needs a restart: ignored", cfg->thread_limit,
                         old->thread_limit);
    if (cfg->shared_store_size != old->shared_store_size)
        empm__report_say(r, EMPM_LOG_WARN, 5503, "changing SharedStoreSize to "
                         "%lld from %lld needs a restart: ignored",
                         (long long)cfg->shared_store_size,
                         (long long)old->shared_store_size);
    cfg->server_limit = old->server_limit;
    cfg->thread_limit = old->thread_limit;
    cfg->shared_store_size = old->shared_store_size;
    if (cfg->processes > cfg->server_limit)
        cfg->processes = cfg->server_limit;
}

/* Holds all fields against their rows. Returns whether Processes is wrong. */
static int empm__config_check_ranges(empm_config *cfg, empm__report *r)
{
    int odd = 0;
    size_t i;
    if (cfg->server_field == NULL)
        cfg->server_field = "";
    for (i = 0; i < EMPM__COUNT(empm__directives); i++) {
        const empm__directive *d = &empm__directives[i];
        if (d->kind == EMPM__KIND_TEXT && d->preset != NULL &&
            empm__directive_text(cfg, d) == NULL)
            memcpy((char *)cfg + d->offset, &d->preset, sizeof d->preset);
        if (d->kind == EMPM__KIND_REAL
                ? empm__directive_is_real(d, empm__directive_real(cfg, d))
                : d->kind == EMPM__KIND_COUNT ||
                  !empm__directive_is_number(d) ||
                  empm__directive_in_range(d, empm__directive_number(cfg, d)))
            continue;
        if (empm__directive_is_number(d))
            empm__report_say(r, EMPM_LOG_ERROR, 5101, "%s of %lld is out of "
                             "range", d->name,
                             (long long)empm__directive_number(cfg, d));
        else
            empm__report_say(r, EMPM_LOG_ERROR, 5101, "%s is out of range",
                             d->name);
        odd |= d->offset == offsetof(empm_config, processes);
    }
    if (cfg->header_timeout_ms < 0 || cfg->header_timeout_max_ms < 0 ||
        cfg->header_min_rate < 0 || cfg->body_timeout_ms < 0 ||
        cfg->body_timeout_max_ms < 0 || cfg->body_min_rate < 0)
        empm__report_say(r, EMPM_LOG_ERROR, 5101,
                         "RequestReadTimeout is out of range");
    for (i = 0; cfg->server_field[i] != '\0'; i++)
        if (i == 80 ||
            !(empm__chars_class((unsigned char)cfg->server_field[i]) &
                         EMPM__VCHAR)) {
            empm__report_say(r, EMPM_LOG_ERROR, 5102, "ServerField must be a "
                             "field value of at most 80 bytes");
            break;
        }
    return odd;
}

/* How many children of how many threads: limits first, then what they bound.
 * `exactly`: Processes says so, whatever is idle. */
static void empm__config_check_workers(empm_config *cfg, int exactly,
                                       empm__report *r)
{
    int children;
    if (cfg->threads_per_child > cfg->thread_limit)
        empm__report_say(r, empm__config_correction_level(cfg), 507,
                         "ThreadsPerChild of %d is above ThreadLimit of %d, "
                         "using that: raise ThreadLimit",
                         cfg->threads_per_child, cfg->thread_limit);
    if (cfg->threads_per_child > cfg->thread_limit)
        cfg->threads_per_child = cfg->thread_limit;
    empm__config_clamp(cfg, r, 509, 509, "ThreadsPerChild", 1);
    if (exactly) {
        cfg->start_servers = cfg->processes > 0 ? cfg->processes : 1;
        cfg->max_request_workers = cfg->start_servers * cfg->threads_per_child;
        cfg->min_spare_threads = 1;
        cfg->max_spare_threads = INT_MAX;
    }
    empm__config_clamp(cfg, r, 511, 511, "MaxRequestWorkers",
                       cfg->threads_per_child);
    children = cfg->max_request_workers / cfg->threads_per_child;
    if (cfg->max_request_workers % cfg->threads_per_child != 0) {
        empm__report_say(r, empm__config_correction_level(cfg), 513,
                         "MaxRequestWorkers of %d is not a multiple of "
                         "ThreadsPerChild of %d, using %d (%d servers)",
                         cfg->max_request_workers, cfg->threads_per_child,
                         children * cfg->threads_per_child, children);
        cfg->max_request_workers = children * cfg->threads_per_child;
    }
    if (children > cfg->server_limit) {
        empm__report_say(r, empm__config_correction_level(cfg), 515,
                         "MaxRequestWorkers of %d needs %d servers, more than "
                         "ServerLimit of %d: using %d workers",
                         cfg->max_request_workers, children, cfg->server_limit,
                         cfg->server_limit * cfg->threads_per_child);
        children = cfg->server_limit;
        cfg->max_request_workers = children * cfg->threads_per_child;
    }
    empm__config_clamp(cfg, r, 517, 517, "StartServers", 1);
    if (cfg->start_servers > children) {     /* Apache does these in silence */
        empm__report_say(r, EMPM_LOG_INFO, 5110, "StartServers of %d is above "
                         "what MaxRequestWorkers allows, using %d",
                         cfg->start_servers, children);
        cfg->start_servers = children;
    }
    empm__config_clamp(cfg, r, 519, 519, "MinSpareThreads", 1);
    if (cfg->max_spare_threads <
        cfg->min_spare_threads + cfg->threads_per_child) {
        empm__report_say(r, EMPM_LOG_INFO, 5111, "MaxSpareThreads of %d is "
                         "below MinSpareThreads + ThreadsPerChild, using %d",
                         cfg->max_spare_threads,
                         cfg->min_spare_threads + cfg->threads_per_child);
        cfg->max_spare_threads = cfg->min_spare_threads +
                                 cfg->threads_per_child;
    }
}

/* The rules of Apache's event MPM, in its order: what it corrects, we correct.
 * `old`: what runs with this scoreboard, or NULL. */
static void empm__config_check_numbers(empm_config *cfg, const empm_config *old,
                                       empm__report *r)
{
    const int odd = empm__config_check_ranges(cfg, r);
    empm__config_clamp(cfg, r, 499, 497, "ServerLimit", 1);
    empm__config_clamp(cfg, r, 504, 502, "ThreadLimit", 1);
    if (!odd && cfg->processes > cfg->server_limit)
        cfg->server_limit = cfg->processes;
    if (old != NULL)
        empm__config_keep_limits(cfg, old, r);
    empm__config_check_workers(cfg, !odd && cfg->processes >= 0, r);
    if (cfg->send_buffer_size != 0)
        empm__config_clamp(cfg, r, 5112, 5112, "SendBufferSize", 512);
    if (cfg->receive_buffer_size != 0)
        empm__config_clamp(cfg, r, 5112, 5112, "ReceiveBufferSize", 512);
    if (cfg->thread_stack_size != 0)
        empm__config_clamp(cfg, r, 2436, 2436, "ThreadStackSize",
                           EMPM__STACK_LEAST);
    if (cfg->limit_request_head < cfg->limit_request_line)
        empm__report_say(r, EMPM_LOG_WARN, 5103, "LimitRequestHead of %d is "
                         "less than LimitRequestLine of %d allows",
                         cfg->limit_request_head, cfg->limit_request_line);
}

/* ---------------------------------------------------------------------------
 * >>score -- counters that every process can read
 *
 * Shared before the first fork: a part that only the parent writes, then one
 * page-aligned area per child, which only that child writes (its siblings map
 * it read-only). Within an area each counter has one writer, so nothing here is
 * locked or added to atomically. Connections by state need no common counter
 * either: a worker counts what it parks, the listener what it takes back, and
 * the difference is what waits. The parent believes none of it.
 * ------------------------------------------------------------------------- */

/* The states of a connection: a row of WAITS where it can wait without a
 * worker, so that the status page shows it; a row of RUNS where it cannot.
 *
 *   name, letter of the worker, column of the page, label, key in ?auto
 *
 * A new state is a row here, its place in the picture and in both tables of the
 * section >>conn, its step, and a test of it. */
#define EMPM__STATE_LIST(WAITS, RUNS) \
    WAITS(HANDSHAKE, 'R', "PROXY", "handshake", "ConnsAsyncHandshake") \
    WAITS(READ_HEAD, 'R', "head", "read_head", "ConnsAsyncReadHead") \
    WAITS(READ_BODY, 'R', "body", "read_body", "ConnsAsyncReadBody") \
    RUNS(HANDLE, 'W') \
    WAITS(SUSPENDED, 'W', "suspended", "suspended", "ConnsAsyncSuspended") \
    WAITS(WRITE, 'W', "writing", "write", NULL) \
    WAITS(KEEPALIVE, 'K', "keep-alive", "keepalive", NULL) \
    WAITS(LINGER, 'C', "closing", "closing", NULL) \
    RUNS(CLOSED, 'C')

#define EMPM__STATE_WAITS(name, letter, column, label, key) EMPM__##name,
#define EMPM__STATE_RUNS(name, letter) EMPM__##name,
enum empm__state {
    EMPM__STATE_LIST(EMPM__STATE_WAITS, EMPM__STATE_RUNS)
    EMPM__STATES
};
#undef EMPM__STATE_WAITS
#undef EMPM__STATE_RUNS

enum {                               /* why the child does not accept */
    EMPM__PAUSE_GATE = 1,            /* no worker has time */
    EMPM__PAUSE_FDS  = 2,            /* no descriptors, no memory */
    EMPM__PAUSE_FULL = 4,            /* MaxOpenConnections */
    EMPM__PAUSE_STOP = 8,
    EMPM__PAUSE_NEW  = 16,           /* it is not decided yet that it serves */
    EMPM__PAUSE_TURN = 32            /* siblings have more time, for a moment */
};

/* The other end's address: asked once per connection, or told by a proxy.
 * Stands beside its record (>>handover), and is owned with it. */
typedef struct empm__peer {
    uint8_t  family;             /* EMPM__PEER_* */
    uint8_t  proxied;            /* EMPM__PROXIED_*: what a PROXY header said */
    uint16_t port;
    uint8_t  addr[16];           /* network order; the first 4 for IPv4 */
} empm__peer;

enum { EMPM__PROXIED_NOT, EMPM__PROXIED, EMPM__PROXIED_NAMELESS };

enum { EMPM__PEER_UNASKED, EMPM__PEER_UNKNOWN, EMPM__PEER_UNIX,
       EMPM__PEER_IPV4 = 4, EMPM__PEER_IPV6 = 6 };

#define EMPM__SCORE_REQUEST 96             /* bytes of the request line */
#define EMPM__SCORE_HOST    32             /* ... of Host */

/* Counters, each of them told once: its type, its field in the scoreboard and
 * in a snapshot, its name in ?json and ?prometheus, its key in ?auto (NULL:
 * Apache's own line has it), 1 if it is a time in microseconds, and the help. A
 * CHILD's is written by its listener, a WORKER's by that worker. A new one
 * takes a row and an empm__bump(). */
#define EMPM__COUNTER_LIST(CHILD, WORKER)                                      \
    CHILD(uint32_t, waited, "queued_late_total", "QueuedLate", 0,              \
          "Ready connections that waited for over a millisecond")              \
    CHILD(uint32_t, moved_in, "moved_connections_total", "ConnsMoved", 0,      \
          "Connections that one child has passed on to another")               \
    CHILD(uint64_t, accepted, "accepted_connections_total", "ConnsAccepted",   \
          0, "Connections accepted")                                           \
    CHILD(uint32_t, refused, "refused_connections_total", "ConnsRefused", 0,   \
          "Connections refused for MaxConnectionsPerPeer")                     \
    WORKER(uint32_t, proxy_refused, "refused_proxies_total", "ProxiesRefused", \
           0, "PROXY headers that were bad, or from a peer not trusted")       \
    CHILD(uint32_t, culled, "culled_connections_total", "ConnsCulled", 0,      \
          "Idle connections closed to make room")                              \
    CHILD(uint32_t, expired, "expired_connections_total", "ConnsExpired", 0,   \
          "Deadlines that were reached, idle connections included")            \
    CHILD(uint32_t, forced, "forced_connections_total", "ConnsForced", 0,      \
          "Connections closed late while every worker was stuck")              \
    WORKER(uint32_t, timeouts, "timeouts_total", "Timeouts", 0,                \
           "Clients that were too slow in a request or a response")            \
    WORKER(uint64_t, accesses, "requests_total", NULL, 0, "Requests answered") \
    WORKER(uint64_t, duration_us, "request_seconds_total", NULL, 1,            \
           "Time from the head of a request to the end of its response")       \
    WORKER(uint64_t, bytes, "sent_bytes_total", NULL, 0, "Bytes sent")
#define EMPM__COUNTER_FIELD(type, field, name, key, is_time, help) \
    type field __attribute__((aligned(sizeof(type))));
#define EMPM__COUNTER_NONE(type, field, name, key, is_time, help)

typedef struct empm__score_worker {        /* written by that worker alone */
    uint32_t status;                       /* Apache's letter: _ R W K C . */
    uint32_t parked[EMPM__STATES];         /* wrap: only differences count */
    EMPM__COUNTER_LIST(EMPM__COUNTER_NONE, EMPM__COUNTER_FIELD)
    uint64_t accesses_before;              /* by the slot's last tenants */
    uint64_t began_us;                     /* the turn or request; 0: never */
    uint32_t took_us;                      /* the last request */
    /* ExtendedStatus: the request in hand, or the last one */
    uint32_t of_connection;                /* its number on the connection */
    size_t   client[(sizeof(empm__peer) + sizeof(size_t) - 1) / sizeof(size_t)];
    size_t   request[EMPM__SCORE_REQUEST / sizeof(size_t)]; /* NUL for SP */
    size_t   host[EMPM__SCORE_HOST / sizeof(size_t)];
} __attribute__((aligned(64))) empm__score_worker;

typedef struct empm__score_child {
    uint32_t healthy, stopping;            /* the child's main thread */
    uint32_t pongs;                        /* the listener: answers to pings */
    /* the listener */
    uint32_t unparked[EMPM__STATES], created;  /* created: of state READ_HEAD */
    uint32_t connections, paused;
    EMPM__COUNTER_LIST(EMPM__COUNTER_FIELD, EMPM__COUNTER_NONE)
    uint32_t moved_out;                    /* connections, by the exchange */
    uint32_t unlogged;                     /* access log; added to atomically */
    /* whoever holds the queue's lock */
    uint32_t idle_workers, queued;
    uint32_t waits_since_ms;            /* about: the oldest job in the queue */
} empm__score_child;

typedef struct empm__score_slot {          /* written by the parent alone */
    uint32_t pid;                          /* 0: nobody is here */
    uint32_t generation;
    uint32_t leaving;                      /* has been told to go */
    uint32_t spare_share;                  /* its MinSpareThreads */
    uint32_t admin;                        /* serves admin listeners only */
    uint32_t used;                         /* somebody is here, or has been */
} empm__score_slot;

typedef struct empm__score_server {        /* written by the parent alone */
    uint32_t generation;                   /* the one that serves */
    uint32_t draining;                     /* health says 503 */
    uint32_t top;                       /* no slot from here on was ever used */
    /* died: children that nobody asked */
    uint32_t reloads, failed_reloads, died;
    int64_t  started_s, restarted_s;       /* time() of start, of last reload */
    uint64_t started_us;                   /* empm__now_us() of the start */
} empm__score_server;

typedef struct empm__score {
    unsigned char *mem;
    size_t         bytes, head_bytes, child_bytes;
    int            slots, threads;
    int            shared;                 /* mmap()ed: fork shares it */
} empm__score;

static int empm__score_init(empm__score *sb, int slots, int threads, int shared)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE) - 1;
    const size_t head = 256 + (size_t)slots * sizeof(empm__score_slot);
    const size_t one = sizeof(empm__score_child) + 64 +
                       (size_t)threads * sizeof(empm__score_worker);
    sb->head_bytes = (head + page) & ~page;
    sb->child_bytes = (one + page) & ~page;
    if (sb->child_bytes > (SIZE_MAX / 2 - sb->head_bytes) / (size_t)slots)
        return EMPM_ENOMEM;            /* ServerLimit x ThreadLimit, 32 bits */
    sb->bytes = sb->head_bytes + sb->child_bytes * (size_t)slots;
    sb->slots = slots;
    sb->threads = threads;
    sb->shared = shared;
    sb->mem = (unsigned char *)mmap(NULL, sb->bytes, PROT_READ | PROT_WRITE,
                                    MAP_ANONYMOUS | (shared ? MAP_SHARED
                                                            : MAP_PRIVATE),
                                    -1, 0);
    if ((void *)sb->mem == MAP_FAILED) {
        sb->mem = NULL;
        return EMPM_ENOMEM;
    }
    return EMPM_OK;
}

static void empm__score_free(empm__score *sb)
{
    if (sb->mem != NULL)
        munmap(sb->mem, sb->bytes);
    sb->mem = NULL;
}

EMPM__ASSERT_STATIC(sizeof(empm__score_server) <= 256, it_has_256_bytes);

static empm__score_server *empm__score_server_at(const empm__score *sb)
{
    return (empm__score_server *)(void *)sb->mem;
}

static empm__score_slot *empm__score_slot_at(const empm__score *sb, int slot)
{
    return (empm__score_slot *)(void *)(sb->mem + 256) + slot;
}

static empm__score_child *empm__score_at(const empm__score *sb, int slot)
{
    return (empm__score_child *)(void *)(sb->mem + sb->head_bytes +
                                         (size_t)slot * sb->child_bytes);
}

static empm__score_worker *empm__score_worker_at(const empm__score *sb,
                                                 int slot, int w)
{
    const size_t head = (sizeof(empm__score_child) + 63) & ~(size_t)63;
    return (empm__score_worker *)(void *)(sb->mem + sb->head_bytes +
                                          (size_t)slot * sb->child_bytes +
                                          head) + w;
}

/* Nobody is in the slot yet, or any more: gauges go, totals stay. Of all its
 * workers: the next tenant may have fewer than the last one. */
static void empm__score_gauges(const empm__score *sb, int slot)
{
    empm__score_child *ch = empm__score_at(sb, slot);
    int t, k;
    for (k = 0; k < EMPM__STATES; k++) {
        empm__store(&ch->unparked[k], 0u);
        for (t = 0; t < sb->threads; t++)
            empm__store(&empm__score_worker_at(sb, slot, t)->parked[k], 0u);
    }
    empm__store(&ch->created, 0u);
    empm__store(&ch->connections, 0u);
    empm__store(&ch->paused, 0u);
    empm__store(&ch->idle_workers, 0u);
    empm__store(&ch->queued, 0u);
}

/* Text and addresses that others may read while they change: word by word, at
 * worst a mixture. `n` bytes of `to` in all; a word of NUL follows what is
 * shorter. */
static void empm__score_store_text(size_t *to, size_t n, const void *from,
                                   size_t len)
{
    const char *p = (const char *)from;
    size_t word, *end = to + n / sizeof word;
    for (; len >= sizeof word && to < end; len -= sizeof word,
         p += sizeof word) {
        memcpy(&word, p, sizeof word);
        empm__store(to++, word);
    }
    if (to < end) {
        word = 0;
        memcpy(&word, p, len);
        empm__store(to++, word);
    }
    if (to < end)
        empm__store(to, 0);
}

static void empm__score_load_text(void *to, const size_t *from, size_t n)
{
    size_t i, word;
    for (i = 0; i < n; i += sizeof word, from++) {
        word = empm__load(from);
        memcpy((char *)to + i, &word, empm__min(sizeof word, n - i));
    }
}

/* The request line, in which the parser has put one NUL for each SP. */
static void empm__score_request_line(const empm__score_worker *w,
                                     char to[EMPM__SCORE_REQUEST + 1])
{
    size_t i;
    empm__score_load_text(to, w->request, EMPM__SCORE_REQUEST);
    to[EMPM__SCORE_REQUEST] = '\0';
    for (i = 0; i < EMPM__SCORE_REQUEST; i++)
        if (to[i] == '\0') {
            if (to[i + 1] == '\0')
                break;
            to[i] = ' ';
        }
}

/* ---------------------------------------------------------------------------
 * >>peer -- addresses, and how many connections each has
 *
 * An address comes from a socket, a PROXY header, a field or the configuration;
 * IPv4 inside IPv6 is IPv4 for all of them.
 *
 * The table for MaxConnectionsPerPeer has a slot for each address that has a
 * connection (IPv6: its /64, which is what one customer gets), open addressing
 * and room for twice as many as there can be.
 *
 * runs on   the table: the listener, nobody else
 * ------------------------------------------------------------------------- */

static void empm__peer_set(empm__peer *p, int family, const void *addr,
                           unsigned port)
{
    static const unsigned char mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                              0xff, 0xff };
    const unsigned char *a = (const unsigned char *)addr;
    memset(p, 0, sizeof *p);
    if (family == EMPM__PEER_IPV6 && memcmp(a, mapped, sizeof mapped) == 0) {
        family = EMPM__PEER_IPV4;
        a += sizeof mapped;
    }
    p->family = (uint8_t)family;
    p->port = (uint16_t)port;
    if (family == EMPM__PEER_IPV4 || family == EMPM__PEER_IPV6)
        memcpy(p->addr, a, family == EMPM__PEER_IPV4 ? 4 : 16);
}

static void empm__peer_from(empm__peer *p, const struct sockaddr_storage *a)
{
    const void *any = a;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)any;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)any;
    if (a->ss_family == AF_INET)
        empm__peer_set(p, EMPM__PEER_IPV4, &v4->sin_addr, ntohs(v4->sin_port));
    else if (a->ss_family == AF_INET6)
        empm__peer_set(p, EMPM__PEER_IPV6, &v6->sin6_addr,
                       ntohs(v6->sin6_port));
    else
        empm__peer_set(p, EMPM__PEER_UNIX, NULL, 0);
}

/* What has no address is not counted. */
static int empm__peer_is_counted(const empm__peer *p)
{
    return p->family == EMPM__PEER_IPV4 || p->family == EMPM__PEER_IPV6;
}

typedef struct empm__count {
    uint64_t peer;
    uint32_t open;               /* 0: the slot is free */
} empm__count;

typedef struct empm__counts {
    empm__count *slots;          /* NULL: nobody counts */
    uint32_t     mask;
    uint64_t     seed;           /* nobody outside knows who shares a slot */
} empm__counts;

static size_t empm__counts_bytes(const empm__counts *t)
{
    return ((size_t)t->mask + 1) * sizeof *t->slots;
}

/* For at most `most` connections; pages that nobody needs are never touched. */
static int empm__counts_init(empm__counts *t, uint32_t most)
{
    void *mem;
    for (t->mask = 15; t->mask / 2 < most; t->mask = t->mask * 2 + 1)
        ;
    t->seed = (empm__now_us() * UINT64_C(0x9e3779b97f4a7c15) +
               (uint64_t)getpid() * UINT64_C(0xbf58476d1ce4e5b9)) | 1;
    mem = mmap(NULL, empm__counts_bytes(t), PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED)
        return EMPM_ENOMEM;
    t->slots = (empm__count *)mem;
    return EMPM_OK;
}

static void empm__counts_free(empm__counts *t)
{
    if (t->slots != NULL)
        munmap(t->slots, empm__counts_bytes(t));
    t->slots = NULL;
}

static uint64_t empm__counts_key(const empm__peer *p)
{
    uint64_t key = 0;
    int i;
    if (p->family == EMPM__PEER_IPV4)
        key = UINT64_C(0xffffffff);      /* ffff:ffff::/32 is nobody's */
    for (i = 0; i < (p->family == EMPM__PEER_IPV4 ? 4 : 8); i++)
        key = key << 8 | p->addr[i];
    return key;
}

static uint32_t empm__counts_home(const empm__counts *t, uint64_t key)
{
    key = (key ^ key >> 32) * t->seed;
    return (uint32_t)(key >> 32) & t->mask;
}

/* Where `key` is, or would be. */
static uint32_t empm__counts_find(const empm__counts *t, uint64_t key)
{
    uint32_t i = empm__counts_home(t, key);
    while (t->slots[i].open > 0 && t->slots[i].peer != key)
        i = (i + 1) & t->mask;
    return i;
}

/* One connection more. 0: it has `most` already. */
static int empm__counts_add(empm__counts *t, const empm__peer *p, int most)
{
    const uint64_t key = empm__counts_key(p);
    empm__count *n = &t->slots[empm__counts_find(t, key)];
    if (!empm__peer_is_counted(p))
        return 1;
    if (n->open >= (uint32_t)most)
        return 0;
    n->peer = key;
    n->open++;
    return 1;
}

static void empm__counts_drop(empm__counts *t, const empm__peer *p)
{
    uint32_t i = empm__counts_find(t, empm__counts_key(p)), k;
    if (!empm__peer_is_counted(p) || --t->slots[i].open > 0)
        return;
    /* those behind that would not be found past the hole move into it */
    for (k = (i + 1) & t->mask; t->slots[k].open > 0; k = (k + 1) & t->mask) {
        const uint32_t home = empm__counts_home(t, t->slots[k].peer);
        if (((k - home) & t->mask) >= ((k - i) & t->mask)) {
            t->slots[i] = t->slots[k];
            i = k;
        }
    }
    t->slots[i].open = 0;
}

/* "192.0.2.1:4711", "[2001:db8::1]:4711", "unix:", "unknown"; without the port
 * and brackets if `port` is 0. */
static char *empm__peer_text(const empm__peer *p, int port, char *to, size_t n)
{
    char host[64] = "";
    if (p->family == EMPM__PEER_IPV4)
        inet_ntop(AF_INET, p->addr, host, sizeof host);
    else if (p->family == EMPM__PEER_IPV6)
        inet_ntop(AF_INET6, p->addr, host, sizeof host);
    if (host[0] == '\0')
        snprintf(to, n, "%s", p->family == EMPM__PEER_UNIX ? "unix:"
                                                           : "unknown");
    else if (!port)
        snprintf(to, n, "%s", host);
    else
        snprintf(to, n, p->family == EMPM__PEER_IPV6 ? "[%s]:%u" : "%s:%u",
                 host, (unsigned)p->port);
    return to;
}

/* ---------------------------------------------------------------------------
 * >>handover -- one word that says who owns a connection
 *
 * At any moment exactly one of three owns a record: the listener (the
 * connection waits), the queue (it is ready), a worker (it runs). The word
 * holds
 *
 *   31   23 22   21   20           12 11            3    2       1      0
 *  +-------+----+----+---------------+---------------+-------+------+-----+
 *  |  gen  |KEEP|IDLE| WANT (9 bits) | READY (9 bits)|RETIRED|POSTED|OWNED|
 *  +-------+----+----+---------------+---------------+-------+------+-----+
 *
 * READY is what has happened, WANT what the released connection waits for, bit
 * for bit above it. "Wanted" is thus (word >> 9) & word & READY.
 *
 *   offer    the listener only: something has happened. Waiting and wanted:
 *            take it (OWNED, one CAS). Otherwise note the bit.
 *   release  the owner only: OWNED -> waiting. Fails when what it wants has
 *            been noted meanwhile; then the owner goes on.
 *   post     anybody: "look at this record", a hint. POSTED admits it once to
 *            the inbox; the reason is in the word (RETIRED, RESUME) or in the
 *            deadline. Posting a record that has been reused is harmless, so
 *            a worker may post one that it has just released.
 *   resume   any thread: notes RESUME if the ticket's generation is the word's.
 *
 * Acquire on take, release on release: what the owner wrote is seen by the
 * next. Data and FIN can come as one edge, so HUP and RDHUP are sticky, and a
 * short read means "drained" only while neither is set. The protocol is
 * modelled in test_eventmpm.c (>>model) and checked there by spin.
 *
 * A record may wait for a second descriptor, that of a back end, which is its
 * owner's. Its events note the AUX bits and nothing else: its end or failure is
 * both of them, and none is sticky. So the owner clears a bit, then reads or
 * writes, and waits for it after EAGAIN only, never after a short read.
 *
 * No bit of the word is free. Streams (HTTP/2) will need a READY bit by which
 * their workers tell a connection of output: a connection that has streams has
 * no second descriptor, so an AUX bit can be it. A stream's record will have no
 * descriptor: `fd` is free for the index of its connection, and so are the
 * flags of accepting and of the poller.
 *
 * Records live in slabs that are never unmapped and are named by 32-bit
 * indices; the listener alone makes and frees them.
 * ------------------------------------------------------------------------- */

enum {
    EMPM__OWNED   = 1u << 0,
    EMPM__POSTED  = 1u << 1,
    EMPM__RETIRED = 1u << 2,
    EMPM__READY_IN      = 1u << 3,
    EMPM__READY_OUT     = 1u << 4,
    EMPM__READY_RDHUP   = 1u << 5,
    EMPM__READY_HUP     = 1u << 6,
    EMPM__READY_TIMEOUT = 1u << 7,
    EMPM__READY_RESUME  = 1u << 8,
    EMPM__READY_STOP    = 1u << 9,
    EMPM__READY_AUX_IN  = 1u << 10,    /* of the second descriptor */
    EMPM__READY_AUX_OUT = 1u << 11,
    EMPM__READY_AUX     = (1u << 10) | (1u << 11),
    EMPM__AUX_SHIFT     = 7,           /* from READY_IN, READY_OUT */
    EMPM__READY_ALL     = 0x1ffu << 3,
    EMPM__STICKY        = (1u << 5) | (1u << 6),
    EMPM__WANT_SHIFT    = 9,
    EMPM__IDLE    = 1u << 21,    /* nothing is under way: a stop closes it */
    EMPM__KEEP    = 1u << 22,    /* waits in KEEPALIVE: may be culled */
    EMPM__GEN_SHIFT = 23
};
#define EMPM__WANT(ready) ((uint32_t)(ready) << EMPM__WANT_SHIFT)
#define EMPM__WANT_ALL \
    (EMPM__WANT(EMPM__READY_ALL) | EMPM__IDLE | EMPM__KEEP)
#define EMPM__WANT_ALWAYS EMPM__WANT(EMPM__READY_TIMEOUT | EMPM__READY_HUP)
#define EMPM__GEN_MASK    (0xffffffffu << EMPM__GEN_SHIFT)

typedef struct empm__conn {
    /* shared: the hand-over */
    uint32_t      word;          /* atomic, see the picture */
    uint32_t      deadline_ms;   /* atomic; the owner, before it releases */
    uint32_t      inbox_next;    /* atomic; the poster, until it is drained */
    uint32_t      serial;        /* atomic; the owner: names a suspension */
    /* the owner: a worker while it runs, the queue while it is ready */
    int32_t       fd;
    uint32_t      queue_next;    /* in the run queue, or the free list */
    uint32_t      requests;      /* served; in LINGER: KiB dropped */
    uint16_t      why;         /* READY bits delivered and not yet dealt with */
    uint8_t       state;        /* enum empm__state; empm__conn_enter sets it */
    uint8_t       flags;         /* EMPM__F_* */
    struct empm__io *io;         /* borrowed, NULL while idle (>>io) */
    struct empm__session *session;  /* of its transport (>>transport); the
                                       owner, while `protocol` is set */
    /* the listener only */
    uint32_t      wheel_next, wheel_prev;
    uint32_t      place;         /* EMPM__NEVER: not on the wheel */
    uint16_t      gen;           /* in the poller's data; not the word's */
    uint8_t       endpoint;      /* fixed at accept, read by anyone */
    uint8_t       protocol;      /* whose steps it takes; EMPM__FREE: a free
                                    record */
#if !EMPM__EPOLL
    uint32_t      poll_slot;     /* the listener only; 0: not in the set */
    uint32_t      aux_slot;      /* of aux_fd, likewise */
    int32_t       aux_fd;        /* the owner; -1: no second descriptor */
#endif
} empm__conn;

EMPM__ASSERT_STATIC(sizeof(empm__conn) + sizeof(empm__peer) <= 128,
                    idle_connections_must_be_small);
#if EMPM__EPOLL && __SIZEOF_POINTER__ == 8
EMPM__ASSERT_STATIC(sizeof(empm__conn) == 64, one_cache_line_per_connection);
#endif

enum { EMPM__FREE, EMPM__HTTP1, EMPM__PROTOCOLS };

enum {
    EMPM__F_DRAINED   = 1,       /* the last read left nothing behind */
    EMPM__F_OUT_ARMED = 2,       /* EPOLLOUT is registered */
    EMPM__F_SHORT     = 4,       /* linger only briefly */
    EMPM__F_CLOSED    = 8,       /* the listener closed the descriptor */
    EMPM__F_RESET     = 16,      /* only a reset tells that an answer is cut */
    EMPM__F_MOVED     = 32,      /* from a sibling, and not served since then */
    EMPM__F_FRESH     = 64,     /* just accepted: its first bytes may be near */
    EMPM__F_PROXIED   = 128      /* its PROXY header has been read */
};

static uint32_t empm__conn_wanted(uint32_t word)
{
    return (word >> EMPM__WANT_SHIFT) & word & EMPM__READY_ALL;
}

/* Offers `ready` to a record; 1: it was waiting for that and is now the
 * caller's, 0: noted for its owner or for later. Listener only. */
static int empm__conn_offer(empm__conn *c, uint32_t ready)
{
    uint32_t w = empm__load(&c->word), n;
    int taken;
    do {
        taken = !(w & EMPM__OWNED) && empm__conn_wanted(w | ready);
        n = w | ready;
        if (taken)
            n = (n & ~((EMPM__READY_ALL & ~EMPM__STICKY) | EMPM__WANT_ALL)) |
                EMPM__OWNED;
        if (n == w)
            return 0;
        /* acquire: pairs with the release in empm__conn_release */
    } while (!__atomic_compare_exchange_n(&c->word, &w, n, 1, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
    if (taken)
        c->why = (uint16_t)((w | ready) & EMPM__READY_ALL);
    return taken;
}

/* Gives the record to the listener, to wait for `want`. 0: what is wanted has
 * happened already, the caller still owns it. 1: it is somebody else's. */
static int empm__conn_give(empm__conn *c, uint32_t want)
{
    uint32_t w = empm__load(&c->word), n;
    do {
        n = (w & ~(uint32_t)EMPM__OWNED) | want | EMPM__WANT_ALWAYS;
        if (empm__conn_wanted(n)) {
            /* acquire: a resumer's writes come before its RESUME */
            w = __atomic_fetch_and(&c->word,
                                   ~(uint32_t)(EMPM__READY_TIMEOUT |
                                               EMPM__READY_RESUME |
                                               EMPM__READY_STOP),
                                   __ATOMIC_ACQ_REL);
            c->why = (uint16_t)(c->why | (w & EMPM__READY_ALL));
            return 0;
        }
        /* release: pairs with the acquire in empm__conn_offer */
    } while (!__atomic_compare_exchange_n(&c->word, &w, n, 1, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
    return 1;
}

/* Forgets a noted bit; called before the I/O that will tell, never after it. */
static void empm__conn_clear(empm__conn *c, uint32_t ready)
{
    if (empm__load(&c->word) & ready)
        __atomic_fetch_and(&c->word, ~ready, __ATOMIC_ACQ_REL);
}

static int empm__conn_noted(const empm__conn *c, uint32_t ready)
{
    return (empm__load(&c->word) & ready) != 0;
}

/* Starts or ends a suspension: tickets given out before are stale from here. */
static void empm__conn_next_serial(empm__conn *c)
{
    uint32_t serial = empm__load(&c->serial) + 1, w = empm__load(&c->word), n;
    if (serial == 0)
        serial = 1;              /* so that no ticket is 0 */
    empm__store(&c->serial, serial);
    do
        n = (w & ~(EMPM__GEN_MASK | (uint32_t)EMPM__READY_RESUME)) |
            (serial << EMPM__GEN_SHIFT);
    while (!__atomic_compare_exchange_n(&c->word, &w, n, 1, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED));
    c->why = (uint16_t)(c->why & ~(unsigned)EMPM__READY_RESUME);
}

/* Notes RESUME for the suspension `serial` and no other. 0: it is over; 1: its
 * owner will see it; 2: it waits, the caller has to post it. */
static int empm__conn_resume(empm__conn *c, uint32_t serial)
{
    uint32_t w = empm__load_acq(&c->word);
    do {
        if ((w & EMPM__GEN_MASK) != serial << EMPM__GEN_SHIFT ||
            empm__load(&c->serial) != serial)
            return 0;
    } while (!__atomic_compare_exchange_n(&c->word, &w,
                                          w | EMPM__READY_RESUME, 1,
                                          __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    return w & EMPM__OWNED ? 1 : 2;
}

/* The slabs. Chunks are made by the listener and live as long as the child;
 * empm__slab_conn() may be called with any index by any thread. */
#define EMPM__CHUNK 1024u
#define EMPM__CHUNK_BYTES (EMPM__CHUNK * (sizeof(empm__conn) + \
                                          sizeof(empm__peer)))

typedef struct empm__slab {
    empm__conn **chunks;         /* atomic pointers, fixed number of them */
    uint32_t     limit;          /* records at most */
    uint32_t     made;           /* atomic; records in chunks so far */
    uint32_t     free_head;      /* the listener */
    uint32_t     in_use;         /* the listener */
    uint32_t     seed;           /* first serial: tickets differ by process */
} empm__slab;

static int empm__slab_init(empm__slab *sl, uint32_t limit, uint32_t seed)
{
    size_t n = (limit + EMPM__CHUNK - 1) / EMPM__CHUNK;
    sl->chunks = (empm__conn **)EMPM_MALLOC(n * sizeof *sl->chunks);
    if (sl->chunks == NULL)
        return EMPM_ENOMEM;
    memset(sl->chunks, 0, n * sizeof *sl->chunks);
    sl->limit = limit;
    sl->made = sl->in_use = 0;
    sl->free_head = EMPM__NIL;
    sl->seed = seed;
    return EMPM_OK;
}

static void empm__slab_free(empm__slab *sl)
{
    uint32_t i;
    for (i = 0; i < sl->made; i += EMPM__CHUNK)
        munmap(sl->chunks[i / EMPM__CHUNK], EMPM__CHUNK_BYTES);
    EMPM_FREE(sl->chunks);
    sl->chunks = NULL;
}

static empm__conn *empm__slab_conn(const empm__slab *sl, uint32_t i)
{
    return empm__load_acq(&sl->chunks[i / EMPM__CHUNK]) + i % EMPM__CHUNK;
}

static empm__peer *empm__slab_peer(const empm__slab *sl, uint32_t i)
{
    empm__conn *chunk = empm__load_acq(&sl->chunks[i / EMPM__CHUNK]);
    return (empm__peer *)(void *)(chunk + EMPM__CHUNK) + i % EMPM__CHUNK;
}

/* A free record, or NIL: the limit is reached or there is no memory. */
static uint32_t empm__slab_borrow(empm__slab *sl)
{
    uint32_t i = sl->free_head;
    if (i == EMPM__NIL) {
        uint32_t k, n = sl->limit - sl->made;
        empm__conn *chunk;
        void *mem;
        if (n == 0)
            return EMPM__NIL;
        mem = mmap(NULL, EMPM__CHUNK_BYTES,
                   PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mem == MAP_FAILED)
            return EMPM__NIL;
        chunk = (empm__conn *)mem;
        n = n < EMPM__CHUNK ? n : EMPM__CHUNK;
        for (k = n; k-- > 0;) {
            chunk[k].serial = sl->seed + (sl->made + k) * 2654435761u;
            chunk[k].queue_next = sl->free_head;
            sl->free_head = sl->made + k;
        }
        empm__store_rel(&sl->chunks[sl->made / EMPM__CHUNK], chunk);
        i = sl->free_head;
        empm__store_rel(&sl->made, sl->made + n);
    }
    sl->free_head = empm__slab_conn(sl, i)->queue_next;
    sl->in_use++;
    return i;
}

static void empm__slab_return(empm__slab *sl, uint32_t i)
{
    empm__conn *c = empm__slab_conn(sl, i);
    c->queue_next = sl->free_head;
    sl->free_head = i;
    sl->in_use--;
}

/* ---------------------------------------------------------------------------
 * >>wheel -- deadlines, without a lock and without work for busy connections
 *
 * A ring of slots of 16 ms; a record hangs in the slot of its place. A place is
 * never later than any deadline its owner may store: at most the horizon H away
 * while it is owned, exactly its deadline while it waits. So workers only store
 * a number, a busy connection costs one look per H, an idle one one look per
 * wait (or per turn of the ring, 65 s), and two levels of bitmap find the next
 * slot in use, so that a resting server sleeps without a limit.
 *
 *   slot      0   1   2   3  ...                     4095
 *           +---+---+---+---+-----------------------+---+
 *           |   | * |   | * |   cursor: all places  |   |
 *           +---+-|-+---+-|-+   lie after it, less  +---+
 *                 c <-> c c     than a turn away
 *
 * runs on   the listener, nobody else
 * source    G. Varghese, A. Lauck, "Hashed and Hierarchical Timing Wheels"
 * ------------------------------------------------------------------------- */

#define EMPM__SLOTS   4096u
#define EMPM__SLOT_MS 16u

#define EMPM__DUE     1u               /* a place: in the list of those due */

typedef struct empm__wheel {
    uint32_t heads[EMPM__SLOTS + 1];  /* the last one: due, not looked at yet */
    uint64_t used[EMPM__SLOTS / 64];   /* one bit per slot with records */
    uint64_t words;                    /* one bit per word of used */
    uint32_t cursor;                 /* ms, a multiple of SLOT_MS: done up to */
} empm__wheel;

static void empm__wheel_init(empm__wheel *wh, uint32_t now_ms)
{
    size_t i;
    memset(wh, 0, sizeof *wh);
    for (i = 0; i <= EMPM__SLOTS; i++)
        wh->heads[i] = EMPM__NIL;
    wh->cursor = now_ms & ~(EMPM__SLOT_MS - 1);
}

static uint32_t empm__wheel_slot(uint32_t ms)
{
    return ms == EMPM__DUE ? EMPM__SLOTS : ms / EMPM__SLOT_MS % EMPM__SLOTS;
}

static void empm__wheel_remove(empm__wheel *wh, empm__slab *sl, uint32_t i)
{
    empm__conn *c = empm__slab_conn(sl, i);
    uint32_t slot = empm__wheel_slot(c->place);
    if (c->place == EMPM__NEVER)
        return;
    if (c->wheel_next != EMPM__NIL)
        empm__slab_conn(sl, c->wheel_next)->wheel_prev = c->wheel_prev;
    if (c->wheel_prev != EMPM__NIL)
        empm__slab_conn(sl, c->wheel_prev)->wheel_next = c->wheel_next;
    else if ((wh->heads[slot] = c->wheel_next) == EMPM__NIL &&
             slot < EMPM__SLOTS) {
        wh->used[slot / 64] &= ~((uint64_t)1 << slot % 64);
        if (wh->used[slot / 64] == 0)
            wh->words &= ~((uint64_t)1 << slot / 64);
    }
    c->place = EMPM__NEVER;
}

static void empm__wheel_insert(empm__wheel *wh, empm__slab *sl, uint32_t i,
                               uint32_t place)
{
    empm__conn *c = empm__slab_conn(sl, i);
    const uint32_t slot = empm__wheel_slot(place);
    c->place = place;
    c->wheel_prev = EMPM__NIL;
    c->wheel_next = wh->heads[slot];
    if (c->wheel_next != EMPM__NIL)
        empm__slab_conn(sl, c->wheel_next)->wheel_prev = i;
    wh->heads[slot] = i;
    if (slot < EMPM__SLOTS) {
        wh->used[slot / 64] |= (uint64_t)1 << slot % 64;
        wh->words |= (uint64_t)1 << slot / 64;
    }
}

/* Puts record i where it is looked at no earlier than at_ms (rounded up to a
 * slot), or at most one turn from the cursor. */
static void empm__wheel_move(empm__wheel *wh, empm__slab *sl, uint32_t i,
                             uint32_t at_ms)
{
    uint32_t place = (at_ms + EMPM__SLOT_MS - 1) & ~(EMPM__SLOT_MS - 1);
    const int32_t ahead = empm__time_until(place, wh->cursor);
    if (at_ms == EMPM__NEVER || ahead > (int32_t)(EMPM__SLOTS * EMPM__SLOT_MS -
                                                  EMPM__SLOT_MS))
        place = wh->cursor + (EMPM__SLOTS - 1) * EMPM__SLOT_MS;
    else if (ahead < (int32_t)EMPM__SLOT_MS)
        place = wh->cursor + EMPM__SLOT_MS;
    if (place == EMPM__NEVER)
        place = EMPM__SLOT_MS;           /* one slot late, once in 49 days */
    if (place == empm__slab_conn(sl, i)->place)
        return;
    empm__wheel_remove(wh, sl, i);
    empm__wheel_insert(wh, sl, i, place);
}

/* Makes sure that record i is looked at by at_ms at the latest. */
static void empm__wheel_hasten(empm__wheel *wh, empm__slab *sl, uint32_t i,
                               uint32_t at_ms)
{
    const empm__conn *c = empm__slab_conn(sl, i);
    if (c->place == EMPM__NEVER ||
        (c->place != EMPM__DUE && empm__time_until(c->place, at_ms) > 0))
        empm__wheel_move(wh, sl, i, at_ms);
}

/* How many slots after `from` the next used one is, 1 to SLOTS; 0: none. */
static uint32_t empm__wheel_next(const empm__wheel *wh, uint32_t from)
{
    uint32_t first = (from + 1) % EMPM__SLOTS, word = first / 64, slot;
    uint64_t rest = wh->used[word] & (~(uint64_t)0 << first % 64);
    if (wh->words == 0)
        return 0;
    if (rest == 0) {
        /* the words after this one, then those before it and itself */
        uint64_t later = word == 63 ? 0
                                    : wh->words & (~(uint64_t)0 << (word + 1));
        word = (uint32_t)__builtin_ctzll(later != 0 ? later : wh->words);
        rest = wh->used[word];
    }
    slot = word * 64 + (uint32_t)__builtin_ctzll(rest);
    return (slot - first + EMPM__SLOTS) % EMPM__SLOTS + 1;
}

/* Milliseconds until the next look is due, -1: never. */
static int empm__wheel_wait(const empm__wheel *wh, uint32_t now_ms)
{
    uint32_t n = empm__wheel_next(wh, empm__wheel_slot(wh->cursor));
    int32_t ms;
    if (n == 0)
        return -1;
    ms = empm__time_until(wh->cursor + n * EMPM__SLOT_MS, now_ms);
    return ms > 0 ? ms : 0;
}

/* Moves the cursor to now; what stood before it is due. The clock only goes
 * forward, so the difference is taken as it is: it may be weeks. */
static void empm__wheel_advance(empm__wheel *wh, empm__slab *sl,
                                uint32_t now_ms)
{
    const uint32_t now = now_ms & ~(EMPM__SLOT_MS - 1);
    uint32_t due = (now - wh->cursor) / EMPM__SLOT_MS, n;
    uint32_t slot = empm__wheel_slot(wh->cursor);
    while ((n = empm__wheel_next(wh, slot)) != 0 && n <= due) {
        due -= n;
        slot = (slot + n) % EMPM__SLOTS;
        while (wh->heads[slot] != EMPM__NIL) {
            const uint32_t i = wh->heads[slot];
            empm__wheel_remove(wh, sl, i);
            empm__wheel_insert(wh, sl, i, EMPM__DUE);
        }
    }
    wh->cursor = now;
}

/* The next record that is due, unlinked; NIL: none is left. */
static uint32_t empm__wheel_due(empm__wheel *wh, empm__slab *sl)
{
    const uint32_t i = wh->heads[EMPM__SLOTS];
    if (i != EMPM__NIL)
        empm__wheel_remove(wh, sl, i);
    return i;
}

/* ---------------------------------------------------------------------------
 * >>queue -- ready connections, and the threads that run them or listen
 *
 * A connection is in it at most once, so a push cannot fail. Waking a thread
 * costs as much as a small request, so it is done only when it must be:
 *
 *   listening  is a role, not a thread: a worker that finds all taken that came
 *              before takes it, waits for events, pushes what came, gives the
 *              role back and runs the first job itself. So a request costs one
 *              wake-up at rest and none in a busy server, where events gather.
 *   running    is a worker with a job that seems to be quick; it will be back
 *              in a moment, so nobody is woken for what is left in the queue,
 *              unless it is much and there are more processors. Before a
 *              handler that has taken long before, a worker leaves the running
 *              ones.
 *   nobody     runs, and there are jobs or nobody listens: an idle worker is
 *              woken, last in, first out: warm caches, long sleeps. Few are
 *              "searching" (woken, not yet at work) at a time: one, or four
 *              when jobs wait behind slow handlers.
 *   standby    the child's own thread. It listens when no worker can, and while
 *              others run it looks every millisecond whether one that seemed to
 *              be quick is stuck; that worker does not count as running then.
 *              When there is nothing to run it sleeps without limit.
 *   a chore    is maintenance that may wait for a disk. When one is due, the
 *              listener ends its round, and the next worker runs it instead of
 *              a job; if the standby has been listening, it runs it itself.
 * ------------------------------------------------------------------------- */

typedef struct empm__sleeper {     /* a worker, as the queue sees it */
    empm__parker parker;
    uint32_t     next;             /* in the idle stack; lock */
    int          searching;        /* lock */
    int          running;          /* lock */
    uint32_t    *quick;            /* atomic: the credit of its route, while a
                                      handler runs on credit; else NULL */
} empm__sleeper;

enum { EMPM__NOBODY = -1, EMPM__STANDBY = -2 };      /* or a worker's number */
#define EMPM__CHORE 0xfffffffeu    /* a job of the child's, no connection's */
enum { EMPM__AWAKE, EMPM__DOZES, EMPM__SLEEPS };     /* the standby */

#define EMPM__BACKLOG   8u         /* jobs per running worker that deserve one
                                      more, if there is a processor for it */
#define EMPM__LISTEN_EACH 32u      /* jobs, then somebody looks for new ones */
#define EMPM__SEARCHERS 4u         /* at most, when nobody runs */

typedef struct empm__queue {
    pthread_mutex_t lock;          /* guards all that follows */
    empm__slab     *slab;
    empm__sleeper  *sleepers;      /* fixed */
    uint32_t        nsleepers;     /* fixed */
    uint32_t        enough;        /* fixed: running workers, by processors */
    uint32_t        head, tail, count;
    uint32_t        pushed, popped;        /* totals, they wrap */
    uint32_t        idle_top, idle_count;
    uint32_t        searching;             /* how many: 0, 1, sometimes more */
    uint32_t        running;
    int             listening;           /* atomic: a number, NOBODY, STANDBY */
    uint32_t        listened;              /* `pushed` when a round ended */
    uint32_t        listened_at;           /* `popped` then */
    int             standby_state;
    empm__parker    standby;
    uint32_t        mark;               /* `pushed` at mark_at_us; listener */
    uint64_t        mark_at_us;
    int             mark_late;             /* what was there then has been
                                              counted: it waits for long */
    uint32_t        gate_closed;           /* atomic: tell the listener when a
                                              worker has time */
    uint32_t        gate_mark;             /* `pushed` when it closed */
    int             chore;                 /* one is to be done: EMPM__CHORE */
    int             closed;
    empm__score_child *score;
} empm__queue;

static int empm__queue_init(empm__queue *q, empm__slab *sl, empm__sleeper *sp,
                            uint32_t n, uint32_t enough,
                            empm__score_child *score)
{
    uint32_t i;
    memset(q, 0, sizeof *q);
    q->slab = sl;
    q->sleepers = sp;
    q->nsleepers = n;
    q->enough = enough;
    q->head = q->tail = q->idle_top = EMPM__NIL;
    q->listening = EMPM__STANDBY;
    q->score = score;
    empm__parker_init(&q->standby);
    for (i = 0; i < n; i++) {
        memset(&sp[i], 0, sizeof sp[i]);
        empm__parker_init(&sp[i].parker);
    }
    return pthread_mutex_init(&q->lock, NULL) == 0 ? EMPM_OK : EMPM_ENOMEM;
}

/* Returns how many workers have nothing to do, the listener among them. */
static uint32_t empm__queue_idle_locked(const empm__queue *q)
{
    return q->idle_count + q->searching + (q->listening >= 0);
}

static void empm__queue_publish_locked(empm__queue *q)
{
    empm__store(&q->score->idle_workers, empm__queue_idle_locked(q));
    /* release: a sibling that reads this first sees no older idle_workers */
    empm__store_rel(&q->score->queued, q->count);
}

static void empm__queue_push_locked(empm__queue *q, uint32_t i)
{
    empm__slab_conn(q->slab, i)->queue_next = EMPM__NIL;
    if (q->tail == EMPM__NIL)
        q->head = i;
    else
        empm__slab_conn(q->slab, q->tail)->queue_next = i;
    q->tail = i;
    q->count++;
    q->pushed++;
}

static uint32_t empm__queue_pop_locked(empm__queue *q)
{
    uint32_t i = q->head;
    if (i == EMPM__NIL)
        return i;
    q->head = empm__slab_conn(q->slab, i)->queue_next;
    if (q->head == EMPM__NIL)
        q->tail = EMPM__NIL;
    q->count--;
    q->popped++;
    return i;
}

/* Takes out the oldest job that `may` go, of the first 64 (a bound for the time
 * under the lock). Returns NIL if none may. */
static uint32_t empm__queue_remove_locked(empm__queue *q,
                                          int (*may)(const empm__conn *))
{
    uint32_t i = q->head, before = EMPM__NIL;
    int looks = 64;
    for (; i != EMPM__NIL && looks > 0; looks--) {
        const empm__conn *c = empm__slab_conn(q->slab, i);
        if (may(c)) {
            if (before == EMPM__NIL)
                q->head = c->queue_next;
            else
                empm__slab_conn(q->slab, before)->queue_next = c->queue_next;
            if (q->tail == i)
                q->tail = before;
            q->count--;
            q->popped++;
            return i;
        }
        before = i;
        i = c->queue_next;
    }
    return EMPM__NIL;
}

/* Puts a job back that has been removed: it is the first again. */
static void empm__queue_return_locked(empm__queue *q, uint32_t i)
{
    empm__slab_conn(q->slab, i)->queue_next = q->head;
    q->head = i;
    if (q->tail == EMPM__NIL)
        q->tail = i;
    q->count++;
    q->popped--;
}

/* Nobody has time: the listener stops accepting. */
static void empm__queue_gate_close_locked(empm__queue *q)
{
    q->gate_mark = q->pushed;
    empm__store(&q->gate_closed, 1u);
}

/* Opens the gate if a worker is idle, or if all that was queued when it closed
 * has been served: without the second rule busy connections could keep new ones
 * out for ever. Returns 1 if it has opened; the caller tells the listener. */
static int empm__queue_gate_open_locked(empm__queue *q, int idle)
{
    if (!q->gate_closed || (!idle && (int32_t)(q->popped - q->gate_mark) <= 0))
        return 0;
    empm__store(&q->gate_closed, 0u);
    return 1;
}

/* Ends a change of the queue: chooses the fewest threads that have to be woken,
 * unlocks, and wakes them. At most `most` workers are searching then. */
static void empm__queue_settle(empm__queue *q, uint32_t most)
{
    empm__parker *wake[EMPM__SEARCHERS + 1];
    const int nobody = q->listening == EMPM__NOBODY;
    uint32_t want = 0, n = 0;
    if (q->running == 0 || most > 1)
        want = (uint32_t)empm__min(q->count, most);
    else if (q->count > q->running * EMPM__BACKLOG && q->running < q->enough)
        want = 1;
    if (q->running == 0 && nobody && want == 0)
        want = 1;
    while (q->searching < want && q->idle_count > 0 && n < EMPM__SEARCHERS) {
        empm__sleeper *sp = &q->sleepers[q->idle_top];
        q->idle_top = sp->next;
        q->idle_count--;
        sp->searching = 1;
        q->searching++;
        wake[n++] = &sp->parker;
    }
    if (nobody && q->standby_state != EMPM__AWAKE &&
        (q->standby_state == EMPM__SLEEPS ||
         q->running + q->searching + q->idle_count == 0)) {
        q->standby_state = EMPM__AWAKE;
        wake[n++] = &q->standby;
    }
    empm__queue_publish_locked(q);
    pthread_mutex_unlock(&q->lock);
    while (n > 0)
        empm__parker_unpark(wake[--n]);
}

/* Adds one job from a worker (its turn is over). */
static void empm__queue_push(empm__queue *q, uint32_t i)
{
    pthread_mutex_lock(&q->lock);
    empm__queue_push_locked(q, i);
    empm__queue_settle(q, 1);
}

/* Without the lock, so it may be old: a hint for the turn's end. */
static uint32_t empm__queue_length(empm__queue *q)
{
    return empm__load(&q->score->queued);
}

/* The end: all threads come back from where they sleep, and find no job. */
static void empm__queue_close(empm__queue *q)
{
    uint32_t i;
    pthread_mutex_lock(&q->lock);
    q->closed = 1;
    for (i = q->idle_top; i != EMPM__NIL; i = q->sleepers[i].next)
        empm__parker_unpark(&q->sleepers[i].parker);
    q->idle_top = EMPM__NIL;
    q->idle_count = 0;
    empm__parker_unpark(&q->standby);
    pthread_mutex_unlock(&q->lock);
}

/* Worker `me` is back, or leaves, or is stuck. */
static void empm__queue_stop_running_locked(empm__queue *q, uint32_t me)
{
    empm__sleeper *self = &q->sleepers[me];
    q->running -= (uint32_t)self->running;
    self->running = 0;
    empm__store(&self->quick, (uint32_t *)NULL);
}

/* Worker `me` is about to do what may take long: others take over. */
static void empm__queue_leave(empm__queue *q, uint32_t me)
{
    pthread_mutex_lock(&q->lock);
    empm__queue_stop_running_locked(q, me);
    empm__queue_settle(q, q->running == 0 ? EMPM__SEARCHERS : 1);
}

/* Takes the chore that is pending. Returns 1 if there is one: the caller has to
 * run it. */
static int empm__queue_chore_locked(empm__queue *q)
{
    const int chore = q->chore;
    q->chore = 0;
    return chore;
}

/* Returns the next job for worker `me`, which listens or sleeps until there is
 * one; CHORE: that is the job; NIL: the queue is closed. `listen` plays the
 * listener and returns when it has given the role back, without the lock;
 * `open_gate` tells a listener that waits for an idle worker. */
static uint32_t empm__queue_pop(empm__queue *q, uint32_t me,
                                void (*listen)(void *),
                                void (*open_gate)(void *), void *arg)
{
    empm__sleeper *self = &q->sleepers[me];
    for (;;) {
        uint32_t i;
        int gate, done, listens;
        pthread_mutex_lock(&q->lock);
        empm__queue_stop_running_locked(q, me);
        q->searching -= (uint32_t)self->searching;
        self->searching = 0;
        /* listen when every job of the last round has started (what is queued
         * now has had its turn, new connections have not), or after so many */
        listens = q->listening == EMPM__NOBODY && !q->closed && !q->chore &&
                  ((int32_t)(q->popped - q->listened) >= 0 ||
                   q->popped - q->listened_at >= EMPM__LISTEN_EACH);
        i = empm__queue_chore_locked(q) ? EMPM__CHORE
            : listens ? EMPM__NIL : empm__queue_pop_locked(q);
        done = i != EMPM__NIL || q->closed;
        gate = empm__queue_gate_open_locked(q, !done && q->count == 0);
        if (done) {
            self->running = 1;
            q->running++;
        } else if (listens) {
            empm__store(&q->listening, (int)me);
        } else {
            self->next = q->idle_top;
            q->idle_top = me;
            q->idle_count++;
        }
        empm__queue_settle(q, 1);
        if (gate)
            open_gate(arg);
        if (done)
            return i;
        if (listens)
            listen(arg);
        else
            empm__parker_park(&self->parker, -1);
    }
}

/* The listener's round is over: what it took goes to the queue, with its role.
 * A worker will run the first job itself. */
static void empm__queue_end_round_locked(empm__queue *q)
{
    if (q->listening >= 0) {
        q->sleepers[q->listening].searching = 1;
        q->searching++;
    }
    empm__store(&q->listening, EMPM__NOBODY);
    q->listened = q->pushed;
    q->listened_at = q->popped;
}

/* The standby's life, until the queue is closed. `listen` as above. */
static void empm__queue_stand_by(empm__queue *q, void (*listen)(void *),
                                 void *arg)
{
    uint32_t most = 1, popped = 0;
    pthread_mutex_lock(&q->lock);
    while (!q->closed) {
        int quiet, woken;
        if (q->listening == EMPM__NOBODY &&
            q->running + q->searching + q->idle_count == 0)
            empm__store(&q->listening, EMPM__STANDBY);
        if (q->listening == EMPM__STANDBY) {
            pthread_mutex_unlock(&q->lock);
            listen(arg);
            pthread_mutex_lock(&q->lock);
            continue;
        }
        /* in a busy server one tick after another is cheaper than waking us */
        quiet = q->listening != EMPM__NOBODY && q->popped == popped;
        popped = q->popped;
        q->standby_state = quiet ? EMPM__SLEEPS : EMPM__DOZES;
        empm__queue_settle(q, most);
        most = 1;
        woken = empm__parker_park(&q->standby, quiet ? -1 : 1);
        pthread_mutex_lock(&q->lock);
        q->standby_state = EMPM__AWAKE;
        if (!woken && q->popped == popped && q->listening == EMPM__NOBODY) {
            uint32_t i;      /* the one that runs is stuck, others may be */
            for (i = 0; i < q->nsleepers; i++) {
                uint32_t *quick = empm__load(&q->sleepers[i].quick);
                if (quick != NULL)
                    empm__store(quick, 0u);
                empm__queue_stop_running_locked(q, i);
            }
            most = EMPM__SEARCHERS;
        }
    }
    pthread_mutex_unlock(&q->lock);
}

/* ---------------------------------------------------------------------------
 * >>inbox -- how other threads reach the listener, and wake it
 *
 * The inbox is the one way to reach the listener: a stack of records that
 * somebody has posted. The reason stands in the record's word, so a post says
 * no more than "look", and one too many does no harm. Beside it are orders, a
 * bit for each. Posting wakes the listener only if it sleeps:
 *
 *     poster                           listener
 *       publish the record               sleeping = 1
 *       fence                            fence
 *       read sleeping                    read inbox, orders
 *       if set: write to wake_fd         if empty: wait; sleeping = 0
 *
 * Whichever fence comes first, one of the two sees the other's store.
 * ------------------------------------------------------------------------- */

#define EMPM__BATCH 256
#define EMPM__ACCEPTS (EMPM__EPOLL ? 16 : 1)  /* per round; poll() wakes all */
#define EMPM__EVENT_ENDPOINT 0xfffff000u   /* index: + number of the endpoint */
#define EMPM__EXCHANGE       EMPM_MAX_LISTEN   /* its number, among them */
#define EMPM__EVENT_BELL     0xfffffffeu
#define EMPM__EVENT_WAKE     0xffffffffu
#if EMPM__EPOLL
#define EMPM__EVENT_AUX      ((uint64_t)1 << 48)   /* above the generation */
#else
#define EMPM__EVENT_AUX      0x80000000u           /* above the indices */
#endif

typedef struct empm__event {
    uint32_t index;
    uint16_t gen;
    uint16_t ready;               /* READY bits */
} empm__event;

typedef struct empm__poller {
    empm__slab *slab;
    int         wake_fd[2];       /* read end, write end (the same: eventfd) */
    uint32_t    sleeping;         /* atomic */
    uint32_t    inbox;            /* atomic: head of the stack, or NIL */
    uint32_t    orders;           /* atomic: EMPM__ORDER_* for the listener */
#if EMPM__EPOLL
    int         epoll_fd;
    struct epoll_event got[EMPM__BATCH];
#else
    /* wake_fd, endpoints, connections, in this order; grows, never shrinks */
    struct pollfd *set;
    uint32_t   *index;            /* of each: a record, or EVENT_* */
    uint32_t    n, cap, endpoints;
#endif
} empm__poller;

enum {
    EMPM__ORDER_STOP = 1, EMPM__ORDER_GRACEFUL = 2, EMPM__ORDER_GATE = 4,
    EMPM__ORDER_LOOK = 8,                              /* at the times anew */
    EMPM__ORDER_PING = 16,
    EMPM__ORDER_HAND_OVER = 32,  /* with GRACEFUL: siblings serve on */
    EMPM__ORDER_UPGRADE = 64,    /* the same: the new program does */
    EMPM__ORDER_ACCEPT = 128     /* it is decided that this child serves */
};

/* Makes the listener look: at the inbox, at its orders. Async-signal-safe. */
static void empm__poller_wake(empm__poller *p)
{
    uint64_t one = 1;
    int saved = errno;
    empm__fence();               /* pairs with the fence in empm__poller_wait */
    if (empm__load(&p->sleeping)) {
        ssize_t r = write(p->wake_fd[1], &one,
                          p->wake_fd[0] == p->wake_fd[1] ? sizeof one : 1);
        (void)r;                 /* full: it is going to wake anyway */
    }
    errno = saved;
}

/* Gives the listener an order: EMPM__ORDER_*. Any thread, and signal
 * handlers. */
static void empm__poller_order(empm__poller *p, uint32_t order)
{
    __atomic_fetch_or(&p->orders, order, __ATOMIC_ACQ_REL);
    empm__poller_wake(p);
}

/* Puts record i on the inbox unless it is there. Any thread. */
static void empm__poller_post(empm__poller *p, uint32_t i)
{
    empm__conn *c = empm__slab_conn(p->slab, i);
    /* acq_rel: if it is there already, the listener's later clearing of POSTED
     * sees what we have stored before this */
    if (!(__atomic_fetch_or(&c->word, (uint32_t)EMPM__POSTED,
                            __ATOMIC_ACQ_REL) & EMPM__POSTED)) {
        uint32_t head = empm__load(&p->inbox);
        do
            empm__store(&c->inbox_next, head);
        while (!__atomic_compare_exchange_n(&p->inbox, &head, i, 1,
                                            __ATOMIC_RELEASE,
                                            __ATOMIC_RELAXED));
    }
}

/* Two ends of what wakes a poller: an eventfd twice, or a pipe. Returns 0, or
 * -1 with errno. */
static int empm__poller_wake_fd_init(int fd[2])
{
#if defined(__linux__)
    fd[0] = fd[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd[0] < 0 ? -1 : 0;
#else
    return empm__fd_pipe(fd, 1);
#endif
}

static void empm__poller_wake_fd_close(int fd[2])
{
    if (fd[0] >= 0)
        close(fd[0]);
    if (fd[1] >= 0 && fd[1] != fd[0])
        close(fd[1]);
    fd[0] = fd[1] = -1;
}

static void empm__poller_wake_fd_drain(int fd)
{
    char buf[64];
    while (read(fd, buf, sizeof buf) == (ssize_t)sizeof buf)
        ;
}

/* ---------------------------------------------------------------------------
 * >>poller -- epoll or poll()
 *
 * epoll: one edge-triggered registration for a connection's life; EPOLLOUT is
 * added by one MOD at the first EAGAIN of a write. poll(): the one-shot form;
 * an owned connection is not in the set, each release posts the record and the
 * listener puts it back. An event names its record by index and generation, and
 * is marked if it is of the record's second descriptor.
 * ------------------------------------------------------------------------- */

/* What an event that would note `ready` of a client's descriptor notes of a
 * second one. */
static uint32_t empm__poller_aux_bits(uint32_t ready)
{
    return (ready & (EMPM__READY_IN | EMPM__READY_OUT)) << EMPM__AUX_SHIFT;
}

#if EMPM__EPOLL

/* Returns EMPM_OK, or EMPM_ESYS with errno: then free() has to be called. */
static int empm__poller_init(empm__poller *p, empm__slab *sl)
{
    struct epoll_event ev;
    p->slab = sl;
    p->inbox = EMPM__NIL;
    p->sleeping = p->orders = 0;
    p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    p->wake_fd[0] = p->wake_fd[1] = -1;
    if (p->epoll_fd < 0 || empm__poller_wake_fd_init(p->wake_fd) < 0)
        return EMPM_ESYS;
    memset(&ev, 0, sizeof ev);
    ev.events = EPOLLIN;
    ev.data.u64 = EMPM__EVENT_WAKE;
    return epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->wake_fd[0], &ev) < 0
               ? EMPM_ESYS : EMPM_OK;
}

/* Also after an init() that has failed. */
static void empm__poller_free(empm__poller *p)
{
    empm__poller_wake_fd_close(p->wake_fd);
    if (p->epoll_fd >= 0)
        close(p->epoll_fd);
    p->epoll_fd = -1;
}

/* Registers c's descriptor, or changes that: `more` than what is always
 * wanted. */
static int empm__poller_epoll_set(empm__poller *p, const empm__conn *c,
                                  uint32_t i, int op, uint32_t more)
{
    struct epoll_event ev;
    memset(&ev, 0, sizeof ev);
    ev.events = EPOLLIN | EPOLLRDHUP | EPOLLET | more;
    ev.data.u64 = (uint64_t)c->gen << 32 | i;
    return epoll_ctl(p->epoll_fd, op, c->fd, &ev);
}

/* A new connection: from here on its events arrive. */
static int empm__poller_add(empm__poller *p, empm__conn *c, uint32_t i)
{
    return empm__poller_epoll_set(p, c, i, EPOLL_CTL_ADD, 0) < 0 ? EMPM_ESYS
                                                                 : EMPM_OK;
}

/* Room to write is wanted from here on, until the connection ends. Not from the
 * beginning: most answers fit, and each would cost an event more. MOD looks at
 * the socket once more, so no edge is lost. The owner, on any thread. Returns
 * EMPM_OK, or EMPM_ESYS with errno. */
static int empm__poller_want_out(empm__poller *p, empm__conn *c, uint32_t i)
{
    if (c->flags & EMPM__F_OUT_ARMED)
        return EMPM_OK;
    if (empm__poller_epoll_set(p, c, i, EPOLL_CTL_MOD, EPOLLOUT) < 0)
        return EMPM_ESYS;
    c->flags |= EMPM__F_OUT_ARMED;
    return EMPM_OK;
}

/* A connection moves to another process. close() alone would leave it
 * registered here: a registration is of the open file, which the other process
 * has. */
static void empm__poller_remove(empm__poller *p, const empm__conn *c)
{
    epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
}

/* Registers `fd` as the second descriptor of a record; it must not block, and
 * its owner removes it before closing it, and before another one is added. Its
 * first events may come at once. The record's owner, on any thread. Returns
 * EMPM_OK, or EMPM_ESYS with errno. */
EMPM__OPTIONAL
static int empm__poller_aux_add(empm__poller *p, empm__conn *c, uint32_t i,
                                int fd)
{
    struct epoll_event ev;
    memset(&ev, 0, sizeof ev);
    ev.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    ev.data.u64 = EMPM__EVENT_AUX | (uint64_t)c->gen << 32 | i;
    return epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? EMPM_ESYS
                                                              : EMPM_OK;
}

/* Ends that. An event on its way is noted all the same, and does no harm. DEL,
 * not close() alone: a process that a handler has forked may have it open. */
EMPM__OPTIONAL
static void empm__poller_aux_remove(empm__poller *p, empm__conn *c, int fd)
{
    epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    empm__conn_clear(c, EMPM__READY_AUX);
    c->why = (uint16_t)(c->why & ~(unsigned)EMPM__READY_AUX);
}

/* Waits for the bell from here on: each ring is one event for each waiter. */
static int empm__poller_bell(empm__poller *p, int fd)
{
    struct epoll_event ev;
    memset(&ev, 0, sizeof ev);
    ev.events = EPOLLIN | EPOLLET;
    ev.data.u64 = EMPM__EVENT_BELL;
    return epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
}

/* Of the one-shot form only; here a registration outlives what happens to the
 * record. */
static void empm__poller_arm(empm__poller *p, uint32_t i) { (void)p; (void)i; }
static void empm__poller_drop(empm__poller *p, uint32_t i) { (void)p; (void)i; }

/* Begins or ends to wait for connections on endpoint k (or EMPM__EXCHANGE).
 * With EPOLLEXCLUSIVE one child is woken, not all; such a registration cannot
 * be changed, only removed and made anew. Returns 0, or -1 with errno. */
static int empm__poller_watch(empm__poller *p, int fd, uint32_t k, int on)
{
    struct epoll_event ev;
    memset(&ev, 0, sizeof ev);
    ev.events = EPOLLIN;
#ifdef EPOLLEXCLUSIVE
    ev.events |= EPOLLEXCLUSIVE;
#endif
    ev.data.u64 = EMPM__EVENT_ENDPOINT + k;
    if (epoll_ctl(p->epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd,
                  &ev) == 0)
        return 0;
    if (!on || errno != EINVAL)
        return -1;
    ev.events = EPOLLIN;             /* EPOLLEXCLUSIVE is not known here */
    return epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
}

/* Waits, and says in the words of records what has happened. A hang-up and an
 * error are room and input, too: the owner learns the rest from its next call.
 * Returns how many events, or -1 with errno. */
static int empm__poller_collect(empm__poller *p, int timeout_ms,
                                empm__event *out)
{
    int n = epoll_wait(p->epoll_fd, p->got, EMPM__BATCH, timeout_ms), i;
    for (i = 0; i < n; i++) {
        uint32_t e = p->got[i].events, r = 0;
        if (e & EPOLLIN)
            r |= EMPM__READY_IN;
        if (e & EPOLLOUT)
            r |= EMPM__READY_OUT;
        if (e & EPOLLRDHUP)
            r |= EMPM__READY_RDHUP | EMPM__READY_IN;
        if (e & (EPOLLHUP | EPOLLERR))
            r |= EMPM__READY_HUP | EMPM__READY_IN | EMPM__READY_OUT;
        if (p->got[i].data.u64 & EMPM__EVENT_AUX)
            r = empm__poller_aux_bits(r);
        out[i].index = (uint32_t)p->got[i].data.u64;
        out[i].gen = (uint16_t)(p->got[i].data.u64 >> 32);
        out[i].ready = (uint16_t)r;
    }
    return n;
}

#else /* poll() */

/* Makes room for `need` descriptors. Returns EMPM_OK or EMPM_ENOMEM, which
 * leaves the set as it is. */
static int empm__poller_grow(empm__poller *p, uint32_t need)
{
    uint32_t cap = p->cap ? p->cap : 64;
    struct pollfd *set;
    uint32_t *of;
    while (cap < need)
        cap *= 2;
    if (cap == p->cap)
        return EMPM_OK;
    set = (struct pollfd *)EMPM_REALLOC(p->set, cap * sizeof *set);
    if (set == NULL)
        return EMPM_ENOMEM;
    p->set = set;
    of = (uint32_t *)EMPM_REALLOC(p->index, cap * sizeof *of);
    if (of == NULL)
        return EMPM_ENOMEM;
    p->index = of;
    p->cap = cap;
    return EMPM_OK;
}

static int empm__poller_init(empm__poller *p, empm__slab *sl)
{
    p->slab = sl;
    p->inbox = EMPM__NIL;
    p->sleeping = p->orders = 0;
    p->set = NULL;
    p->index = NULL;
    p->cap = 0;
    p->endpoints = EMPM_MAX_LISTEN + 1;      /* fixed places; -1: none */
    p->n = 1 + p->endpoints;
    if (empm__poller_wake_fd_init(p->wake_fd) < 0)
        return EMPM_ESYS;
    if (empm__poller_grow(p, p->n) < 0)
        return EMPM_ENOMEM;
    memset(p->set, 0, p->n * sizeof *p->set);
    p->set[0].fd = p->wake_fd[0];
    p->set[0].events = POLLIN;
    p->index[0] = EMPM__EVENT_WAKE;
    {
        uint32_t k;
        for (k = 0; k < p->endpoints; k++) {
            p->set[1 + k].fd = -1;
            p->set[1 + k].events = POLLIN;
            p->index[1 + k] = EMPM__EVENT_ENDPOINT + k;
        }
    }
    return EMPM_OK;
}

static void empm__poller_free(empm__poller *p)
{
    empm__poller_wake_fd_close(p->wake_fd);
    EMPM_FREE(p->set);
    EMPM_FREE(p->index);
    p->set = NULL;
    p->index = NULL;
}

/* Where a record keeps the slot of `of`: its index, marked or not. */
static uint32_t *empm__poller_slot(empm__poller *p, uint32_t of)
{
    empm__conn *c = empm__slab_conn(p->slab, of & ~EMPM__EVENT_AUX);
    return of & EMPM__EVENT_AUX ? &c->aux_slot : &c->poll_slot;
}

/* Out of the set, where the last one takes the place. */
static void empm__poller_set_remove(empm__poller *p, uint32_t *slot)
{
    const uint32_t k = *slot, last = p->n - 1;
    if (k == 0)
        return;
    if (k != last) {
        p->set[k] = p->set[last];
        p->index[k] = p->index[last];
        *empm__poller_slot(p, p->index[k]) = k;
    }
    p->n--;
    *slot = 0;
}

/* Into the set, or anew with other events. There is always room for both
 * descriptors of a record: empm__poller_add() has made it. */
static void empm__poller_set_add(empm__poller *p, uint32_t of, int fd,
                                 short events)
{
    uint32_t *slot = empm__poller_slot(p, of);
    if (*slot == 0) {
        *slot = p->n++;
        p->index[*slot] = of;
    }
    p->set[*slot].fd = fd;
    p->set[*slot].events = events;
    p->set[*slot].revents = 0;
}

/* A record is taken, or retired: out of the set. */
static void empm__poller_drop(empm__poller *p, uint32_t i)
{
    empm__conn *c = empm__slab_conn(p->slab, i);
    empm__poller_set_remove(p, &c->poll_slot);
    empm__poller_set_remove(p, &c->aux_slot);
}

/* Into the set with what its word says it waits for. While it waits, its fields
 * are the listener's to read: nobody else can take it. */
static void empm__poller_arm(empm__poller *p, uint32_t i)
{
    empm__conn *c = empm__slab_conn(p->slab, i);
    uint32_t w = empm__load_acq(&c->word);
    short events = 0;
    if ((w & (EMPM__OWNED | EMPM__RETIRED)) || c->protocol == EMPM__FREE)
        return;
    if (w & EMPM__WANT(EMPM__READY_IN))
        events |= POLLIN;
    if (w & EMPM__WANT(EMPM__READY_OUT))
        events |= POLLOUT;
    if (!(w & EMPM__READY_RDHUP))
        events |= EMPM__POLLRDHUP;
    empm__poller_set_add(p, i, c->fd, events);
    events = 0;
    if (w & EMPM__WANT(EMPM__READY_AUX_IN))
        events |= POLLIN;
    if (w & EMPM__WANT(EMPM__READY_AUX_OUT))
        events |= POLLOUT;
    if (events != 0 && c->aux_fd >= 0)
        empm__poller_set_add(p, i | EMPM__EVENT_AUX, c->aux_fd, events);
}

static int empm__poller_add(empm__poller *p, empm__conn *c, uint32_t i)
{
    c->poll_slot = c->aux_slot = 0;
    c->aux_fd = -1;
    if (empm__poller_grow(p, 2 + p->endpoints + 2 * p->slab->in_use) < 0)
        return EMPM_ENOMEM;
    empm__poller_arm(p, i);
    return EMPM_OK;
}

static int empm__poller_want_out(empm__poller *p, empm__conn *c, uint32_t i)
{
    (void)p; (void)c; (void)i;
    return EMPM_OK;
}

static void empm__poller_remove(empm__poller *p, const empm__conn *c)
{
    (void)p; (void)c;                /* it is out of the set: it was taken */
}

/* As with epoll; an owned record is not in the set, so it is only noted. */
EMPM__OPTIONAL
static int empm__poller_aux_add(empm__poller *p, empm__conn *c, uint32_t i,
                                int fd)
{
    (void)p; (void)i;
    c->aux_fd = fd;
    return EMPM_OK;
}

EMPM__OPTIONAL
static void empm__poller_aux_remove(empm__poller *p, empm__conn *c, int fd)
{
    (void)p; (void)fd;
    c->aux_fd = -1;
    empm__conn_clear(c, EMPM__READY_AUX);
    c->why = (uint16_t)(c->why & ~(unsigned)EMPM__READY_AUX);
}

/* Without EPOLLEXCLUSIVE all children are woken for what waits: there is
 * nothing to ring for. */
static int empm__poller_bell(empm__poller *p, int fd)
{
    (void)p; (void)fd;
    return 0;
}

static int empm__poller_watch(empm__poller *p, int fd, uint32_t k, int on)
{
    p->set[1 + k].fd = on ? fd : -1;
    return 0;
}

/* As with epoll. What does not fit into one batch is there the next time: the
 * set is level-triggered. */
static int empm__poller_collect(empm__poller *p, int timeout_ms,
                                empm__event *out)
{
    int left = poll(p->set, p->n, timeout_ms), n = left < 0 ? -1 : 0;
    uint32_t slot;
    for (slot = 0; slot < p->n && left > 0 && n < EMPM__BATCH; slot++) {
        int e = p->set[slot].revents;
        uint32_t r = 0;
        if (e == 0)
            continue;
        left--;
        if (e & POLLIN)
            r |= EMPM__READY_IN;
        if (e & POLLOUT)
            r |= EMPM__READY_OUT;
        if (e & EMPM__POLLRDHUP)
            r |= EMPM__READY_RDHUP | EMPM__READY_IN;
        if (e & (POLLHUP | POLLERR | POLLNVAL))
            r |= EMPM__READY_HUP | EMPM__READY_IN | EMPM__READY_OUT;
        out[n].index = p->index[slot];
        out[n].gen = 0;
        if (p->index[slot] < EMPM__EVENT_ENDPOINT) {
            if (p->index[slot] & EMPM__EVENT_AUX)
                r = empm__poller_aux_bits(r);
            out[n].index &= ~EMPM__EVENT_AUX;
            out[n].gen = empm__slab_conn(p->slab, out[n].index)->gen;
        }
        out[n].ready = (uint16_t)r;
        n++;
    }
    return n;
}

#endif

/* Waits for events, at most timeout_ms (-1: without limit); not at all if
 * the inbox or the orders want attention. Returns how many, or -1: errno
 * says why. */
static int empm__poller_wait(empm__poller *p, int timeout_ms, empm__event *out)
{
    int n;
    if (timeout_ms != 0) {
        empm__store(&p->sleeping, 1u);
        empm__fence();           /* pairs with the fence in empm__poller_wake */
        if (empm__load(&p->inbox) != EMPM__NIL || empm__load(&p->orders) != 0)
            timeout_ms = 0;
    }
    n = empm__poller_collect(p, timeout_ms, out);
    empm__store(&p->sleeping, 0u);
    return n;
}

/* ---------------------------------------------------------------------------
 * >>route -- patterns, compiled once, matched by segments
 *
 * A tree: each node is one segment of a pattern, a literal, {x} or {x...}. The
 * search prefers literals and steps back when a branch has no route for the
 * method, which finds the most specific pattern, since patterns of which
 * neither is more specific are refused.
 *
 *   "GET /a/{x}"  "/a/b/{$}"  "/a/b/"        ( ) -- a -- {x}        GET
 *                                                    \-- b -- ""    any, exact
 *                                                         \-- {...} any
 * source    the documented behaviour of Go 1.22's net/http.ServeMux
 * ------------------------------------------------------------------------- */

enum empm__seg_kind { EMPM__SEG_TEXT, EMPM__SEG_ONE, EMPM__SEG_REST };

typedef struct empm__seg {
    enum empm__seg_kind kind;
    const char *text;            /* literal, or the name of the wildcard */
    size_t      len;
} empm__seg;

typedef struct empm__route {     /* one row of the user's table */
    const empm_route *user;
    empm_handler *handler;       /* the user's, or that of files */
    const char *method;          /* "" for any */
    empm__seg  *segs;
    int         nsegs;
    uint32_t    next_at_node;    /* another method, same pattern */
    uint32_t    running;         /* atomic: workers in its handler */
    uint32_t    requests;        /* atomic: on their way, for max_requests */
    uint32_t    quick;           /* atomic: its credit, see EMPM__QUICK */
    int         root_fd;         /* EMPM_FILES, else -1 */
} empm__route;

/* The credit of a route: +1 for a call of its handler under 100 us, up to 16;
 * -4 for a slower one, which may have been preempted; 0 after one over 1 ms.
 * Below EMPM__QUICK a worker gives up its place among those that run before the
 * call, so that another may take it while the handler waits. */
#define EMPM__QUICK 4u

typedef struct empm__node {
    empm__seg   seg;
    uint32_t    child, sibling;  /* NIL: none; literals before wildcards */
    uint32_t    routes;          /* first of this pattern, or NIL */
} empm__node;

typedef struct empm__routes {
    empm__route *list;
    uint32_t     n;
    empm__node  *nodes;
    uint32_t     nnodes;
    empm__seg   *segs;
    char        *text;           /* copies of the patterns */
} empm__routes;

/* The pattern of a row. A row without one has an empty one: it is refused. */
static const char *empm__route_text(const empm_route *r)
{
    return r->pattern != NULL ? r->pattern : "";
}

static int empm__route_is_name(char ch)
{
    const int low = empm__ascii_lower(ch);
    return (low >= 'a' && low <= 'z') || empm__ascii_is_digit(ch) ||
           ch == '_' || ch == '-';
}

/* Splits "[METHOD ]/path" in place, into r->method and r->segs. Returns NULL,
 * or what is wrong with it. */
static const char *empm__route_parse(empm__route *r, char *s,
                                     const empm__chars *chars)
{
    char *slash = strchr(s, '/'), *space = strchr(s, ' ');
    r->method = "";
    r->nsegs = 0;
    if (space != NULL && (slash == NULL || space < slash)) {
        *space = '\0';
        r->method = s;
        if (!empm__chars_all(chars, s, strlen(s), EMPM__TCHAR) || *s == '\0')
            return "the method is not a token";
        if (strcmp(s, "CONNECT") == 0)
            return "CONNECT names no path: that is for proxies";
        s = space + 1 + strspn(space + 1, " ");
    }
    if (*s != '/')
        return "the path must begin with '/'";
    while (*s == '/') {                    /* n bytes up to the next slash */
        empm__seg *seg = &r->segs[r->nsegs++];
        size_t n = strcspn(++s, "/"), k;
        if (r->nsegs > EMPM_PATH_SEGMENTS)
            return "has more than EMPM_PATH_SEGMENTS segments";
        seg->kind = EMPM__SEG_TEXT;
        seg->text = s;
        seg->len = n;
        if (n == 0 && s[0] == '\0')        /* "/a/": all below, without name */
            seg->kind = EMPM__SEG_REST;
        else if (n == 0)
            return "has an empty segment";
        else if (n == 3 && memcmp(s, "{$}", 3) == 0) {
            seg->len = 0;                  /* the empty segment after "/a/" */
            if (s[n] != '\0')
                return "has {$} before its end";
        } else if (s[0] == '{' && s[n - 1] == '}') {
            seg->kind = EMPM__SEG_ONE;
            seg->text++;
            seg->len -= 2;
            if (n >= 5 && memcmp(s + n - 4, "...", 3) == 0) {
                seg->kind = EMPM__SEG_REST;
                seg->len -= 3;
                if (s[n] != '\0')
                    return "has {name...} before its end";
            }
            for (k = 0; k < seg->len; k++)     /* "{x..}" is a typing error */
                if (!empm__route_is_name(seg->text[k]))
                    break;
            if (seg->len == 0 || k < seg->len)
                return "has a wildcard whose name is not of letters, digits, "
                       "'_' and '-'";
            for (k = 0; k + 1 < (size_t)r->nsegs; k++)
                if (r->segs[k].kind != EMPM__SEG_TEXT &&
                    empm__text_same(r->segs[k].text, r->segs[k].len, seg->text,
                                    seg->len))
                    return "uses a wildcard name twice";
        } else if (memchr(s, '{', n) != NULL || memchr(s, '}', n) != NULL)
            return "has a brace that is not around a whole segment";
        s += n;
    }
    return *s == '\0' ? NULL : "is not a path";
}

enum {                             /* how two sets of requests lie */
    EMPM__ROUTE_MORE = 1,          /* the first has some that are not in both */
    EMPM__ROUTE_LESS = 2,          /* the second has */
    EMPM__ROUTE_APART = 4          /* they have none in common */
};

/* Compares the sets of requests that a and b match: method first, then segment
 * by segment. Returns bits of the above; 0: they are the same. With MORE alone,
 * or LESS alone, one lies within the other and is the more specific. */
static int empm__route_compare(const empm__route *a, const empm__route *b)
{
    int rel = 0, i;
    if (strcmp(a->method, b->method) != 0) {
        int ga = strcmp(a->method, "GET") == 0, gb = strcmp(b->method,
                                                            "GET") == 0;
        if (*a->method == '\0' || (ga && strcmp(b->method, "HEAD") == 0))
            rel |= EMPM__ROUTE_MORE;
        else if (*b->method == '\0' || (gb && strcmp(a->method, "HEAD") == 0))
            rel |= EMPM__ROUTE_LESS;
        else
            return EMPM__ROUTE_APART;
    }
    for (i = 0;; i++) {
        const empm__seg *x = i < a->nsegs ? &a->segs[i] : NULL;
        const empm__seg *y = i < b->nsegs ? &b->segs[i] : NULL;
        if (x == NULL || y == NULL)
            return x == NULL && y == NULL ? rel : EMPM__ROUTE_APART;
        if (x->kind == EMPM__SEG_REST || y->kind == EMPM__SEG_REST) {
            if (x->kind != EMPM__SEG_REST)
                rel |= EMPM__ROUTE_LESS;
            if (y->kind != EMPM__SEG_REST)
                rel |= EMPM__ROUTE_MORE;
            return rel;
        }
        if (x->kind == EMPM__SEG_TEXT && y->kind == EMPM__SEG_TEXT) {
            if (x->len != y->len || memcmp(x->text, y->text, x->len) != 0)
                return EMPM__ROUTE_APART;
        } else if (x->kind != y->kind) {
            const empm__seg *lit = x->kind == EMPM__SEG_TEXT ? x : y;
            if (lit->len == 0)             /* {x} is never empty */
                return EMPM__ROUTE_APART;
            rel |= x->kind == EMPM__SEG_TEXT ? EMPM__ROUTE_LESS
                                             : EMPM__ROUTE_MORE;
        }
    }
}

static int empm__route_seg_same(const empm__seg *a, const empm__seg *b)
{
    return a->kind == b->kind &&
           (a->kind != EMPM__SEG_TEXT ||
            (a->len == b->len && memcmp(a->text, b->text, a->len) == 0));
}

/* Hangs route k into the tree, which has room for all its nodes. Siblings stand
 * in the order of their kinds: the search meets literals before wildcards. */
static void empm__route_insert(empm__routes *t, uint32_t k)
{
    const empm__route *r = &t->list[k];
    uint32_t at = 0;
    int i;
    for (i = 0; i < r->nsegs; i++) {
        uint32_t *link = &t->nodes[at].child;
        while (*link != EMPM__NIL &&
               t->nodes[*link].seg.kind <= r->segs[i].kind &&
               !empm__route_seg_same(&t->nodes[*link].seg, &r->segs[i]))
            link = &t->nodes[*link].sibling;
        if (*link == EMPM__NIL ||
            !empm__route_seg_same(&t->nodes[*link].seg, &r->segs[i])) {
            empm__node *node = &t->nodes[t->nnodes];
            node->seg = r->segs[i];
            node->child = node->routes = EMPM__NIL;
            node->sibling = *link;
            *link = t->nnodes++;
        }
        at = *link;
    }
    t->list[k].next_at_node = t->nodes[at].routes;
    t->nodes[at].routes = k;
}

static void empm__routes_free(empm__routes *t)
{
    uint32_t i;
    for (i = 0; t->list != NULL && i < t->n; i++)
        if (t->list[i].root_fd >= 0)
            close(t->list[i].root_fd);
    EMPM_FREE(t->list);
    EMPM_FREE(t->nodes);
    EMPM_FREE(t->segs);
    EMPM_FREE(t->text);
    memset(t, 0, sizeof *t);
}

/* Counts what n routes need and allocates it; returns 0 if there is no memory.
 * A pattern has at most as many segments as slashes, and a segment needs at
 * most one node. */
static int empm__routes_reserve(empm__routes *t, const empm_route *user,
                                size_t n)
{
    size_t bytes = 1, segs = 1, i;
    for (i = 0; i < n; i++) {
        const char *p = empm__route_text(&user[i]);
        bytes += strlen(p) + 1;
        for (; *p != '\0'; p++)
            segs += *p == '/';
        segs++;
    }
    t->list = (empm__route *)EMPM_MALLOC((n + 1) * sizeof *t->list);
    t->nodes = (empm__node *)EMPM_MALLOC((segs + 1) * sizeof *t->nodes);
    t->segs = (empm__seg *)EMPM_MALLOC(segs * sizeof *t->segs);
    t->text = (char *)EMPM_MALLOC(bytes);
    if (!t->list || !t->nodes || !t->segs || !t->text)
        return 0;
    memset(t->nodes, 0, sizeof *t->nodes);
    t->nodes[0].child = t->nodes[0].sibling = t->nodes[0].routes = EMPM__NIL;
    t->nnodes = 1;
    return 1;
}

/* Reports what is wrong with the last route beside its pattern: no handler, or
 * requests that an earlier route serves as well, with nothing to decide it. */
static void empm__routes_check_last(const empm__routes *t, empm__report *rep)
{
    const empm__route *r = &t->list[t->n - 1], *other = t->list;
    const empm_route *user = r->user;
    if (user->kind == EMPM__ROUTE_HANDLER && user->handler == NULL)
        empm__report_say(rep, EMPM_LOG_ERROR, 5105, "route \"%s\": has no "
                         "handler", user->pattern);
    if (user->kind == EMPM__ROUTE_FILES &&
        r->segs[r->nsegs - 1].kind != EMPM__SEG_REST)
        empm__report_say(rep, EMPM_LOG_ERROR, 5105, "route \"%s\": files "
                         "need a pattern that ends with '/' or {name...}",
                         user->pattern);
    for (; other < r; other++) {
        /* one whose pattern is wrong has no segments */
        const int rel = other->nsegs > 0 ? empm__route_compare(r, other)
                                         : EMPM__ROUTE_APART;
        if (rel == 0 || rel == (EMPM__ROUTE_MORE | EMPM__ROUTE_LESS))
            empm__report_say(rep, EMPM_LOG_ERROR, 5105,
                             "routes \"%s\" and \"%s\" serve the same "
                             "requests and neither is more specific",
                             other->user->pattern, user->pattern);
    }
}

/* Compiles the user's table, and reports all that is wrong with it. Returns
 * EMPM_OK, EMPM_EINVAL or EMPM_ENOMEM; the caller frees the table in any
 * case. */
static int empm__routes_init(empm__routes *t, const empm_route *user,
                             const empm__chars *chars, empm__report *rep)
{
    size_t n = 0, i;
    char *text;
    empm__seg *seg;
    const int before = rep->errors;
    memset(t, 0, sizeof *t);
    while (user != NULL && user[n].kind != EMPM__ROUTE_END)
        n++;
    if (!empm__routes_reserve(t, user, n)) {
        empm__routes_free(t);
        rep->result = EMPM_ENOMEM;
        empm__report_say(rep, EMPM_LOG_ERROR, 5104, "no memory for the routes");
        return EMPM_ENOMEM;
    }
    seg = t->segs;
    text = t->text;
    for (i = 0; i < n; i++) {
        empm__route *r = &t->list[i];
        const char *pattern = empm__route_text(&user[i]), *why;
        memset(r, 0, sizeof *r);
        r->user = &user[i];
        r->handler = user[i].handler;
        r->root_fd = -1;
        r->segs = seg;
        t->n = (uint32_t)i + 1;
        memcpy(text, pattern, strlen(pattern) + 1);
        if ((why = empm__route_parse(r, text, chars)) != NULL) {
            empm__report_say(rep, EMPM_LOG_ERROR, 5105, "route \"%s\" in row "
                             "%u: %s", pattern, (unsigned)i + 1, why);
            r->nsegs = 0;
            continue;
        }
        text += strlen(pattern) + 1;
        seg += r->nsegs;
        empm__routes_check_last(t, rep);
        empm__route_insert(t, (uint32_t)i);
    }
    return rep->errors == before ? EMPM_OK : EMPM_EINVAL;
}

/* How well does a route's method fit? Returns 0: not at all; 1: the route takes
 * any; 2: it takes GET, and this is HEAD; 3: it is the same. */
static int empm__route_method_rank(const char *route, const char *method)
{
    if (strcmp(route, method) == 0)
        return 3;
    if (strcmp(route, "GET") == 0 && strcmp(method, "HEAD") == 0)
        return 2;
    return *route == '\0';
}

/* A path, cut at its slashes: decoded segments, one after the other, each with
 * its NUL. "/a/" has two: "a" and "". */
typedef struct empm__path {
    char    *seg[EMPM_PATH_SEGMENTS];
    uint16_t len[EMPM_PATH_SEGMENTS];
    uint16_t raw[EMPM_PATH_SEGMENTS];  /* where it begins in the raw path */
    int      n;
} empm__path;

/* Cuts and decodes `path` of n bytes (it begins with '/') into `to`, n + 1
 * bytes, and makes it normal, in place and with a NUL behind it: an empty
 * segment goes, "." goes, ".." takes the segment before it along (RFC 3986
 * 5.2.4), and as the last one each of them leaves a slash. Routes, files and
 * handlers all see what is left, so that none of them judges one path and opens
 * another. Dots count when they are decoded, "%2e%2e" too; a "%2f" is no slash.
 * Returns 0, or a status: 400 above the root, 414 for too many segments. */
static int empm__path_split(empm__path *p, char *path, size_t n, char *to)
{
    size_t i = 0, k = 0;             /* read up to here, kept up to here */
    p->n = 0;
    if (n > 65535)
        return 414;
    while (i < n) {
        const char *slash = (const char *)memchr(path + i + 1, '/', n - i - 1);
        const size_t end = slash != NULL ? (size_t)(slash - path) : n;
        const char *raw = path + i + 1;
        size_t bytes = end - i - 1;
        long len = empm__text_decode(to, raw, bytes, 0);
        i = end;
        if (len < 0)
            return 400;
        if (len <= 2 && memcmp(to, "..", (size_t)len) == 0) {
            if (len == 2 && p->n-- == 0)
                return 400;
            if (len == 2) {
                to = p->seg[p->n];
                k = p->raw[p->n] - 1u;
            }
            if (end < n)
                continue;
            len = 0;                     /* the end of "/a/.", "/a/b/.." */
            bytes = 0;
            *to = '\0';
        }
        if (p->n == EMPM_PATH_SEGMENTS)
            return 414;
        path[k++] = '/';
        memmove(path + k, raw, bytes);
        p->seg[p->n] = to;
        p->len[p->n] = (uint16_t)len;
        p->raw[p->n++] = (uint16_t)k;
        k += bytes;
        to += len + 1;
    }
    path[k] = '\0';
    return 0;
}

/* Searches node `at` and below for the segments of p from i on. Returns the
 * most specific route that serves path and method, or NULL. With `seen`, a byte
 * for each route, it marks all that serve the path, whatever the method, and
 * returns NULL. Each call takes one segment: it is at most EMPM_PATH_SEGMENTS
 * deep. */
static empm__route *empm__route_search(const empm__routes *t, uint32_t at,
                                       const empm__path *p, int i,
                                       const char *method, unsigned char *seen)
{
    empm__route *best = NULL;
    uint32_t k;
    if (i == p->n) {
        int rank, best_rank = 0;
        for (k = t->nodes[at].routes; k != EMPM__NIL;
             k = t->list[k].next_at_node) {
            if (seen != NULL)
                seen[k] = 1;
            else if ((rank = empm__route_method_rank(t->list[k].method,
                                                     method)) >
                     best_rank) {
                best_rank = rank;
                best = &t->list[k];
            }
        }
        return best;
    }
    for (k = t->nodes[at].child; k != EMPM__NIL && best == NULL;
         k = t->nodes[k].sibling) {
        const empm__seg *seg = &t->nodes[k].seg;
        if (seg->kind == EMPM__SEG_TEXT &&
            (seg->len != p->len[i] || memcmp(seg->text, p->seg[i], seg->len)))
            continue;
        if (seg->kind == EMPM__SEG_ONE && p->len[i] == 0)
            continue;
        best = empm__route_search(t, k, p,
                                  seg->kind == EMPM__SEG_REST ? p->n : i + 1,
                                  method, seen);
    }
    return best;
}

/* ---------------------------------------------------------------------------
 * >>engine-types -- what a worker, an engine and a server are
 *
 * Everything in flight is made of pages of one size: the request and its head,
 * what a handler allocates, the response on its way out. A worker keeps a few
 * (warm), the child's pool the rest, up to max_mem_free; so the steady state
 * allocates nothing. A connection that waits without having sent anything holds
 * no page.
 * ------------------------------------------------------------------------- */

typedef struct empm__page {
    struct empm__page *next;
    uint32_t           start, end;     /* what is in use of the data after it */
    /* in the queue of output: a slice, at..stop, of a file follows the data */
    struct empm__file *file;           /* a reference; NULL: of the overflow */
    int64_t            at, stop;       /* equal: there is no slice */
} __attribute__((aligned(16))) empm__page;

#define EMPM__PAGE_ROOM ((uint32_t)(EMPM_PAGE_BYTES - sizeof(empm__page)))
#define EMPM__PAGE_CACHE 8             /* pages that a worker keeps */
#define EMPM__SCRATCH 65536            /* a worker's, for passing through */

typedef struct empm__pool {
    pthread_mutex_t lock;              /* guards free and count */
    empm__page     *free;
    size_t          count, most;
    int64_t         body_memory;       /* atomic; bytes lent to bodies */
    int64_t         spool[2];          /* atomic; bytes in unlinked files */
    int64_t         files[2];          /* atomic; descriptors that are open */
    int64_t         files_most;        /* fixed: MaxOpenFiles, as it came out */
} empm__pool;

/* Parts of a budget. Neither can take what the other one needs: uploads leave
 * room for answers, and slow readers leave room for uploads. */
enum { EMPM__FOR_BODIES, EMPM__FOR_ANSWERS };

typedef struct empm__stamp {           /* a second, as some format shows it */
    const char *format;
    int64_t     second;
    size_t      len;
    char        text[64];
} empm__stamp;

/* Which function of the user's runs. Only a handler may suspend its request. */
enum empm__call { EMPM__CALL_NONE, EMPM__CALL_HANDLER, EMPM__CALL_OTHER };

typedef struct empm__worker {          /* its thread alone, unless noted */
    struct empm__engine *engine;
    empm_server        *s;
    const empm_config  *cfg;
    empm__score_worker *score;
    pthread_t           thread;
    uint32_t            number;
    uint32_t            index;         /* of the connection that runs */
    enum empm__call     calling;       /* the user's function that runs */
    empm__page         *pages;         /* spare ones */
    int                 pages_count;
    char               *scratch;     /* EMPM__SCRATCH bytes, made when needed */
    void               *thread_data;   /* on_thread_start's */
    uint32_t            now_ms;        /* the last look at the clock */
    int64_t             date_s;        /* what `date` shows */
    uint32_t            date_len;
    char                date[160];     /* "Date: ...\r\nServer: ...\r\n" */
    empm__page         *lines[EMPM_MAX_LIST]; /* atomic, for each access log */
    empm__stamp         stamp;         /* the last time that one showed */
    int64_t             wall_us;       /* the date's clock is so far ahead of */
    uint64_t            wall_at_us;    /* empm__now_us(), as seen then */
    /* the turn: what this connection has used in a row */
    uint32_t            turn_requests, turn_bytes;
    uint64_t            turn_start_us, turn_us;   /* turn_us: the last look */
    uint32_t            turn_began;    /* atomic: in ms, for others; NEVER: no
                                          turn is on */
} empm__worker;

/* A file that answers are made of; they and the child's cache share it. */
typedef struct empm__file {
    uint32_t    refs;             /* atomic; all else is fixed but used_at_ms */
    uint32_t    used_at_ms;            /* atomic: when last asked for */
    int         fd;                    /* -1: `bytes` is all of it */
    int         root_fd;               /* where `path` begins */
    uint64_t    stat_key[5];           /* device, inode, size, mtime, ctime */
    int64_t     modified_s;
    const char *type;
    char       *path, *bytes;         /* behind the struct; bytes may be NULL */
    empm__pool *pool;                  /* where fd is counted; NULL: nowhere */
    char        modified[30], tag[40]; /* tag: "" if FileETag is None */
    uint16_t    validators, fields_len;
    char        fields[256];           /* of the head; the validators first */
} empm__file;

/* A connection beyond MaxConnectionsPerPeer that waits for its verdict. */
#define EMPM__HELD    16u        /* at most; the oldest has it early then */
#define EMPM__HELD_MS 50         /* so long at most */
#define EMPM__OVER    0xfffffffdu    /* no record: it is one too many */

typedef struct empm__held {
    int      fd;
    int      endpoint;
    uint32_t verdict_at_ms;
    struct sockaddr_storage from;
} empm__held;

/* What a parent tells a child, a byte for each (>>attend, >>children). */
enum empm__tell {
    EMPM__TELL_PING     = 'w',   /* is your listener alive? */
    EMPM__TELL_ACCEPT   = 'a',   /* it is decided that you serve */
    EMPM__TELL_LOGS     = 'l',   /* these descriptors are your logs from here */
    EMPM__TELL_RESTART  = 'r',   /* drain: siblings serve on */
    EMPM__TELL_UPGRADE  = 'u',   /* drain: a new program serves on */
    EMPM__TELL_DRAIN    = '!',   /* drain: nobody serves on */
    EMPM__TELL_REPLACED = 'h',   /* stop: siblings serve on */
    EMPM__TELL_STOP     = '$'    /* stop: nobody serves on */
};

/* What a child says to its parent. The scoreboard has the rest. */
enum empm__say {
    EMPM__SAY_HEALTHY = 'h',     /* all start hooks have returned 0 */
    EMPM__SAY_IDLE    = 'i',     /* its idle workers have crossed their share */
    EMPM__SAY_PAUSED  = 'p',     /* it does not accept any more */
    EMPM__SAY_LEAVING = 'q'      /* it ends by itself */
};

typedef struct empm__engine {
    empm_server        *s;
    const empm_config  *cfg;
    empm__score_child  *score;
    int                 slot;          /* in the scoreboard */
    int                 nworkers;      /* fixed: ThreadsPerChild, or 1 */
    const empm__routes *routes;        /* fixed */
    int                 admin;         /* fixed: serves the admin endpoints, and
                                          the other engines serve the rest */
    empm__slab          slab;          /* the listener makes and frees */
    empm__wheel         wheel;         /* the listener only */
    empm__queue         queue;
    empm__poller        poller;
    empm__pool          pool;
    struct empm__files *files;         /* those that are kept (>>files) */
    empm__log_limit     log_limits[EMPM__LOG_CODES];
    uint32_t            lines_due_at_ms; /* atomic: lines of access logs have to
                                          be written; or NEVER */
    uint32_t            collecting;    /* atomic: somebody is at it */
    long                pid;
    empm__worker       *workers;
    empm__sleeper      *sleepers;
    uint32_t            horizon_ms;    /* H of >>wheel; fixed */
    /* the end, decided by the listener and read by workers: all atomic */
    uint32_t            stopping;      /* EMPM__ORDER_STOP, _GRACEFUL or both */
    int                 drain_ms;      /* at most for a drain; 0: no limit */
    uint32_t            linger_end_at_ms; /* no LINGER after this; or NEVER */
    uint32_t            abort;         /* waiting is over for everyone */
    uint32_t            want_retired;  /* a freed record wakes the listener */
    uint32_t            handing_over;  /* EMPM__TO_*: what waits for a request
                                          goes to others that serve on; 0 */
    pthread_t           standby;
    /* the listener only */
    empm__event         events[EMPM__BATCH];
    uint32_t            paused;        /* why nothing is accepted: PAUSE_* */
    uint32_t            accepts;       /* since the last rotation */
    uint32_t            vain;          /* looks at what listens, for nothing */
    uint64_t            accepted_before; /* by the slot's last tenants */
    uint32_t            full_batches;  /* in a row without room */
    uint32_t            retry_at_ms;   /* PAUSE_FDS and PAUSE_FULL end */
    uint32_t            stop_at_ms;    /* patience with a stop ends; or NEVER */
    int                 lacked_fds;    /* for what it has taken or accepted */
    int                 shares;        /* there is an exchange: see SHARES() */
    uint32_t            most;          /* fixed: MaxOpenConnections; one message
                                          of the exchange may go beyond it */
    uint32_t            fresh;         /* just accepted, without a byte yet */
    uint32_t            fresh_at_ms;   /* when the first of those came */
    uint32_t            turn_over_at_ms; /* PAUSE_TURN ends */
    uint32_t            give_at_ms;    /* siblings may have time; or NEVER */
    uint32_t            give_wait_ms;  /* how long it has waited for that */
    uint32_t            sweep;         /* the first record to be handed over */
    uint32_t            sweep_at_ms;   /* when that goes on; or NEVER */
    uint32_t            swept_at_ms;   /* when a record has moved last */
    uint64_t            tell_pause_at_us, tell_at_us; /* to the parent: not
                                          again before */
    int                 told_few;      /* it knows of few idle workers */
    int                 listening;     /* endpoints are registered */
    empm__counts        counts;        /* MaxConnectionsPerPeer */
    empm__held          held[EMPM__HELD];
    uint32_t            nheld;         /* the oldest first */
    uint32_t            shut;          /* a bit for each endpoint that somebody
                                          has shut down for good */
    uint64_t            deaf_at_us;    /* since then no wait works; or 0 */
    /* the end, for those that wait for it */
    pthread_mutex_t     done_lock;     /* guards done, begun and sick */
    pthread_cond_t      done_cond;
    int                 done, joined, started;
    int                 begun, sick;   /* workers whose start hook has returned,
                                          and not 0 */
    int                 done_fd;       /* atomic: a byte at the end; or -1 */
} empm__engine;

/* In a build without fork() nobody has a parent or siblings: these are then
 * constants, and the compiler drops all that serves them. */
#ifdef EVENTMPM_NO_FORK
#  define EMPM__FORKS 0
#else
#  define EMPM__FORKS 1
#endif
#define EMPM__HAS_PARENT(s) (EMPM__FORKS && (s)->parent_fd >= 0)
#define EMPM__SHARES(e)     (EMPM__FORKS && (e)->shares)
#define EMPM__HANDS_OVER(e) (EMPM__FORKS ? empm__load(&(e)->handing_over) : 0u)

/* What children pass connections on with (>>exchange). All processes have all
 * of it, for as long as the server lives: new generations, and new programs. */
typedef struct empm__exchange {       /* fixed */
    int fd[2];                 /* where to take from, where to give; -1: none */
    int bell[2];               /* written: all children look at what listens */
    int inherited;             /* from the program before this one */
} empm__exchange;

typedef struct empm__rights {        /* of a unix socket's file; -1: as it is */
    long  mode;
    uid_t uid;
    gid_t gid;
} empm__rights;

typedef struct empm__endpoint {       /* fixed once the server has started */
    int         fd;
    int         port;              /* 0: none (unix) */
    const char *text;              /* the listen string */
    int         admin;             /* status only, by an engine of its own */
    int         proxy;             /* connections begin with a PROXY header */
    struct empm__session *session; /* what connections begin with */
    char        path[108];         /* of a unix socket that we made, or "" */
    empm__rights rights;           /* that its file shall have */
} empm__endpoint;

struct empm__wait;
struct empm__logs_swap;

struct empm_server {
    empm_config    *cfg;
    empm__chars     chars;
    empm__routes    routes;
    empm__score     score;
    empm__endpoint  endpoints[EMPM_MAX_LISTEN];
    int             nendpoints;
    int             spool_dir;     /* descriptor of SpoolDirectory */
    pid_t           owner;         /* the process that unlinks what it made */
    uid_t           uid;       /* User, Group and the groups of that user, if */
    gid_t           gid;           /* root has started it: looked up once */
    gid_t          *groups;
    int             ngroups;
    struct empm__kv *store;        /* SharedStoreSize; NULL: none (>>store) */
    struct empm__types *types;     /* AddType; NULL: none (>>files) */
    struct empm__access_logs *access;  /* CustomLog; NULL: none (>>access) */
    struct empm__nets *trusted;    /* RemoteIPTrustedProxy; or NULL (>>proxy) */
    empm__exchange  exchange;      /* between children */
    int             borrows;       /* score, store, exchange are another's */
    uint32_t        generation;
    empm__routes    admin_routes;  /* what admin endpoints offer */
    empm__engine     engine;       /* the engine of this process */
    empm__engine    *admin;        /* a second one, for the admin endpoints of a
                                      process without parent; or NULL */
    int             engine_ready;  /* it has been initialised */
    int             parent_fd;     /* a child tells the parent; or -1 */
    int             owns_signals;  /* empm_run() has taken this process's */
    int             lends_log;    /* cfg->log is ours: empm_start(), ErrorLog */
    /* what wings do for each connection or request; NULL: nobody does it */
    enum empm__state (*read_proxy)(empm__worker *w, empm__conn *c,
                                   struct empm__wait *wait);
    void           (*find_client)(empm_request *req, empm__peer *peer);
    void           (*log_request)(empm_request *req, int aborted);
};

/* A wing is an optional part of the server; this is all that the core knows of
 * it. One that is not built has no hook but `check`. Every hook may be NULL.
 *
 *   check         says what is wrong with the settings that are the wing's
 *   server_new    makes what it has for each server, or says why it cannot.
 *                 `old`: the server that this one follows, or NULL
 *   server_free   the end of that, also if it was never made, or in part
 *   engine_new    makes what it has for each engine
 *   engine_free   the end of that, as above
 *   expire        on the listener, at expire_at(); must not wait for a disk
 *   chore         on a worker, at chore_at(); may wait for a disk
 *   stopped       no worker of the engine runs any more
 *   reopen        opens its log files anew, into `swap`
 *   reopened      the log file `is` has become what `to` is
 *   module        Apache's module that it stands for, without "mod_"
 *
 * expire_at() and chore_at() return EMPM__NEVER if nothing is due. */
typedef struct empm__wing {
    void     (*check)(const empm_config *cfg, const empm__chars *chars,
                      empm__report *rep);
    int      (*server_new)(empm_server *s, const empm_server *old,
                           empm__report *rep);
    void     (*server_free)(empm_server *s);
    int      (*engine_new)(empm__engine *e);
    void     (*engine_free)(empm__engine *e);
    uint32_t (*expire_at)(empm__engine *e);
    void     (*expire)(empm__engine *e, uint32_t now_ms);
    uint32_t (*chore_at)(empm__engine *e);
    void     (*chore)(empm__engine *e);
    void     (*stopped)(empm__engine *e);
    int      (*reopen)(const empm_server *s, struct empm__logs_swap *swap);
    void     (*reopened)(empm_server *s, const struct stat *is, int to);
    const char *module;
} empm__wing;

/* The list of wings, which stands behind them: it ends with NULL. */
static const empm__wing *const *empm__wings(void);

#define EMPM__EACH_WING(wing, hook) \
    for (wing = empm__wings(); *wing != NULL; wing++) \
        if ((*wing)->hook == NULL) { } else

/* The k-th of Apache's modules that this server stands for, as <IfModule>, -l
 * and -M name it, and its file. NULL: there are no more. */
EMPM__OPTIONAL
static const char *empm__wings_module(int k, char file[40])
{
    static const struct { const char *name, *file; } core[] = {
        { "core", "core.c" }, { "http", "http_core.c" },
        { "mpm_event", "event.c" }, { "reqtimeout", "mod_reqtimeout.c" },
        { "unixd", "mod_unixd.c" }, { "version", "mod_version.c" }
    };
    const empm__wing *const *wing;
    if (k < (int)EMPM__COUNT(core)) {
        snprintf(file, 40, "%s", core[k].file);
        return core[k].name;
    }
    k -= (int)EMPM__COUNT(core);
    EMPM__EACH_WING(wing, module)
        if (k-- == 0) {
            snprintf(file, 40, "mod_%.30s.c", (*wing)->module);
            return (*wing)->module;
        }
    return NULL;
}

/* When the next expire() is due, or the next chore(). */
static uint32_t empm__wings_expire_at(empm__engine *e)
{
    const empm__wing *const *wing;
    uint32_t at = EMPM__NEVER;
    EMPM__EACH_WING(wing, expire_at)
        at = empm__time_earlier(at, (*wing)->expire_at(e));
    return at;
}

static uint32_t empm__wings_chore_at(empm__engine *e)
{
    const empm__wing *const *wing;
    uint32_t at = EMPM__NEVER;
    EMPM__EACH_WING(wing, chore_at)
        at = empm__time_earlier(at, (*wing)->chore_at(e));
    return at;
}

/* What falls due now and then and may wait for a disk. */
static void empm__wings_chore(empm__engine *e)
{
    const empm__wing *const *wing;
    EMPM__EACH_WING(wing, chore)
        (*wing)->chore(e);
}

/* Is each answer the last one of its connection, since the server is stopping?
 * Not if siblings serve on: they get the connection. */
static int empm__engine_is_closing(const empm__engine *e)
{
    return empm__load(&e->stopping) && !EMPM__HANDS_OVER(e);
}

static void empm__engine_log(empm__engine *e, enum empm_log_level level,
                             int code, const char *fmt, ...) EMPM__PRINTF(4, 5);

/* What concerns the whole child: one line a minute. */
static void empm__engine_log(empm__engine *e, enum empm_log_level level,
                             int code, const char *fmt, ...)
{
    va_list ap;
    if (!empm__log_wanted(e->cfg, level) ||
        !empm__log_may(e->cfg, e->log_limits, level, code, 1))
        return;
    va_start(ap, fmt);
    empm__log_v(e->cfg, level, code, -1, NULL, fmt, ap);
    va_end(ap);
}

static void empm__worker_log(empm__worker *w, enum empm_log_level level,
                             int code, const char *fmt, ...) EMPM__PRINTF(4, 5);

static void empm__worker_log(empm__worker *w, enum empm_log_level level,
                             int code, const char *fmt, ...)
{
    va_list ap;
    if (!empm__log_wanted(w->cfg, level) ||
        !empm__log_may(w->cfg, w->engine->log_limits, level, code,
                       EMPM__LOG_MOST))
        return;
    va_start(ap, fmt);
    empm__log_v(w->cfg, level, code, (long)w->number, NULL, fmt, ap);
    va_end(ap);
}

/* The end: what has been left out and not told. */
static void empm__engine_log_rest(empm__engine *e)
{
    uint32_t i;
    for (i = 0; i < EMPM__LOG_CODES && e->log_limits[i].code != 0; i++)
        if (empm__log_wanted(e->cfg, EMPM_LOG_NOTICE))
            empm__log_left_out(e->cfg, EMPM_LOG_NOTICE,
                               (int)e->log_limits[i].code,
                               e->log_limits[i].left_out);
}

/* ---------------------------------------------------------------------------
 * >>pages -- memory of workers, and budgets that they share
 *
 * A worker borrows pages, keeps a few that it has returned, and leaves the rest
 * to the pool of its engine. Descriptors, spooled bytes and memory of bodies
 * are budgets of the engine: they are reserved before they are used, and
 * released by the same owner.
 * ------------------------------------------------------------------------- */

/* Takes n of a budget that all workers share. Adds first and takes back what
 * was too much, so that two at once cannot both have the rest. Returns 0 if it
 * is used up. */
static int empm__budget_reserve(int64_t *used, int64_t n, int64_t most)
{
    if (__atomic_add_fetch(used, n, __ATOMIC_RELAXED) <= most)
        return 1;
    __atomic_sub_fetch(used, n, __ATOMIC_RELAXED);
    return 0;
}

static void empm__budget_release(int64_t *used, int64_t n)
{
    if (n != 0)
        __atomic_sub_fetch(used, n, __ATOMIC_RELAXED);
}

/* Takes one descriptor of MaxOpenFiles, half of which is for bodies: so
 * connections, files and handlers have each their own, and accept() finds one
 * whatever is on its way. Returns 0 if all are open, which is said. */
static int empm__pool_fd_reserve(empm__worker *w, int whose)
{
    empm__pool *pool = &w->engine->pool;
    const int64_t bodies = pool->files_most / 2;
    if (empm__budget_reserve(&pool->files[whose], 1, whose == EMPM__FOR_BODIES
                                                  ? bodies
                                                  : pool->files_most - bodies))
        return 1;
    empm__engine_log(w->engine, EMPM_LOG_ERROR, 5010, "MaxOpenFiles of %d is "
                     "reached by %s", (int)pool->files_most,
                     whose == EMPM__FOR_BODIES ? "bodies: 503"
                                               : "answers and files");
    return 0;
}

static void empm__pool_fd_release(empm__pool *pool, int whose)
{
    empm__budget_release(&pool->files[whose], 1);
}

/* Takes n bytes of MaxSpoolBytes, of which answers have half at most, so that
 * bodies find some. Returns 0 if they are used up. */
static int empm__pool_spool_reserve(empm__worker *w, int whose, int64_t n)
{
    empm__pool *pool = &w->engine->pool;
    const int64_t all = w->cfg->max_spool_bytes;
    int64_t most = all - __atomic_load_n(&pool->spool[!whose],
                                         __ATOMIC_RELAXED);
    if (whose == EMPM__FOR_ANSWERS && most > all / 2)
        most = all / 2;
    return empm__budget_reserve(&pool->spool[whose], n, most);
}

/* Any thread may hold the last reference, also a worker of another request. */
static void empm__file_unref(empm__file *f)
{
    if (f == NULL || __atomic_sub_fetch(&f->refs, 1u, __ATOMIC_ACQ_REL) > 0)
        return;
    if (f->fd >= 0)
        close(f->fd);
    if (f->pool != NULL)
        empm__pool_fd_release(f->pool, EMPM__FOR_ANSWERS);
    EMPM_FREE(f);
}

/* Memory for a request; `p` grows, or is NULL. This is the one place that logs
 * a lack of it: callers that get NULL answer 503 or close, and log nothing. */
static void *empm__worker_memory(empm__worker *w, void *p, size_t n)
{
    p = p != NULL ? EMPM_REALLOC(p, n) : EMPM_MALLOC(n);
    if (p == NULL)
        empm__worker_log(w, EMPM_LOG_ERROR, 5001, "no memory for a request: "
                         "%lu bytes more", (unsigned long)n);
    return p;
}

/* Returns an empty page, from the worker's few, the pool, or malloc(); NULL:
 * there is no memory, which has been said. */
static empm__page *empm__page_borrow(empm__worker *w)
{
    empm__pool *pool = &w->engine->pool;
    empm__page *p = w->pages;
    if (p != NULL) {
        w->pages = p->next;
        w->pages_count--;
    } else {
        pthread_mutex_lock(&pool->lock);
        if ((p = pool->free) != NULL) {
            pool->free = p->next;
            pool->count--;
        }
        pthread_mutex_unlock(&pool->lock);
        if (p == NULL)
            p = (empm__page *)empm__worker_memory(w, NULL, EMPM_PAGE_BYTES);
    }
    if (p != NULL) {
        p->next = NULL;
        p->start = p->end = 0;
        p->file = NULL;
        p->at = p->stop = 0;
    }
    return p;
}

/* Gives a page back, or nothing (NULL). The worker that returns it need not be
 * the one that has borrowed it. */
static void empm__page_return(empm__worker *w, empm__page *p)
{
    empm__pool *pool = &w->engine->pool;
    if (p == NULL)
        return;
    if (w->pages_count < EMPM__PAGE_CACHE) {
        p->next = w->pages;
        w->pages = p;
        w->pages_count++;
        return;
    }
    pthread_mutex_lock(&pool->lock);
    if (pool->count < pool->most) {
        p->next = pool->free;
        pool->free = p;
        pool->count++;
        p = NULL;
    }
    pthread_mutex_unlock(&pool->lock);
    EMPM_FREE(p);
}

static void empm__pages_return(empm__worker *w, empm__page *p)
{
    while (p != NULL) {
        empm__page *next = p->next;
        empm__page_return(w, p);
        p = next;
    }
}

static void empm__pages_free(empm__page *p)
{
    while (p != NULL) {
        empm__page *next = p->next;
        EMPM_FREE(p);
        p = next;
    }
}

static char *empm__page_data(empm__page *p)
{
    return (char *)(p + 1);
}

/* A buffer for bytes that pass through, made when it is needed first; NULL: no
 * memory. One byte longer than EMPM__SCRATCH: a body that takes it over ends
 * with a NUL. */
static char *empm__worker_scratch(empm__worker *w)
{
    if (w->scratch == NULL)
        w->scratch = (char *)empm__worker_memory(w, NULL, EMPM__SCRATCH + 1);
    return w->scratch;
}

/* ---------------------------------------------------------------------------
 * >>transport -- how bytes pass between a record and its socket
 *
 * A transport turns bytes of a protocol into bytes of a socket: here plain
 * ones. Each connection has a session of its transport, which begins with the
 * pointer to the transport's calls; plain connections share one, so an idle
 * connection pays for none.
 *
 * No call waits. Where it would have to, it says for which direction, which
 * need not be the one that was asked for: a session may have to write before
 * it can read.
 *
 * runs on   the worker that owns the connection; drop() on the listener, too
 * ------------------------------------------------------------------------- */

enum {                           /* returned in place of a number of bytes */
    EMPM__WANTS_IN  = -1,        /* the socket has nothing to read now */
    EMPM__WANTS_OUT = -2,        /* the socket has no room now */
    EMPM__LOST      = -3         /* the connection has failed: errno */
};

/* handshake   goes on with it: 1, it is complete; 0, the client is refused, and
 *             has been told; EMPM__WANTS_*; EMPM__LOST. NULL: there is none
 * recv        like recv(): bytes; 0: the client has sent its last;
 *             EMPM__WANTS_*; EMPM__LOST. Sets EMPM__F_DRAINED if neither the
 *             socket nor the session has bytes left: no event will announce
 *             those of a session
 * send        like sendmsg(): how many bytes were sent, with all that they are
 *             on the wire; EMPM__WANTS_*; EMPM__LOST. Bytes of which a part
 *             may have left come again, and maybe more behind them. What goes
 *             to the socket is added to *wire. `more`: further bytes follow
 * file        sends n bytes of a file from *off on, and moves *off
 * pending     how many bytes have arrived that recv() has not given yet
 * finish      all is sent: tells the client. `closing`: close() comes next
 * drop        forgets the session, without I/O. NULL: nothing is to forget */
typedef struct empm__transport {
    const char *scheme;          /* of empm_scheme() */
    int     (*handshake)(empm__worker *w, empm__conn *c);
    ssize_t (*recv)(empm__worker *w, empm__conn *c, void *buf, size_t n);
    ssize_t (*send)(empm__worker *w, empm__conn *c,
                    const struct iovec *v, int n, int more, int64_t *wire);
    ssize_t (*file)(empm__worker *w, empm__conn *c, int fd, int64_t *off,
                    size_t n, int64_t *wire);
    int     (*pending)(const empm__conn *c);
    void    (*finish)(empm__worker *w, empm__conn *c, int closing);
    void    (*drop)(empm__conn *c);
} empm__transport;

typedef struct empm__session {
    const empm__transport *of;   /* what a transport remembers follows */
} empm__session;

static const empm__transport *empm__transport_of(const empm__conn *c)
{
    return c->session->of;
}

/* A call on the socket has failed. 1: it is worth another try. A hang-up that
 * was noted (`bits`) beside EAGAIN was none: look once more, then wait. */
static int empm__socket_again(empm__conn *c, uint32_t bits, int *tried)
{
    if (errno == EINTR)
        return 1;
    if (!empm__fd_would_block(errno) || !empm__conn_noted(c, bits) || *tried)
        return 0;
    empm__conn_clear(c, bits);
    return *tried = 1;
}

/* What a failed call means: `wants`, or that the connection has failed. */
static ssize_t empm__socket_failed(ssize_t wants)
{
    return empm__fd_would_block(errno) ? wants : (ssize_t)EMPM__LOST;
}

/* Each call forgets the noted bit first: an event that comes behind the call
 * is noted anew. After a short read the socket is empty, unless a hang-up was
 * noted: then read on until 0 or an error. */
static ssize_t empm__socket_recv(empm__conn *c, void *buf, size_t n)
{
    int tried = 0;
    ssize_t r;
    do {
        empm__conn_clear(c, EMPM__READY_IN);
        r = recv(c->fd, buf, n, 0);
    } while (r < 0 && empm__socket_again(c, EMPM__STICKY, &tried));
    if (r < 0)
        r = empm__socket_failed(EMPM__WANTS_IN);
    if (r == EMPM__WANTS_IN ||
        (r > 0 && (size_t)r < n && !empm__conn_noted(c, EMPM__STICKY)))
        c->flags |= EMPM__F_DRAINED;
    return r;
}

static ssize_t empm__socket_sendv(int fd, const struct iovec *v, int n,
                                  int flags)
{
    struct msghdr m;
    memset(&m, 0, sizeof m);
    m.msg_iov = (struct iovec *)(uintptr_t)v;
    m.msg_iovlen = (__typeof__(m.msg_iovlen))n;
    return sendmsg(fd, &m, flags);
}

static ssize_t empm__socket_send(empm__conn *c, const struct iovec *v, int n,
                                 int more, int64_t *wire)
{
    const int flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0);
    int tried = 0;
    ssize_t r;
    do {
        empm__conn_clear(c, EMPM__READY_OUT);
        r = n == 1 ? send(c->fd, v->iov_base, v->iov_len, flags)
                   : empm__socket_sendv(c->fd, v, n, flags);
    } while (r < 0 && empm__socket_again(c, EMPM__READY_HUP, &tried));
    if (r < 0)
        return empm__socket_failed(EMPM__WANTS_OUT);
    *wire += r;
    return r;
}

static ssize_t empm__plain_recv(empm__worker *w, empm__conn *c,
                                void *buf, size_t n)
{
    (void)w;
    return empm__socket_recv(c, buf, n);
}

static ssize_t empm__plain_send(empm__worker *w, empm__conn *c,
                                const struct iovec *v, int n, int more,
                                int64_t *wire)
{
    (void)w;
    return empm__socket_send(c, v, n, more, wire);
}

static ssize_t empm__plain_file(empm__worker *w, empm__conn *c, int fd,
                                int64_t *off, size_t n, int64_t *wire)
{
    int tried = 0;
    ssize_t r;
    (void)w;
    do {
        empm__conn_clear(c, EMPM__READY_OUT);
        r = empm__fd_sendfile(c->fd, fd, off, n);
    } while (r < 0 && empm__socket_again(c, EMPM__READY_HUP, &tried));
    if (r < 0)
        return empm__socket_failed(EMPM__WANTS_OUT);
    *wire += r;
    return r;
}

static int empm__plain_pending(const empm__conn *c)
{
    int n = 0;
    return ioctl(c->fd, FIONREAD, &n) == 0 ? n : 0;
}

/* Before close() there is nothing to be said: it sends the FIN. */
static void empm__plain_finish(empm__worker *w, empm__conn *c,
                               int closing)
{
    (void)w;
    if (!closing)
        shutdown(c->fd, SHUT_WR);
}

static const empm__transport empm__plain = {
    "http", NULL, empm__plain_recv, empm__plain_send, empm__plain_file,
    empm__plain_pending, empm__plain_finish, NULL
};

/* The session of all plain connections. */
static empm__session empm__plain_session = { &empm__plain };

/* Closes the socket: with a reset, if only that can tell the client that its
 * answer is cut. */
static void empm__conn_close(empm__conn *c)
{
    if (c->flags & EMPM__F_RESET) {
        struct linger rst;
        rst.l_onoff = 1;
        rst.l_linger = 0;
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &rst, sizeof rst);
    }
    close(c->fd);
}

/* The end of the session, whatever has become of the descriptor. */
static void empm__conn_session_drop(empm__conn *c)
{
    if (empm__transport_of(c)->drop != NULL)
        empm__transport_of(c)->drop(c);
    c->session = NULL;
}

/* ---------------------------------------------------------------------------
 * >>io -- input and output of one connection
 *
 * An io is borrowed when bytes come and returned when the connection is idle.
 * Input stands in one piece of memory, in_start..in_end of it not used yet.
 * Output is a queue of pages, which leave in order; a slice of a file may
 * follow the bytes of a page: of a file that is sent, or of the overflow. That
 * is an unlinked file, used as a ring, which takes the bytes that the socket
 * does not take in time, so that no handler waits for its client.
 *
 *     in:   [ used | in_start..in_end | room ]
 *     out:  [head]--file  [bytes] [bytes]--overflow      sent in this order -->
 *
 * owner   the owner of the connection's record
 * ------------------------------------------------------------------------- */

typedef struct empm__io {
    char         *in;
    uint32_t      in_cap, in_start, in_end;
    empm__page   *in_big;         /* what `in` is part of, NULL: of our page */
    empm__page   *out, *out_last; /* to be sent, in order */
    size_t        out_bytes;      /* of it, what is in memory */
    int64_t       out_left;       /* all of it, with the slices of files */
    int64_t       out_tried;      /* ... when the socket was full */
    int           blocked;        /* ... EMPM__WANTS_*: what it waits for */
    int           spool_fd;       /* the overflow; -1: there is none */
    int64_t       spool_at, spool_end; /* in it, as bytes since it was empty */
    int64_t       spooled;        /* its size, of pool.spool */
    int64_t       sent;           /* bytes that the transport has taken */
    int64_t       got;            /* bytes that it has given */
    int64_t       wire;           /* bytes given to the socket for those sent */
    int64_t       acked;          /* of them, when the wait to write began */
    uint32_t      write_deadline; /* NEVER: not waiting to write */
    int           fault;          /* EMPM_E*: the output cannot go on, and */
    const char   *fault_text;     /* the reason; EMPM_ESYS: errno, too */
} empm__io;

/* Appends a page to the output, which takes it over. */
static void empm__io_link(empm__io *io, empm__page *p)
{
    p->next = NULL;
    if (io->out_last != NULL)
        io->out_last->next = p;
    else
        io->out = p;
    io->out_last = p;
    io->out_bytes += p->end - p->start;
    io->out_left += p->end - p->start;
}

static int empm__io_has_slice(const empm__page *p)
{
    return p->at < p->stop;
}

/* How many bytes the queue's last page can still take. */
static uint32_t empm__io_room(const empm__io *io)
{
    const empm__page *p = io->out_last;
    return p == NULL || empm__io_has_slice(p) ? 0 : EMPM__PAGE_ROOM - p->end;
}

/* Appends bytes, to the last page if they fit there. */
static int empm__io_copy(empm__worker *w, empm__io *io, const char *data,
                         size_t n)
{
    while (n > 0) {
        empm__page *p;
        size_t take;
        if (empm__io_room(io) == 0) {
            if ((p = empm__page_borrow(w)) == NULL)
                return EMPM_ENOMEM;
            empm__io_link(io, p);
        }
        p = io->out_last;
        take = empm__min(n, EMPM__PAGE_ROOM - p->end);
        memcpy(empm__page_data(p) + p->end, data, take);
        p->end += (uint32_t)take;
        io->out_bytes += take;
        io->out_left += (int64_t)take;
        data += take;
        n -= take;
    }
    return EMPM_OK;
}

/* Hangs from..to of a file, of which it takes over a reference, behind the last
 * page, which has no slice yet. */
static void empm__io_slice(empm__io *io, empm__file *f, int64_t from,
                           int64_t to)
{
    empm__page *p = io->out_last;
    p->file = f;
    p->at = from;
    p->stop = to;
    io->out_left += to - from;
}

/* Takes the first page off the queue of output, with what is left of it. */
static void empm__io_pop(empm__worker *w, empm__io *io)
{
    empm__page *p = io->out;
    io->out = p->next;
    if (io->out == NULL)
        io->out_last = NULL;
    empm__file_unref(p->file);
    empm__page_return(w, p);
}

/* n bytes of the queue have been sent. */
static void empm__io_sent(empm__worker *w, empm__io *io, int64_t n)
{
    empm__page *p;
    io->out_left -= n;
    while ((p = io->out) != NULL) {
        const int64_t bytes = n < p->end - p->start ? n : p->end - p->start;
        const int64_t slice = n - bytes < p->stop - p->at ? n - bytes
                                                          : p->stop - p->at;
        p->start += (uint32_t)bytes;
        io->out_bytes -= (size_t)bytes;
        p->at += slice;
        if (p->file == NULL)
            io->spool_at += slice;
        n -= bytes + slice;
        if (p->start < p->end || empm__io_has_slice(p))
            return;
        empm__io_pop(w, io);
    }
}

/* The output cannot be what it was to be. Returns EMPM__LOST. */
static ssize_t empm__io_fail(empm__io *io, int error, const char *text)
{
    io->fault = error;
    io->fault_text = text;
    return EMPM__LOST;
}

/* Sends from the overflow. Its bytes are copied, since the ring comes round to
 * them before the client has acknowledged them. */
static ssize_t empm__io_send_spooled(empm__worker *w, empm__conn *c,
                                     empm__io *io, int64_t at, size_t n)
{
    struct iovec v;
    ssize_t r;
    v.iov_base = empm__worker_scratch(w);
    if (v.iov_base == NULL)
        return empm__io_fail(io, EMPM_ENOMEM, "no memory for the response");
    r = pread(io->spool_fd, v.iov_base, empm__min(n, EMPM__SCRATCH),
              (off_t)at);
    if (r == 0)
        return empm__io_fail(io, EMPM_EINVAL, "the file has become shorter");
    if (r < 0)
        return empm__io_fail(io, EMPM_ESYS, "the file cannot be read");
    v.iov_len = (size_t)r;
    return empm__transport_of(c)->send(w, c, &v, 1, io->out_left > r,
                                       &io->wire);
}

/* Sends from the slice that is the first in the queue. */
static ssize_t empm__io_send_slice(empm__worker *w, empm__conn *c, empm__io *io)
{
    const empm__page *p = io->out;
    const int64_t ring = w->cfg->limit_response_spool;
    int64_t at = p->at, n = p->stop - at;
    ssize_t r;
    if (n > EMPM_TURN_BYTES)
        n = EMPM_TURN_BYTES;
    if (p->file == NULL) {
        at %= ring;
        return empm__io_send_spooled(w, c, io, at,
                                     (size_t)(n < ring - at ? n : ring - at));
    }
    r = empm__transport_of(c)->file(w, c, p->file->fd, &at, (size_t)n,
                                    &io->wire);
    if (r == 0)
        return empm__io_fail(io, EMPM_EINVAL, "the file has become shorter");
    if (r == EMPM__LOST &&
        (errno == EIO || errno == EINVAL || errno == EOVERFLOW))
        return empm__io_fail(io, EMPM_ESYS, "the file cannot be read");
    return r;
}

/* Sends from the pages at the front of the queue, up to the first slice. */
static ssize_t empm__io_send_pages(empm__worker *w, empm__conn *c, empm__io *io)
{
    struct iovec v[16];
    const empm__page *p = io->out;
    int k = 0, slice = 0;
    while (p != NULL && k < 16 && !slice) {
        v[k].iov_base = empm__page_data((empm__page *)(uintptr_t)p) + p->start;
        v[k++].iov_len = p->end - p->start;
        slice = empm__io_has_slice(p);
        p = p->next;
    }
    return empm__transport_of(c)->send(w, c, v, k, p != NULL || slice,
                                       &io->wire);
}

/* The overflow is empty, or never will be sent. */
static void empm__io_spool_close(empm__worker *w, empm__io *io)
{
    if (io->spool_fd < 0)
        return;
    close(io->spool_fd);
    empm__pool_fd_release(&w->engine->pool, EMPM__FOR_ANSWERS);
    empm__budget_release(&w->engine->pool.spool[EMPM__FOR_ANSWERS],
                         io->spooled);
    io->spool_fd = -1;
    io->spooled = io->spool_at = io->spool_end = 0;
}

enum empm__flushed {
    EMPM__SENT,                   /* all of it */
    EMPM__BLOCKED,                /* the socket is full: io->blocked */
    EMPM__TURN_OVER,              /* others first, then the rest */
    EMPM__CUT,                    /* never: io->fault, or else errno */
    EMPM__LATE                    /* blocked, and the client takes too little */
};

/* Sends what is ready. A turn does not end while a function of the user's
 * runs, whose worker is taken anyway. */
static enum empm__flushed empm__io_flush(empm__worker *w, empm__conn *c,
                                         empm__io *io)
{
    io->out_tried = 0;
    while (io->out != NULL) {
        ssize_t n;
        if (w->turn_bytes >= EMPM_TURN_BYTES && w->calling == EMPM__CALL_NONE)
            return EMPM__TURN_OVER;
        n = io->out->start < io->out->end ? empm__io_send_pages(w, c, io)
                                          : empm__io_send_slice(w, c, io);
        if (n == EMPM__LOST)
            return EMPM__CUT;
        if (n < 0) {
            io->blocked = (int)n;
            io->out_tried = io->out_left;
            return EMPM__BLOCKED;
        }
        w->turn_bytes += (uint32_t)n;
        io->sent += n;
        empm__bump(&w->score->bytes, (uint64_t)n);
        empm__io_sent(w, io, n);
    }
    if (io->spooled > 0 && ftruncate(io->spool_fd, 0) == 0) {
        /* the overflow is drained: begin it anew */
        empm__budget_release(&w->engine->pool.spool[EMPM__FOR_ANSWERS],
                             io->spooled);
        io->spooled = io->spool_at = io->spool_end = 0;
    }
    return EMPM__SENT;
}

/* Appends to the overflow, whose slice is or becomes that of the last page. */
static int empm__io_spool(empm__worker *w, empm__io *io, const char *data,
                          int64_t n)
{
    const int64_t ring = w->cfg->limit_response_spool;
    int64_t grown;
    if (io->spool_fd < 0) {
        if (!empm__pool_fd_reserve(w, EMPM__FOR_ANSWERS))
            return EMPM_EFULL;
        io->spool_fd = empm__fd_unnamed_file(w->s->spool_dir);
        if (io->spool_fd < 0) {
            empm__pool_fd_release(&w->engine->pool, EMPM__FOR_ANSWERS);
            return EMPM_ESYS;
        }
    }
    if (n > ring - (io->spool_end - io->spool_at))
        return EMPM_EFULL;
    grown = (io->spool_end + n < ring ? io->spool_end + n : ring) -
            io->spooled;
    if (grown > 0) {
        if (!empm__pool_spool_reserve(w, EMPM__FOR_ANSWERS, grown))
            return EMPM_EFULL;
        io->spooled += grown;
    }
    if (!empm__io_has_slice(io->out_last))
        empm__io_slice(io, NULL, io->spool_end, io->spool_end);
    while (n > 0) {
        const int64_t at = io->spool_end % ring;
        const ssize_t r = pwrite(io->spool_fd, data,
                                 (size_t)(n < ring - at ? n : ring - at),
                                 (off_t)at);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return EMPM_ESYS;
        io->spool_end += r;
        io->out_last->stop += r;
        io->out_left += r;
        data += r;
        n -= r;
    }
    return EMPM_OK;
}

/* Takes one page into the queue, or its bytes, to the overflow if the queue is
 * long or has overflown already. EMPM_OK: the page is the queue's, or back in
 * the pool; EMPM_EFULL and other errors: it is the caller's yet. */
static int empm__io_put(empm__worker *w, empm__io *io, empm__page *p)
{
    const char *data = empm__page_data(p) + p->start;
    const uint32_t n = p->end - p->start;
    const empm__page *last = io->out_last;
    int r;
    if (last != NULL && last->file == NULL &&
        (io->out_bytes >= EMPM_RESPONSE_BUFFER || empm__io_has_slice(last)))
        r = empm__io_spool(w, io, data, n);
    else if (n <= empm__io_room(io))
        /* copying a few bytes beats another piece, and bounds the memory of a
         * handler that flushes often */
        r = empm__io_copy(w, io, data, n);
    else {
        empm__io_link(io, p);
        return EMPM_OK;
    }
    if (r == EMPM_OK)
        empm__page_return(w, p);
    return r;
}

/* Gives back all that the io holds, but not the page that it stands in. */
static void empm__io_end(empm__worker *w, empm__io *io)
{
    while (io->out != NULL)
        empm__io_pop(w, io);
    empm__io_spool_close(w, io);
    EMPM_FREE(io->in_big);
}

/* ---------------------------------------------------------------------------
 * >>exchange -- how a connection moves from one child to another
 *
 * A pair of unix datagram sockets, made before the first fork: any child may
 * put connections in, any child that has time takes them out. It is one more
 * listening socket, whose backlog children fill, and it outlives all of them:
 * new generations have it, and so has the new program of an upgrade.
 *
 *   job      a connection whose next request has come and lies unread in the
 *            kernel, while no worker of its child has time and a sibling's has.
 *            It is served before it moves again.
 *   waiting  a connection that waits for a request, of a child that drains.
 *
 * Only what has no request in hand and no session of a transport can move: its
 * descriptor (SCM_RIGHTS) and a few numbers are all there is of it.
 *
 *   bounded  when it is full, the giver keeps what it has, and tries again.
 *   owned    by the giver until sendmsg() has succeeded, by the exchange then,
 *            by the taker from recvmsg() on. A process that dies takes only its
 *            own connections along.
 *   the bell EPOLLEXCLUSIVE wakes one child for what has come. If that one has
 *            no time, or dies, the others would sleep on. So a child that stops
 *            looking while something waits rings, and the parent when a child
 *            has died; then all children look.
 *   belief   none: a message has the right size, a descriptor is a connected
 *            stream socket, its address is asked of the kernel, numbers are
 *            bounded, and the endpoint is one that the taker has, too.
 *
 * The hand-over is modelled in test_eventmpm.c (>>model).
 * ------------------------------------------------------------------------- */

#define EMPM__MOVE_MOST 16u              /* connections in one message */

/* One connection, as its giver tells of it. */
typedef struct empm__moved {
    uint64_t   endpoint;                 /* empm__exchange_key() */
    uint32_t   state;                    /* HANDSHAKE, READ_HEAD or KEEPALIVE */
    uint32_t   is_job;                   /* its next bytes have come */
    uint32_t   requests;                 /* served on it so far */
    uint32_t   left_ms;                  /* to its deadline; or NEVER */
    empm__peer peer;                    /* matters if a PROXY header named it */
    uint32_t   unused;                  /* no hole that would show old memory */
} empm__moved;

typedef struct empm__move {
    uint32_t    version;                 /* EMPM__MOVE_VERSION */
    uint32_t    n;                       /* as many descriptors come along */
    empm__moved conns[EMPM__MOVE_MOST];  /* the first n are sent */
} empm__move;

/* A program that has another form of it in memory is not understood. */
#define EMPM__MOVE_VERSION (0x4d500100u + (uint32_t)sizeof(empm__moved))

EMPM__ASSERT_STATIC(EMPM__MOVE_MOST <= EMPM__FDS_MOST, a_move_is_one_message);

static void empm__exchange_none(empm__exchange *x)
{
    x->fd[0] = x->fd[1] = x->bell[0] = x->bell[1] = -1;
}

static void empm__exchange_free(empm__exchange *x)
{
    if (x->fd[0] >= 0)
        close(x->fd[0]);
    if (x->fd[1] >= 0)
        close(x->fd[1]);
    empm__poller_wake_fd_close(x->bell);
    empm__exchange_none(x);
}

static int empm__exchange_new(empm__exchange *x)
{
    int error;
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, x->fd) < 0) {
        empm__exchange_none(x);
        return EMPM_ESYS;
    }
    if (empm__fd_flags(x->fd[0], 1) == 0 && empm__fd_flags(x->fd[1], 1) == 0 &&
        empm__poller_wake_fd_init(x->bell) == 0)
        return EMPM_OK;
    error = errno;
    empm__exchange_free(x);
    errno = error;
    return EMPM_ESYS;
}

/* The program before this one leaves us its exchange (an upgrade): what it
 * says, its version and the descriptors, in the environment. 0: it does not, or
 * it has another form of it. */
static int empm__exchange_inherit(empm__exchange *x)
{
    const char *text = getenv("EMPM_EXCHANGE");
    unsigned version;
    int fd[4], k, usable = 1;
    if (text == NULL || sscanf(text, "%u:%d,%d,%d,%d", &version, &fd[0], &fd[1],
                               &fd[2], &fd[3]) != 5)
        return 0;
    for (k = 0; k < 4; k++)
        usable &= fd[k] > 2 && empm__fd_flags(fd[k], 1) == 0;
    if (!usable)
        return 0;
    memcpy(x->fd, fd, sizeof x->fd);
    memcpy(x->bell, fd + 2, sizeof x->bell);
    x->inherited = version == EMPM__MOVE_VERSION;
    if (!x->inherited)
        empm__exchange_free(x);
    return x->inherited;
}

/* All children look at what listens. */
static void empm__exchange_ring(const empm__exchange *x)
{
#if EMPM__EPOLL
    uint64_t n = 1;
    ssize_t r = x->bell[1] >= 0 ? write(x->bell[1], &n, sizeof n) : 0;
    if (r < 0 && errno == EAGAIN && read(x->bell[0], &n, sizeof n) > 0) {
        n = 1;                           /* it was full */
        r = write(x->bell[1], &n, sizeof n);
    }
    (void)r;
#else
    (void)x;                             /* they do: poll() wakes all of them */
#endif
}

/* Gives m->n connections away; the caller's descriptors stay open. Returns 0 if
 * they are on their way, or -1 with errno: EAGAIN, the exchange is full. */
static int empm__exchange_give(const empm__exchange *x, const empm__move *m,
                               const int *fds)
{
    return empm__fd_send(x->fd[1], m,
                         offsetof(empm__move, conns) +
                             m->n * sizeof m->conns[0],
                         fds, m->n, MSG_DONTWAIT);
}

/* Takes one message. Returns how many connections came, whose descriptors are
 * the caller's; 0 if there is no message, or the end of all (is_down() tells);
 * -1 if it made no sense, or, EMFILE, there was no room for descriptors: then
 * all that came is closed. */
static int empm__exchange_take(const empm__exchange *x, empm__move *m, int *fds)
{
    size_t n;
    int flags = MSG_DONTWAIT;
    const ssize_t r = empm__fd_receive(x->fd[0], m, sizeof *m, fds,
                                       EMPM__MOVE_MOST, &n, &flags);
    if (r < 0)
        return 0;
    if (n > 0 && !(flags & MSG_TRUNC) &&
        (size_t)r >= offsetof(empm__move, conns) &&
        m->version == EMPM__MOVE_VERSION && m->n <= EMPM__MOVE_MOST &&
        (m->n == n || (n < m->n && (flags & MSG_CTRUNC))) &&
        (size_t)r == offsetof(empm__move, conns) + m->n * sizeof m->conns[0])
        return (int)n;
    while (n > 0)
        close(fds[--n]);
    if (r == 0)
        return 0;
    errno = flags & MSG_CTRUNC ? EMFILE : EPROTO;
    return -1;
}

/* Has a process shut it down? Then it is readable for ever, and nothing
 * comes. */
static int empm__exchange_is_down(const empm__exchange *x)
{
    struct pollfd p;
    p.fd = x->fd[0];
    p.events = EMPM__POLLRDHUP;
    p.revents = 0;
    return poll(&p, 1, 0) > 0 && (p.revents & (EMPM__POLLRDHUP | POLLHUP)) != 0;
}

/* Names an endpoint in all processes: by its address, since the options
 * behind it, and its number, may be others after a reload. FNV-1a. */
static uint64_t empm__exchange_key(const empm__endpoint *l)
{
    uint64_t key = UINT64_C(0xcbf29ce484222325);
    const char *p;
    for (p = l->text; *p != '\0' && *p != ' ' && *p != '\t'; p++)
        key = (key ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
    return key;
}

/* Is `fd` a connection? Its peer's address is what the kernel says. */
static int empm__exchange_is_connection(int fd, struct sockaddr_storage *from)
{
    socklen_t n = sizeof *from, len = sizeof(int);
    int type = 0;
    memset(from, 0, sizeof *from);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 &&
           type == SOCK_STREAM &&
           getpeername(fd, (struct sockaddr *)from, &n) == 0;
}

/* ---------------------------------------------------------------------------
 * >>taking -- records that the listener takes, and what siblings say
 *
 * The listener takes a record for an event, a deadline or an order. It closes
 * those that owe nobody an answer and hands the others to the queue, all of one
 * round at once. What siblings can take is read from the scoreboard, and
 * believed for one decision only.
 * ------------------------------------------------------------------------- */

/* handing_over: which processes get what waits for a request */
enum { EMPM__TO_SIBLINGS = 1, EMPM__TO_PROGRAM };

#define EMPM__FRESH_MS     2        /* a client that sends at once has spoken */
#define EMPM__PATIENCE_US  2000u    /* a job may wait behind quick ones */
#define EMPM__VAIN         64u      /* looks for nothing, then one at why */
#define EMPM__DEAF_US      1000000u /* and no wait for events: it is over */
#define EMPM__HAND_OVER_MS 30000    /* and nothing could be moved: it is over */

typedef struct empm__batch {         /* taken in this round, in order */
    uint32_t head, tail, count;
    uint32_t now_ms;
    uint64_t now_us;
} empm__batch;

/* A taken record goes to the queue at the round's end, with all others: one
 * lock and at most a few wake-ups for all of them. */
static void empm__listener_batch_add(empm__engine *e, empm__batch *b,
                                     uint32_t i)
{
    empm__conn *c = empm__slab_conn(&e->slab, i);
    c->queue_next = EMPM__NIL;
    if (b->tail == EMPM__NIL)
        b->head = i;
    else
        empm__slab_conn(&e->slab, b->tail)->queue_next = i;
    b->tail = i;
    b->count++;
}

/* Offers `ready` to record i. Returns 1 if it is the listener's now: out of the
 * poller's set, and looked at by the wheel within a horizon, since from here on
 * a worker may give it a deadline. */
static int empm__listener_take(empm__engine *e, uint32_t i, uint32_t ready,
                               uint32_t now_ms)
{
    empm__conn *c = empm__slab_conn(&e->slab, i);
    if (!empm__conn_offer(c, ready)) {
        empm__poller_arm(&e->poller, i);
        return 0;
    }
    empm__poller_drop(&e->poller, i);
    if (c->flags & EMPM__F_FRESH) {
        c->flags &= (uint8_t)~EMPM__F_FRESH;
        e->fresh -= e->fresh > 0;
    }
    empm__bump(&e->score->unparked[c->state], 1u);
    empm__wheel_hasten(&e->wheel, &e->slab, i,
                       empm__time_after(now_ms, e->horizon_ms));
    return 1;
}

/* Does MaxConnectionsPerPeer hold for endpoint k? A proxy has as many
 * connections as it has clients. */
static int empm__listener_limits_peers(const empm__engine *e, int k)
{
    return e->counts.slots != NULL && !e->s->endpoints[k].proxy;
}

/* Frees a record that is closed and owned. POSTED stays: it may be in the
 * inbox, where it will be found free, or in use again, and do no harm. */
static void empm__listener_record_free(empm__engine *e, uint32_t i)
{
    empm__conn *c = empm__slab_conn(&e->slab, i);
    empm__wheel_remove(&e->wheel, &e->slab, i);
    if (empm__listener_limits_peers(e, c->endpoint))
        empm__counts_drop(&e->counts, empm__slab_peer(&e->slab, i));
    c->gen++;
    c->protocol = EMPM__FREE;
    empm__slab_return(&e->slab, i);
    empm__store(&e->score->connections, e->slab.in_use);
    if (e->paused & (EMPM__PAUSE_FULL | EMPM__PAUSE_FDS))
        /* there is room again */
        e->retry_at_ms = empm__time_after(empm__now_ms(), 0);
}

/* Closes a taken record that owes nobody an answer, and frees it. Returns 0 if
 * it does owe one, or has memory that a worker must give back. */
static int empm__listener_close_idle(empm__engine *e, uint32_t i)
{
    empm__conn *c = empm__slab_conn(&e->slab, i);
    if (c->io != NULL ||
        (c->state != EMPM__KEEPALIVE && c->state != EMPM__LINGER &&
         c->state != EMPM__READ_HEAD && c->state != EMPM__HANDSHAKE))
        return 0;
    empm__conn_session_drop(c);
    empm__conn_close(c);
    empm__listener_record_free(e, i);
    return 1;
}

/* Ends a taken record: closes it, or has a worker do it. `force` closes the
 * descriptor now, whatever is owed, since no worker may come for long. */
static void empm__listener_end_taken(empm__engine *e, empm__batch *b,
                                     uint32_t i, int force)
{
    empm__conn *c = empm__slab_conn(&e->slab, i);
    if (empm__listener_close_idle(e, i))
        return;
    if (force) {
        empm__conn_close(c);
        c->fd = -1;                      /* its number may soon be another's */
        c->flags |= EMPM__F_CLOSED;
        empm__bump(&e->score->forced, 1u);
    }
    empm__listener_batch_add(e, b, i);
}

/* Looks at all records that have been posted: a retired one is freed, another
 * is hung where its deadline asks for, and taken if what it waits for has come.
 * A post may be older than the record's present life, and is a hint only. */
static void empm__listener_drain_inbox(empm__engine *e, empm__batch *b)
{
    uint32_t i = __atomic_exchange_n(&e->poller.inbox, EMPM__NIL,
                                     __ATOMIC_ACQUIRE);
    while (i != EMPM__NIL) {
        empm__conn *c = empm__slab_conn(&e->slab, i);
        /* before POSTED goes */
        const uint32_t next = empm__load(&c->inbox_next);
        const uint32_t w = __atomic_fetch_and(
            &c->word, ~(uint32_t)EMPM__POSTED, __ATOMIC_ACQ_REL);
        if (c->protocol == EMPM__FREE)
            ;                        /* a late hint */
        else if (w & EMPM__RETIRED)
            empm__listener_record_free(e, i);
        else {
            const uint32_t deadline = empm__load(&c->deadline_ms);
            if (deadline != EMPM__NEVER)
                empm__wheel_hasten(&e->wheel, &e->slab, i, deadline);
            if (empm__listener_take(e, i, 0, b->now_ms))
                empm__listener_batch_add(e, b, i);
            else if (EMPM__HANDS_OVER(e) && (w & EMPM__IDLE)) {
                e->sweep = (uint32_t)empm__min(e->sweep, i);
                e->sweep_at_ms = b->now_ms;
            }
        }
        i = next;
    }
}

/* --- siblings ------------------------------------------------------------- */

/* Does another child accept in slot i, as far as its own words go? */
static int empm__listener_is_sibling(const empm__engine *e, int i)
{
    const empm__score_slot *at = empm__score_slot_at(&e->s->score, i);
    const empm__score_child *of = empm__score_at(&e->s->score, i);
    return i != e->slot && empm__load(&at->pid) != 0 &&
           !empm__load(&at->leaving) && !empm__load(&at->admin) &&
           empm__load(&of->healthy) && !empm__load(&of->stopping);
}

/* Has a sibling a place for one more connection, now or soon? One that pauses
 * only for its workers has. */
static int empm__listener_others_have_place(const empm__engine *e)
{
    const empm__score *sb = &e->s->score;
    const uint32_t top = empm__load(&empm__score_server_at(sb)->top);
    int i;
    for (i = 0; EMPM__SHARES(e) && i < sb->slots && (uint32_t)i < top; i++)
        if (empm__listener_is_sibling(e, i) &&
            !(empm__load(&empm__score_at(sb, i)->paused) &
              (EMPM__PAUSE_FULL | EMPM__PAUSE_FDS)))
            return 1;
    return 0;
}

/* Returns how many more jobs the siblings that accept can begin at once, by
 * what they say. *accepting (not NULL): how many siblings that are. */
static uint32_t empm__listener_siblings_room(const empm__engine *e,
                                             uint32_t *accepting)
{
    const empm__score *sb = &e->s->score;
    const uint32_t top = empm__load(&empm__score_server_at(sb)->top);
    uint32_t n = 0, open = 0;
    int i;
    for (i = 0; EMPM__SHARES(e) && i < sb->slots && (uint32_t)i < top; i++) {
        const empm__score_child *of = empm__score_at(sb, i);
        uint32_t idle, queued;
        if (!empm__listener_is_sibling(e, i) || empm__load(&of->paused))
            continue;
        open++;
        queued = empm__load_acq(&of->queued);
        idle = empm__load(&of->idle_workers);
        if (idle > queued)
            n += (uint32_t)empm__min(idle - queued, (size_t)sb->threads);
    }
    if (accepting != NULL)
        *accepting = open;
    return n;
}

/* Returns how many more jobs our workers can begin at once, less than 0 if too
 * many wait already. */
static int32_t empm__listener_room(const empm__engine *e, const empm__batch *b)
{
    const uint32_t queued = empm__load_acq(&e->score->queued);
    return (int32_t)(empm__load(&e->score->idle_workers) - queued - b->count);
}

/* Returns how many have just been accepted, and have not sent a byte yet: each
 * of them will want a worker in a moment. After FRESH_MS they count no more, as
 * a client that is slow to speak is no reason to leave others to siblings. */
static int32_t empm__listener_fresh(empm__engine *e, uint32_t now_ms)
{
    if (e->fresh > 0 &&
        empm__time_until(now_ms, e->fresh_at_ms) >= EMPM__FRESH_MS)
        e->fresh = 0;
    return (int32_t)e->fresh;
}

/* ---------------------------------------------------------------------------
 * >>accepting -- may one more come in?
 *
 * Accepting pauses while no worker has time, while descriptors or memory lack,
 * and at MaxOpenConnections; siblings are told then, so that no connection
 * waits beside an idle child. A connection beyond MaxConnectionsPerPeer waits
 * for a moment, since one of its peer may be about to end.
 *
 * pause      a reason not to accept, EMPM__PAUSE_*. While there is none, the
 * endpoints are registered; several may hold at a time. gate       the pause
 * for lack of workers. It is closed under queue.lock, and
 *              the first worker that becomes idle opens it by an order.
 *   admission  makes a record of what accept() has returned.
 * ------------------------------------------------------------------------- */

/* The admin engine accepts on admin endpoints only, other engines on all
 * others.
 */
static int empm__listener_watches(const empm__engine *e, int k)
{
    return e->s->endpoints[k].admin == e->admin &&
           e->s->endpoints[k].fd >= 0 &&   /* the other engine's may change */
           !(e->shut >> k & 1);
}

/* Begins or ends to wait for connections, on all endpoints of ours and on the
 * exchange, or on none. Returns 0, or -1: said, with errno, and none is. */
static int empm__listener_watch(empm__engine *e, int on)
{
    int k, r = 0;
    if (e->listening == on)
        return 0;
    e->listening = on;
    for (k = 0; k < e->s->nendpoints && r == 0; k++)
        if (empm__listener_watches(e, k)) {
            r = empm__poller_watch(&e->poller, e->s->endpoints[k].fd,
                                   (uint32_t)k, on);
            if (r < 0 && on)
                empm__engine_log(e, EMPM_LOG_ERROR, 5008, "cannot listen on "
                                 "%s: epoll_ctl: %s", e->s->endpoints[k].text,
                                 strerror(errno));
            r = on ? r : 0;
        }
    if (EMPM__SHARES(e) && r == 0 &&
        empm__poller_watch(&e->poller, e->s->exchange.fd[0], EMPM__EXCHANGE,
                           on) < 0 && on) {
        empm__engine_log(e, EMPM_LOG_ERROR, 5008, "cannot listen to siblings: "
                         "epoll_ctl: %s", strerror(errno));
        r = -1;
    }
    if (r < 0)
        empm__listener_watch(e, 0);
    return r;
}

/* Tells the parent that something has changed: one byte, which never waits. If
 * the pipe is full, the parent is about to read it, and looks at all of us. */
static void empm__engine_tell_parent(empm__engine *e, enum empm__say what)
{
    const char byte = (char)what;
    if (EMPM__HAS_PARENT(e->s) && write(e->s->parent_fd, &byte, 1) < 0)
        return;                      /* it has much to read: it looks anyway */
}

/* This child has stopped looking at its endpoints. If something waits there, it
 * may have been the only child that was woken: rings for the siblings that
 * accept. One that begins to accept at this moment looks by itself. */
static void empm__listener_pass_on(empm__engine *e)
{
    struct pollfd p[EMPM_MAX_LISTEN + 1];
    uint32_t accepting;
    int k, n = 0;
    empm__fence();         /* ours is published: see empm__listener_unpause() */
    empm__listener_siblings_room(e, &accepting);
    if (accepting == 0)
        return;
    for (k = 0; k < e->s->nendpoints; k++)
        if (empm__listener_watches(e, k))
            p[n++].fd = e->s->endpoints[k].fd;
    p[n++].fd = e->s->exchange.fd[0];
    for (k = 0; k < n; k++)
        p[k].events = POLLIN;
    if (poll(p, (nfds_t)n, 0) > 0)
        empm__exchange_ring(&e->s->exchange);
}

/* Has a process called shutdown() on a listening socket? Then accept() fails
 * for ever, and it is readable for ever. */
static int empm__listener_is_shut(int fd)
{
    struct pollfd p;
    p.fd = fd;
    p.events = EMPM__POLLRDHUP;
    return poll(&p, 1, 0) > 0;
}

/* Stops accepting because of `why` (EMPM__PAUSE_*), until unpause() is told
 * that all reasons are over. For lack of descriptors or places it is tried
 * again in 100 ms and when a record is freed. `reason` is for the log; NULL:
 * siblings take over, so nobody has to know. */
static void empm__listener_pause(empm__engine *e, uint32_t why,
                                 uint32_t now_ms, const char *reason)
{
    const int listened = e->listening;
    uint32_t idle;
    e->paused |= why;
    e->lacked_fds |= (why & EMPM__PAUSE_FDS) != 0;
    empm__store(&e->score->paused, e->paused);
    empm__listener_watch(e, 0);
    if (EMPM__SHARES(e) && listened)
        empm__listener_pass_on(e);
    if (why & (EMPM__PAUSE_FDS | EMPM__PAUSE_FULL)) {
        e->retry_at_ms = empm__time_after(now_ms, 100);
        empm__store(&e->want_retired, 1u);
        if (reason == NULL)
            return;
        if (empm__now_us() >= e->tell_pause_at_us) {
            e->tell_pause_at_us = empm__now_us() + 60000000u;
            empm__engine_tell_parent(e, EMPM__SAY_PAUSED);
        }
        idle = empm__load(&e->score->idle_workers);
        empm__engine_log(e, EMPM_LOG_ERROR, 5009, "accepting pauses: %s (%u "
                         "connections, %u queued, %u workers busy, %u idle)",
                         reason, e->slab.in_use,
                         empm__load(&e->score->queued),
                         (uint32_t)e->nworkers - idle, idle);
    }
}

/* Our workers have all that they can begin, so siblings accept: until one of
 * ours is idle, or, if some are idle and only wait for the first bytes of what
 * has just been accepted, for a moment. */
static void empm__listener_pause_full(empm__engine *e, uint32_t now_ms)
{
    int idle;
    pthread_mutex_lock(&e->queue.lock);
    idle = empm__queue_idle_locked(&e->queue) > 0;
    if (!idle)
        empm__queue_gate_close_locked(&e->queue);
    pthread_mutex_unlock(&e->queue.lock);
    e->turn_over_at_ms = empm__time_after(now_ms, EMPM__FRESH_MS);
    empm__listener_pause(e, idle ? EMPM__PAUSE_TURN : EMPM__PAUSE_GATE,
                         now_ms, "");
}

/* Closes the KEEPALIVE connections that are nearest to their expiry, at most
 * `want` of them, after at most 256 looks: the wheel has them in this order,
 * and a bound keeps the round short. Returns how many. */
static uint32_t empm__listener_cull(empm__engine *e, uint32_t want,
                                    uint32_t now_ms)
{
    const empm__wheel *wh = &e->wheel;
    uint32_t slot = empm__wheel_slot(wh->cursor), seen = 0, done = 0, ahead = 0;
    while (seen < 256 && done < want) {
        const uint32_t step = empm__wheel_next(wh, slot);
        uint32_t i;
        if (step == 0 || (ahead += step) >= EMPM__SLOTS)
            break;
        slot = (slot + step) % EMPM__SLOTS;
        for (i = wh->heads[slot]; i != EMPM__NIL && seen < 256 && done < want;
             seen++) {
            empm__conn *c = empm__slab_conn(&e->slab, i);
            const uint32_t next = c->wheel_next, w = empm__load(&c->word);
            if (!(w & EMPM__OWNED) && (w & EMPM__KEEP) &&
                empm__listener_take(e, i, EMPM__READY_TIMEOUT, now_ms) &&
                empm__listener_close_idle(e, i))
                done++;
            i = next;
        }
    }
    empm__bump(&e->score->culled, done);
    return done;
}

/* Returns until when a record that has moved may wait: as its giver says, but
 * not for longer than our own settings allow. */
static uint32_t empm__move_deadline(const empm_config *cfg,
                                    const empm__moved *m, uint32_t now_ms)
{
    const int most = m->state == EMPM__KEEPALIVE ? cfg->keep_alive_timeout_ms
                     : cfg->header_timeout_ms    ? cfg->header_timeout_ms
                                                 : cfg->timeout_ms;
    if (most == 0)
        return m->left_ms < INT32_MAX ? empm__time_after(now_ms,
                                                         (int)m->left_ms)
                                      : EMPM__NEVER;
    return empm__time_after(now_ms, m->left_ms < (uint32_t)most
                            ? (int)m->left_ms
                                                                : most);
}

/* Record i becomes a connection that waits for its next byte; its place is
 * where its deadline is. `m`: as a sibling tells of it; NULL: it is new. */
static void empm__listener_record_begin(empm__engine *e, uint32_t i, int fd,
                                        int k, const empm__moved *m,
                                        uint32_t now_ms)
{
    const empm_config *cfg = e->cfg;
    empm__conn *c = empm__slab_conn(&e->slab, i);
    uint32_t w, n;
    c->fd = fd;
    c->requests = m != NULL ? m->requests : 0;
    c->why = 0;
    c->flags = m == NULL ? EMPM__F_FRESH : m->is_job ? EMPM__F_MOVED : 0;
    c->io = NULL;
    c->session = e->s->endpoints[k].session;
    c->state = (uint8_t)(m != NULL ? m->state
                         : e->s->endpoints[k].proxy ||
                           empm__transport_of(c)->handshake != NULL
                             ? (uint32_t)EMPM__HANDSHAKE
                             : (uint32_t)EMPM__READ_HEAD);
    c->endpoint = (uint8_t)k;
    c->protocol = EMPM__HTTP1;
    c->place = EMPM__NEVER;
    if (c->serial == 0)
        c->serial = 1;
    empm__store(&c->deadline_ms,
                m != NULL ? empm__move_deadline(cfg, m, now_ms)
                          : empm__time_after(now_ms, cfg->header_timeout_ms
                                                    ? cfg->header_timeout_ms
                                                    : cfg->timeout_ms));
    empm__wheel_move(&e->wheel, &e->slab, i, c->deadline_ms);
    w = empm__load(&c->word);
    do                               /* POSTED may be set by a late hint */
        n = (w & EMPM__POSTED) | c->serial << EMPM__GEN_SHIFT | EMPM__IDLE |
            (c->state == EMPM__KEEPALIVE ? (uint32_t)EMPM__KEEP : 0u) |
            EMPM__WANT_ALWAYS | EMPM__WANT(EMPM__READY_IN);
    while (!__atomic_compare_exchange_n(&c->word, &w, n, 1, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED));
}

/* Makes a record of a new descriptor and registers it. `from` is the peer's
 * address; NULL: MaxConnectionsPerPeer does not ask. `m`: as above. Returns
 * the record; NIL: it is closed; OVER: it is one too many, and the caller's
 * still. */
static uint32_t empm__listener_admit(empm__engine *e, int fd, int k,
                                     const struct sockaddr_storage *from,
                                     const empm__moved *m, uint32_t now_ms)
{
    const empm_config *cfg = e->cfg;
    const uint32_t i = empm__slab_borrow(&e->slab);
    empm__conn *c;
    empm__peer *p;
    if (i == EMPM__NIL) {
        close(fd);
        empm__listener_pause(e, EMPM__PAUSE_FDS, now_ms, "no memory");
        return i;
    }
    p = empm__slab_peer(&e->slab, i);
    p->family = EMPM__PEER_UNASKED;
    if (from != NULL && empm__listener_limits_peers(e, k)) {
        empm__peer_from(p, from);    /* what has moved was counted before */
        if (!empm__counts_add(&e->counts, p,
                              m != NULL ? INT_MAX
                                        : cfg->max_connections_per_peer)) {
            empm__slab_return(&e->slab, i);
            return EMPM__OVER;
        }
    } else if (m != NULL && e->s->endpoints[k].proxy &&
               m->state != EMPM__HANDSHAKE)
        *p = m->peer;
    empm__listener_record_begin(e, i, fd, k, m, now_ms);
    c = empm__slab_conn(&e->slab, i);
    if (c->state == EMPM__READ_HEAD)
        empm__bump(&e->score->created, 1u);
    else                             /* only differences count */
        empm__bump(&e->score->unparked[c->state], (uint32_t)-1);
    if (m == NULL) {
        empm__bump(&e->score->accepted, 1u);
        if (e->fresh++ == 0)
            e->fresh_at_ms = now_ms;
    }
    if (empm__poller_add(&e->poller, c, i) < 0) {
        const int error = EMPM__EPOLL ? errno : ENOMEM;
        if (empm__listener_take(e, i, EMPM__READY_TIMEOUT, now_ms))
            empm__listener_close_idle(e, i);
        empm__listener_pause(e, EMPM__PAUSE_FDS, now_ms, strerror(error));
        return EMPM__NIL;
    }
    empm__store(&e->score->connections, e->slab.in_use);
    return i;
}

/* Decides about the connections beyond MaxConnectionsPerPeer: each is admitted
 * as soon as its peer has another place, or refused when its time is over; of
 * the oldest, `most` are refused at once. */
static void empm__listener_settle(empm__engine *e, empm__batch *b,
                                  uint32_t most)
{
    uint32_t i, n = 0;
    if (e->nheld == 0)
        return;
    empm__listener_drain_inbox(e, b);
    for (i = 0; i < e->nheld; i++) {
        const empm__held h = e->held[i];
        char text[96];
        empm__peer p;
        if (empm__listener_admit(e, h.fd, h.endpoint, &h.from, NULL,
                                 b->now_ms) !=
            EMPM__OVER)
            continue;
        if (i >= most && empm__time_until(h.verdict_at_ms, b->now_ms) > 0) {
            e->held[n++] = h;
            continue;
        }
        close(h.fd);
        empm__bump(&e->score->refused, 1u);
        empm__peer_from(&p, &h.from);
        empm__engine_log(e, EMPM_LOG_WARN, 5306, "%s has as many connections "
                         "as MaxConnectionsPerPeer of %d allows: refused",
                         empm__peer_text(&p, 0, text, sizeof text),
                         e->cfg->max_connections_per_peer);
    }
    e->nheld = n;
}

/* One more than MaxConnectionsPerPeer allows. The client may have closed
 * another one before: its event has not been read, or a worker is about to
 * close it. So the verdict waits for a moment. */
static void empm__listener_hold(empm__engine *e, empm__batch *b, int fd, int k,
                                const struct sockaddr_storage *from)
{
    empm__held *h;
    empm__listener_settle(e, b, e->nheld == EMPM__HELD);
    h = &e->held[e->nheld++];
    h->fd = fd;
    h->endpoint = k;
    h->verdict_at_ms = empm__time_after(b->now_ms, EMPM__HELD_MS);
    h->from = *from;
}

/* Makes room for one more connection where MaxOpenConnections is reached: frees
 * what workers have closed, or, unless a sibling has a place, closes what is
 * only kept alive. Returns 0 if there is none, and accepting pauses. */
static int empm__listener_make_room(empm__engine *e, empm__batch *b)
{
    uint32_t over;
    int others;
    empm__listener_drain_inbox(e, b);
    if (e->slab.in_use < e->most)
        return 1;
    over = e->slab.in_use - e->most + 1;
    others = empm__listener_others_have_place(e);
    if (!others && empm__listener_cull(e, over, b->now_ms) >= over)
        return 1;
    empm__listener_pause(e, EMPM__PAUSE_FULL, b->now_ms,
                         others ? NULL : "MaxOpenConnections is reached");
    return 0;
}

/* ---------------------------------------------------------------------------
 * >>moving -- connections that go to a child with time for them
 *
 * Only what has not been read can move: its bytes are still in the kernel. A
 * child gives jobs when all its workers are blocked and a sibling has an idle
 * one, takes as many as it can begin, and serves what it has taken before it
 * may give it again.
 * ------------------------------------------------------------------------- */

/* May the connection move? Only if all that there is of it is in the kernel,
 * its deadline has not come, and it has been served since it has moved last:
 * else two children without time would send it to and fro. */
static int empm__move_may(const empm__conn *c)
{
    return c->io == NULL && c->session == &empm__plain_session &&
           !(c->flags & (EMPM__F_MOVED | EMPM__F_CLOSED)) &&
           !(c->why & EMPM__READY_TIMEOUT) &&
           (c->state == EMPM__HANDSHAKE || c->state == EMPM__READ_HEAD ||
            c->state == EMPM__KEEPALIVE);
}

/* Gives n records, which are taken and may move, to the exchange. They are sent
 * before they are closed here, so that a full exchange loses none. Returns 1 if
 * they are free again; 0 if they are ours still. */
static int empm__move_out(empm__engine *e, const uint32_t *list, uint32_t n,
                          int are_jobs, uint32_t now_ms)
{
    empm__move m;
    int fds[EMPM__MOVE_MOST];
    uint32_t k;
    memset(&m, 0, offsetof(empm__move, conns) + n * sizeof m.conns[0]);
    memset(fds, 0, sizeof fds);
    m.version = EMPM__MOVE_VERSION;
    m.n = n;
    for (k = 0; k < n; k++) {
        const empm__conn *c = empm__slab_conn(&e->slab, list[k]);
        const uint32_t deadline = empm__load(&c->deadline_ms);
        const int left = empm__time_until(deadline, now_ms);
        empm__moved *to = &m.conns[k];
        to->endpoint = empm__exchange_key(&e->s->endpoints[c->endpoint]);
        to->state = c->state;
        to->is_job = (uint32_t)are_jobs;
        to->requests = c->requests;
        to->left_ms = deadline == EMPM__NEVER ? deadline
                      : left > 0 ? (uint32_t)left : 0;
        memcpy(&to->peer, empm__slab_peer(&e->slab, list[k]), sizeof to->peer);
        fds[k] = c->fd;
    }
    if (empm__exchange_give(&e->s->exchange, &m, fds) < 0) {
        if (!empm__fd_would_block(errno) && errno != ENOBUFS &&
            errno != ETOOMANYREFS)
            empm__engine_log(e, EMPM_LOG_ERROR, 5046, "cannot pass a "
                             "connection on: %s", strerror(errno));
        return 0;
    }
    for (k = 0; k < n; k++) {
        empm__conn *c = empm__slab_conn(&e->slab, list[k]);
        empm__poller_remove(&e->poller, c);
        close(c->fd);
        empm__listener_record_free(e, list[k]);
    }
    empm__bump(&e->score->moved_out, n);
    e->swept_at_ms = now_ms;
    return 1;
}

/* Makes a record of what the exchange has given, or closes it. Its giver may be
 * of another generation, or have been taken over by an attacker: the endpoint
 * is looked up by its text, the state must be one that can move, and the kernel
 * is asked what the descriptor is. */
static void empm__move_in(empm__engine *e, empm__batch *b, int fd,
                          const empm__moved *m)
{
    struct sockaddr_storage from;
    uint32_t i;
    int k;
    for (k = 0; k < e->s->nendpoints; k++)   /* even if it is closed: a drain
                                                takes back what it gave */
        if (e->s->endpoints[k].admin == e->admin &&
            empm__exchange_key(&e->s->endpoints[k]) == m->endpoint)
            break;
    if (k == e->s->nendpoints)       /* a reload has dropped that Listen, or
                                        spells it otherwise: one of its kind */
        for (k = 0; k < e->s->nendpoints; k++)
            if (empm__listener_watches(e, k) && e->s->endpoints[k].proxy ==
                    (m->peer.proxied != EMPM__PROXIED_NOT ||
                     m->state == EMPM__HANDSHAKE))
                break;
    errno = 0;
    if (k == e->s->nendpoints ||
        (m->state != EMPM__READ_HEAD && m->state != EMPM__KEEPALIVE &&
         (m->state != EMPM__HANDSHAKE || !e->s->endpoints[k].proxy)) ||
        !empm__exchange_is_connection(fd, &from) || empm__fd_flags(fd, 1) < 0) {
        if (errno != 0 && errno != ENOTCONN)     /* its client has left */
            empm__engine_log(e, EMPM_LOG_ERROR, 5046, "cannot take a "
                             "connection over: %s", strerror(errno));
        close(fd);
        return;
    }
    i = empm__listener_admit(e, fd, k, &from, m, b->now_ms);
    if (i == EMPM__NIL)
        return;
    empm__bump(&e->score->moved_in, 1u);
    if (m->is_job && empm__listener_take(e, i, EMPM__READY_IN, b->now_ms))
        empm__listener_batch_add(e, b, i);
}

/* May one more message of connections be taken? recvmsg() drops those that it
 * has no descriptor for, so after a lack of some one is tried first. */
static int empm__move_has_place(empm__engine *e, empm__batch *b)
{
    const uint32_t now_ms = b->now_ms;
    if (e->slab.in_use >= e->most && !empm__listener_make_room(e, b))
        return 0;
    if (e->lacked_fds) {
        const int fd = fcntl(e->s->exchange.fd[0], F_DUPFD_CLOEXEC, 0);
        if (fd < 0) {
            empm__listener_pause(e, EMPM__PAUSE_FDS, now_ms, strerror(errno));
            return 0;
        }
        close(fd);
        e->lacked_fds = 0;
    }
    return 1;
}

/* Takes from the exchange as much as our workers have time for; `all`: all
 * there is, since nobody else will. */
static void empm__move_take(empm__engine *e, empm__batch *b, int all)
{
    int turns = EMPM__ACCEPTS, taken = 0;
    while (EMPM__SHARES(e) && (all || (turns-- > 0 && e->paused == 0))) {
        empm__move m;
        int fds[EMPM__MOVE_MOST], n, k;
        if (!all && empm__listener_room(e, b) <= 0) {
            empm__listener_pause_full(e, b->now_ms);
            return;
        }
        if (!all && !empm__move_has_place(e, b))
            return;
        n = empm__exchange_take(&e->s->exchange, &m, fds);
        if (n == 0 && (taken || !empm__exchange_is_down(&e->s->exchange)))
            return;
        taken = 1;
        if (n == 0) {                /* no end, else: it stays ready */
            empm__engine_log(e, EMPM_LOG_ERROR, 5046, "a process has shut "
                             "down the sockets between children: no connection "
                             "moves any more, until the next start");
            empm__listener_watch(e, 0);
            e->shares = 0;
            if (empm__listener_watch(e, 1) < 0)
                empm__listener_pause(e, EMPM__PAUSE_FDS, b->now_ms,
                                     strerror(errno));
            return;
        }
        if (n < 0 && errno == EMFILE) {
            empm__engine_log(e, EMPM_LOG_ERROR, 5046, "no descriptor for a "
                             "connection that was passed on: closed");
            empm__listener_pause(e, EMPM__PAUSE_FDS, b->now_ms,
                                 strerror(EMFILE));
            return;
        }
        if (n < 0)
            empm__engine_log(e, EMPM_LOG_ERROR, 5046, "a connection that was "
                             "passed on makes no sense: closed");
        for (k = 0; k < n; k++)
            empm__move_in(e, b, fds[k], &m.conns[k]);
        e->lacked_fds |= n > 0 && (uint32_t)n < m.n;
    }
}

/* Do jobs wait while no worker here has time? The worker that listens takes the
 * first one itself, and those that seem to be quick are back in a moment: so
 * only what has waited longer than EMPM__PATIENCE_US counts. */
static int empm__move_jobs_wait_locked(const empm__queue *q, uint64_t now_us)
{
    return q->idle_count + q->searching == 0 &&
           q->count > (q->listening >= 0 ? 1u : 0u) &&
           (q->running == 0 || now_us - q->mark_at_us > EMPM__PATIENCE_US);
}

/* Gives jobs that wait to siblings that have time, as many as those can begin.
 * While none has, the next look is after 1, 2, 4 and then 8 ms. */
static void empm__move_give_jobs(empm__engine *e, const empm__batch *b)
{
    empm__queue *q = &e->queue;
    uint32_t want = e->handing_over == EMPM__TO_PROGRAM
                        ? EMPM__MOVE_MOST : empm__listener_siblings_room(e,
                                                                         NULL);
    uint32_t i = EMPM__NIL, n = 0;
    int shut = 0;
    if (want > 0 && e->paused == 0) {        /* or we would take them back */
        pthread_mutex_lock(&q->lock);
        if ((shut = empm__move_jobs_wait_locked(q, b->now_us)) != 0)
            empm__queue_gate_close_locked(q);
        pthread_mutex_unlock(&q->lock);
        if (!shut)
            return;
        empm__listener_pause(e, EMPM__PAUSE_GATE, b->now_ms, "");
    }
    for (; want > 0; want--, n++) {
        pthread_mutex_lock(&q->lock);
        i = empm__move_jobs_wait_locked(q, b->now_us)
                ? empm__queue_remove_locked(q, empm__move_may) : EMPM__NIL;
        pthread_mutex_unlock(&q->lock);
        if (i == EMPM__NIL)
            break;
        if (!empm__move_out(e, &i, 1, 1, b->now_ms)) {
            pthread_mutex_lock(&q->lock);
            empm__queue_return_locked(q, i);
            pthread_mutex_unlock(&q->lock);
            break;
        }
    }
    e->give_wait_ms = n > 0 || e->give_wait_ms == 0 ? 1
                   : e->give_wait_ms < 8 ? e->give_wait_ms * 2 : 8;
    e->give_at_ms = empm__time_after(b->now_ms, (int)e->give_wait_ms);
}

/* ---------------------------------------------------------------------------
 * >>admission -- accept(), in turn with siblings, and the end of it
 *
 * As many connections are accepted in a row as workers are idle. A stop takes
 * what the kernel has accepted already; a drain gives what waits for a request
 * to the processes that serve on.
 * ------------------------------------------------------------------------- */

/* Endpoint k has been shut down: any process that has the descriptor can do it.
 * A TCP socket listens again when it is told to, a unix one never: it is left
 * alone from here on. */
static void empm__listener_shut(empm__engine *e, int k)
{
    const empm__endpoint *l = &e->s->endpoints[k];
    if (listen(l->fd, e->cfg->listen_backlog) == 0 &&
        !empm__listener_is_shut(l->fd)) {
        empm__engine_log(e, EMPM_LOG_ERROR, 5008, "Listen %s: a process has "
                         "shut it down: opened again", l->text);
        return;
    }
    empm__engine_log(e, EMPM_LOG_CRIT, 5020, "Listen %s: a process has shut "
                     "it down: nobody can connect until a restart", l->text);
    empm__listener_watch(e, 0);
    e->shut |= 1u << k;
    if (e->paused == 0 && empm__listener_watch(e, 1) < 0)
        empm__listener_pause(e, EMPM__PAUSE_FDS, empm__now_ms(),
                             strerror(errno));
}

/* accept() has failed on endpoint k with `error`. Every errno has its
 * treatment, and none closes the socket or the child. Returns 1 to go on. */
static int empm__listener_accept_failed(empm__engine *e, int k, int error,
                                        int accepted, int *failed,
                                        uint32_t now_ms)
{
    const int fd = e->s->endpoints[k].fd;
    switch (error) {
    case EAGAIN:
#if EAGAIN != EWOULDBLOCK
    case EWOULDBLOCK:
#endif
        /* a sibling was faster; or, as some kernels say it, a unix socket has
         * been shut down, and this event comes for ever */
        if (!accepted && ++e->vain % EMPM__VAIN == 0 &&
            empm__listener_is_shut(fd))
            empm__listener_shut(e, k);
        return 0;
    case EMFILE: case ENFILE: case ENOBUFS: case ENOMEM:
        if (empm__listener_cull(e, 1, now_ms) > 0)
            return 1;
        break;
    case EBADF: case EINVAL: case ENOTSOCK: case EFAULT:
        if (empm__listener_is_shut(fd)) {
            empm__listener_shut(e, k);
            return 0;
        }
        break;
    default:                         /* this one connection has failed */
        if (++*failed < 16)
            return 1;                /* ... or it is all of them */
    }
    empm__listener_pause(e, EMPM__PAUSE_FDS, now_ms, strerror(error));
    return 0;
}

/* Goes to the end of the queue in which the kernel wakes, so that siblings get
 * their share. */
static void empm__listener_rotate(empm__engine *e, uint32_t now_ms)
{
    e->accepts = 0;
    empm__listener_watch(e, 0);
    if (empm__listener_watch(e, 1) < 0)
        empm__listener_pause(e, EMPM__PAUSE_FDS, now_ms, strerror(errno));
}

/* Accepts from endpoint k, at most `most`, and no more than our workers can
 * begin as long as siblings have time; `all`: whatever they have. */
static void empm__listener_accept(empm__engine *e, empm__batch *b, int k,
                                  int most, int all)
{
    const empm__endpoint *l = &e->s->endpoints[k];
    struct sockaddr_storage a, *from = empm__listener_limits_peers(e, k)
                                       ? &a : NULL;
    const uint32_t now_ms = b->now_ms;
    int accepted = 0, failed = 0, alone = all || !EMPM__SHARES(e);
    while (most-- > 0 && (e->paused & ~(uint32_t)EMPM__PAUSE_STOP) == 0) {
        int fd;
        if (!alone &&
            empm__listener_room(e, b) <= empm__listener_fresh(e, now_ms)) {
            if (empm__listener_siblings_room(e, NULL) > 0) {
                empm__listener_pause_full(e, now_ms);
                return;
            }
            alone = 1;
        }
        if (e->slab.in_use >= e->most) {
            struct pollfd p;         /* is somebody there at all? */
            p.fd = l->fd;
            p.events = POLLIN;
            if (accepted || poll(&p, 1, 0) <= 0)
                return;
            if (!empm__listener_make_room(e, b))
                return;
        }
        a.ss_family = AF_UNSPEC;
        fd = empm__fd_accept(l->fd, from);
        if (fd < 0) {
            if (!empm__listener_accept_failed(e, k, errno, accepted, &failed,
                                              now_ms))
                return;
            continue;
        }
        accepted = 1;
        if (empm__listener_admit(e, fd, k, from, NULL, now_ms) == EMPM__OVER)
            empm__listener_hold(e, b, fd, k, from);
        if (++e->accepts >= 16 && e->listening)
            empm__listener_rotate(e, now_ms);
    }
}

/* Is every worker in its turn for over `ms`, so in a handler that takes its
 * time? `shut` then also closes the gate, under the same lock: a worker that
 * becomes idle after the answer opens it again. */
static int empm__listener_all_busy(empm__engine *e, uint32_t now_ms, int ms,
                                   int shut)
{
    empm__queue *q = &e->queue;
    int busy, i;
    pthread_mutex_lock(&q->lock);
    busy = empm__queue_idle_locked(q) == 0;
    for (i = 0; i < e->started && busy; i++) {
        const uint32_t began = empm__load(&e->workers[i].turn_began);
        busy = began != EMPM__NEVER && empm__time_until(now_ms, began) > ms;
    }
    if (busy && shut)
        empm__queue_gate_close_locked(q);
    pthread_mutex_unlock(&q->lock);
    return busy;
}

/* Ends a pause for the reasons in `why`; accepts again if there is no other
 * one. All that waits is an event of the new registration. A sibling that stops
 * looking at this moment is seen by us, or sees that we accept. */
static void empm__listener_unpause(empm__engine *e, uint32_t why,
                                   uint32_t now_ms)
{
    if (!(e->paused & why))
        return;
    e->paused &= ~why;
    empm__store(&e->score->paused, e->paused);
    if (e->paused != 0)
        return;
    empm__store(&e->want_retired, 0u);
    e->retry_at_ms = EMPM__NEVER;
    e->full_batches = 0;
    empm__fence();          /* pairs with the one in empm__listener_pass_on() */
    if (empm__listener_watch(e, 1) < 0)
        empm__listener_pause(e, EMPM__PAUSE_FDS, now_ms, strerror(errno));
}

/* --- stopping ------------------------------------------------------------- */

/* Offers `ready` to every record in use. READY_STOP tells suspended requests of
 * the stop; those that READY_TIMEOUT takes shall end. `only_idle`: not those
 * that have a request under way. `force`: see end_taken(). */
static void empm__listener_sweep(empm__engine *e, empm__batch *b,
                                 uint32_t ready, int only_idle, int force)
{
    uint32_t i;
    for (i = 0; i < e->slab.made; i++) {
        const empm__conn *c = empm__slab_conn(&e->slab, i);
        const uint32_t w = empm__load(&c->word);
        if (c->protocol == EMPM__FREE ||
            (only_idle && !(w & (EMPM__IDLE | EMPM__OWNED))))
            continue;
        if (!empm__listener_take(e, i, ready, b->now_ms))
            continue;
        if (ready == EMPM__READY_STOP)
            empm__listener_batch_add(e, b, i);
        else
            empm__listener_end_taken(e, b, i, force);
    }
}

/* The last connections: the kernel has accepted them, so they are ours, unless
 * they would only be closed while others serve. Then our copies of the sockets
 * are closed. `others_serve`, `at_once`: of the stop; see the caller. */
static void empm__listener_accept_last(empm__engine *e, empm__batch *b,
                                       int others_serve, int at_once)
{
    const int tried = (e->paused & EMPM__PAUSE_NEW) != 0;    /* never served */
    int k;
    e->paused = 0;
    for (k = 0; k < e->s->nendpoints; k++)
        if (empm__listener_watches(e, k) && !tried &&
            !(others_serve && at_once))
            empm__listener_accept(e, b, k,
                                  e->cfg->listen_backlog + EMPM__BATCH, 1);
    empm__listener_settle(e, b, EMPM__HELD);
    if (!others_serve && !tried)         /* nobody else will have these */
        empm__move_take(e, b, 1);
    empm__listener_pause(e, EMPM__PAUSE_STOP, b->now_ms, "");
    for (k = 0; k < e->s->nendpoints; k++)
        if (empm__listener_watches(e, k)) {
            close(e->s->endpoints[k].fd);
            e->s->endpoints[k].fd = -1;
        }
}

/* Begins a stop or a drain, or turns a drain into a stop. An order that is less
 * than what is under way changes nothing. */
static void empm__listener_begin_stop(empm__engine *e, empm__batch *b,
                                      uint32_t orders)
{
    const empm_config *cfg = e->cfg;
    const uint32_t before = e->stopping, now = orders & EMPM__ORDER_STOP;
    const int others_serve = EMPM__SHARES(e) &&
        (orders & (EMPM__ORDER_HAND_OVER | EMPM__ORDER_UPGRADE)) != 0;
    int wait_ms;
    if (!others_serve || now) {
        const int gave = EMPM__HANDS_OVER(e) != 0;
        empm__store(&e->handing_over, 0u);
        /* nobody else will take what we have given last */
        if (gave && !others_serve)
            empm__move_take(e, b, 1);
    } else if (before == 0 || ((orders & EMPM__ORDER_UPGRADE) &&
                               !(before & EMPM__ORDER_STOP))) {
        empm__store(&e->handing_over, (uint32_t)(orders & EMPM__ORDER_UPGRADE
                                           ? EMPM__TO_PROGRAM
                                           : EMPM__TO_SIBLINGS));
        e->sweep_at_ms = e->swept_at_ms = b->now_ms;
    }
    if (!(before & EMPM__ORDER_STOP) && (orders & EMPM__ORDER_STOP))
        wait_ms = cfg->stop_timeout_ms;
    else if (before == 0)
        wait_ms = empm__load(&e->drain_ms);
    else
        return;
    if (!EMPM__HAS_PARENT(e->s) && !e->admin)    /* a parent has said it */
        empm__log(cfg, EMPM_LOG_NOTICE, now ? 491 : 492,
                  now ? "stopping" : "stopping gracefully");
    if (before == 0)
        empm__listener_accept_last(e, b, others_serve, now != 0);
    e->stop_at_ms = wait_ms > 0 ? empm__time_after(b->now_ms, wait_ms)
                                : EMPM__NEVER;
    if (before == 0)
        empm__store(&e->linger_end_at_ms,
                    empm__time_after(b->now_ms, cfg->linger_short_ms));
    empm__store(&e->stopping, before | (orders & (EMPM__ORDER_STOP |
                                                  EMPM__ORDER_GRACEFUL)));
    empm__store(&e->score->stopping, e->stopping);
    empm__engine_tell_parent(e, EMPM__SAY_LEAVING);
    empm__fence();               /* a worker that parks after this sees it */
    empm__listener_sweep(e, b, EMPM__READY_STOP, 0, 0);
    if (orders & EMPM__ORDER_STOP)
        empm__listener_sweep(e, b, EMPM__READY_TIMEOUT, 1, 0);
}

/* Patience is over. A drain becomes a stop; a stop ends every wait, and closes
 * the descriptors of those that workers still have to clean up. */
static void empm__listener_abort_all(empm__engine *e, empm__batch *b)
{
    if (!(e->stopping & EMPM__ORDER_STOP)) {
        empm__listener_begin_stop(e, b, EMPM__HANDS_OVER(e)
                                            ? EMPM__ORDER_STOP |
                                                       EMPM__ORDER_HAND_OVER
                                                        : EMPM__ORDER_STOP);
        return;
    }
    e->stop_at_ms = EMPM__NEVER;
    empm__store(&e->abort, 1u);
    empm__fence();
    empm__listener_sweep(e, b, EMPM__READY_TIMEOUT, 0, 1);
}

/* --- handing over: a drain gives what waits for a request to others ------- */

/* Takes record i if it waits for a request. TIMEOUT, which is always wanted,
 * is how it is taken: it has not come, and is forgotten. Returns 1 if it is
 * ours. */
static int empm__move_take_waiting(empm__engine *e, uint32_t i,
                                   uint32_t now_ms)
{
    empm__conn *c = empm__slab_conn(&e->slab, i);
    const uint32_t w = empm__load(&c->word);
    if (c->protocol == EMPM__FREE || (w & EMPM__OWNED) || !(w & EMPM__IDLE) ||
        !empm__listener_take(e, i, EMPM__READY_TIMEOUT, now_ms))
        return 0;
    c->why = (uint16_t)(c->why & ~(unsigned)(EMPM__READY_TIMEOUT |
                                             EMPM__READY_STOP));
    return 1;
}

/* Lets a record wait again that has been taken for nothing; it goes to the
 * queue if something has come meanwhile. */
static void empm__move_wait_again(empm__engine *e, empm__batch *b, uint32_t i)
{
    empm__conn *c = empm__slab_conn(&e->slab, i);
    const uint32_t keep = c->state == EMPM__KEEPALIVE ? (uint32_t)EMPM__KEEP
                                                      : 0u;
    if (c->why & (EMPM__READY_ALL & ~(unsigned)EMPM__STICKY) ||
        !empm__conn_give(c, EMPM__WANT(EMPM__READY_IN) | EMPM__IDLE | keep)) {
        empm__listener_batch_add(e, b, i);  /* something has come meanwhile */
        return;
    }
    empm__bump(&e->score->unparked[c->state], (uint32_t)-1);
    empm__wheel_hasten(&e->wheel, &e->slab, i, empm__load(&c->deadline_ms));
    empm__poller_arm(&e->poller, i);
}

/* Gives n taken records away. Returns 0 if the exchange is full: they wait here
 * again. */
static int empm__move_drain_some(empm__engine *e, empm__batch *b,
                                 const uint32_t *list, uint32_t n)
{
    uint32_t k;
    if (n == 0 || empm__move_out(e, list, n, 0, b->now_ms))
        return 1;
    for (k = 0; k < n; k++)
        empm__move_wait_again(e, b, list[k]);
    return 0;
}

/* Goes through the records from e->sweep on, until the exchange is full, and
 * looks again in a while: a worker may have parked one unseen. If nothing can
 * be moved for EMPM__HAND_OVER_MS, connections end with their next answer. */
static void empm__move_drain(empm__engine *e, empm__batch *b)
{
    uint32_t list[EMPM__MOVE_MOST], n = 0, accepting = 1;
    if (e->handing_over == EMPM__TO_SIBLINGS)
        empm__listener_siblings_room(e, &accepting);
    e->sweep_at_ms = empm__time_after(b->now_ms, accepting > 0 ? 1 : 5);
    if (e->handing_over == EMPM__TO_SIBLINGS &&
        empm__load(&empm__score_server_at(&e->s->score)->draining))
        empm__store(&e->handing_over, 0u);   /* all go: nobody serves on here */
    if (e->stop_at_ms != EMPM__NEVER && empm__time_until(e->stop_at_ms,
                                                      b->now_ms) < 2000)
        empm__store(&e->handing_over, 0u);   /* what is left ends */
    for (; accepting > 0 && e->sweep < e->slab.made; e->sweep++) {
        if (!empm__move_take_waiting(e, e->sweep, b->now_ms))
            continue;
        if (!empm__move_may(empm__slab_conn(&e->slab, e->sweep))) {
            empm__move_wait_again(e, b, e->sweep);
            continue;
        }
        list[n++] = e->sweep;
        if (n < EMPM__MOVE_MOST)
            continue;
        if (!empm__move_drain_some(e, b, list, n)) {
            e->sweep = list[0];
            break;
        }
        n = 0;
    }
    if (e->sweep >= e->slab.made && empm__move_drain_some(e, b, list, n)) {
        e->sweep = 0;
        e->swept_at_ms = b->now_ms;     /* there is nothing that could move */
        e->sweep_at_ms = empm__time_after(b->now_ms, 100);
    } else if (e->sweep >= e->slab.made)
        e->sweep = n > 0 ? list[0] : 0;
    if (empm__time_until(b->now_ms, e->swept_at_ms) > EMPM__HAND_OVER_MS)
        empm__store(&e->handing_over, 0u);
    if (!e->handing_over)
        e->sweep_at_ms = EMPM__NEVER;
}

/* ---------------------------------------------------------------------------
 * >>listener -- accepts, waits for events, gives and takes connections
 *
 * One round of the listener: orders and inbox; wait; each event is offered to
 * its record; due deadlines and files; new connections; all that was taken goes
 * to the queue under one lock; if there is work for somebody, the role is given
 * back. A worker plays it from within its own search for a job:
 *
 *   empm__queue_pop()             nothing to do, nobody listens: takes the role
 *     empm__listener_run()        rounds, until one has work for somebody
 *       empm__listener_end_round()    gives the role back
 *   empm__queue_pop()             returns the first job, or sleeps
 *
 * It never reads, writes or parses, takes no lock that a worker holds for long,
 * and runs no user code. What owes nobody an answer (KEEPALIVE, LINGER, and
 * HANDSHAKE and READ_HEAD without a byte) it closes itself, so that descriptors
 * come back even when all workers are stuck. When every one of them has been
 * busy with the same turn for over a second, it closes the descriptors of the
 * others too, as they fall due, and a worker cleans up when there is one.
 * ------------------------------------------------------------------------- */

static void empm__listener_clock(empm__batch *b)
{
    b->now_us = empm__now_us();
    b->now_ms = empm__time_us_to_ms(b->now_us);
}

/* Looks at the records whose places are due: an owned one is looked at again in
 * a horizon, one that waits for longer at its deadline, and the others are
 * taken and end. Whether all workers are stuck is asked once, and only if one
 * is due, since that takes their lock. */
static void empm__listener_expire(empm__engine *e, empm__batch *b)
{
    const uint32_t now = b->now_ms;
    uint32_t i;
    int stuck = -1;                  /* not asked yet */
    empm__wheel_advance(&e->wheel, &e->slab, now);
    while ((i = empm__wheel_due(&e->wheel, &e->slab)) != EMPM__NIL) {
        empm__conn *c = empm__slab_conn(&e->slab, i);
        const uint32_t w = empm__load_acq(&c->word);
        const uint32_t deadline = empm__load(&c->deadline_ms);
        if (w & EMPM__OWNED) {
            empm__wheel_move(&e->wheel, &e->slab, i,
                             empm__time_after(now, e->horizon_ms));
        } else if (deadline == EMPM__NEVER ||
                   empm__time_until(deadline, now) > 0) {
            empm__wheel_move(&e->wheel, &e->slab, i, deadline);
        } else {
            if (stuck < 0)
                stuck = empm__listener_all_busy(e, now, 1000, 0);
            empm__wheel_move(&e->wheel, &e->slab, i,
                             empm__time_after(now, e->horizon_ms));
            if (empm__listener_take(e, i, EMPM__READY_TIMEOUT, now)) {
                empm__bump(&e->score->expired, 1u);
                empm__listener_end_taken(e, b, i, stuck);
            }
        }
    }
}

/* What was taken in this round, in order, behind what waits already. */
static void empm__listener_push_batch_locked(empm__engine *e,
                                             const empm__batch *b)
{
    empm__queue *q = &e->queue;
    if (b->count == 0)
        return;
    if (q->tail == EMPM__NIL)
        q->head = b->head;
    else
        empm__slab_conn(&e->slab, q->tail)->queue_next = b->head;
    q->tail = b->tail;
    q->count += b->count;
    q->pushed += b->count;
}

/* Is the oldest job over 1 ms old? Jobs have no clock of their own: when all
 * that had been pushed at the mark is popped, the mark moves to now. */
static int empm__listener_jobs_are_old_locked(empm__engine *e,
                                              const empm__batch *b)
{
    empm__queue *q = &e->queue;
    int old;
    if ((int32_t)(q->popped - q->mark) >= 0) {
        q->mark = q->pushed;
        q->mark_at_us = b->now_us;
        q->mark_late = 0;
        empm__store(&e->score->waits_since_ms, b->now_ms);
    }
    old = q->count > 0 && b->now_us - q->mark_at_us > 1000;
    if (old && !q->mark_late) {
        q->mark_late = 1;
        empm__bump(&e->score->waited, q->mark - q->popped);
    }
    return old;
}

/* The parent wants to know when few workers are idle, and when more are again,
 * at most ten times a second. */
static void empm__listener_tell_few(empm__engine *e, uint32_t idle,
                                    uint64_t now_us)
{
    const uint32_t share = empm__load(
        &empm__score_slot_at(&e->s->score, e->slot)->spare_share);
    if ((idle < share) == e->told_few || now_us < e->tell_at_us)
        return;
    e->told_few = !e->told_few;
    e->tell_at_us = now_us + 100000u;
    empm__engine_tell_parent(e, EMPM__SAY_IDLE);
}

/* The batch goes to the queue. The gate closes when nobody has had time for a
 * while. Apache's formula: queued < (1 + factor) * idle. Returns 1 if the role
 * is given back, as there is work. */
static int empm__listener_end_round(empm__engine *e, empm__batch *b)
{
    empm__queue *q = &e->queue;
    uint32_t idle;
    int old, close_gate = 0, give, given;
    pthread_mutex_lock(&q->lock);
    empm__listener_push_batch_locked(e, b);
    old = empm__listener_jobs_are_old_locked(e, b);
    idle = empm__queue_idle_locked(q);
    if (idle > 0 &&
        q->count < (1 + e->cfg->async_request_worker_factor) * idle)
        e->full_batches = 0;
    else if (++e->full_batches >= 2 && old && e->paused == 0) {
        close_gate = 1;
        empm__queue_gate_close_locked(q);
    }
    give = EMPM__SHARES(e) && empm__move_jobs_wait_locked(q, b->now_us);
    pthread_mutex_unlock(&q->lock);
    /* Blocked workers: the gate closes before somebody comes, since an event
     * that is declined would wake no sibling (EPOLLEXCLUSIVE) */
    if (close_gate || (idle == 0 && e->paused == 0 &&
                       empm__listener_all_busy(e, b->now_ms, 1, 1)))
        empm__listener_pause(e, EMPM__PAUSE_GATE, b->now_ms, "");
    empm__listener_tell_few(e, idle, b->now_us);
    e->give_at_ms = EMPM__NEVER;
    if (give)
        empm__move_give_jobs(e, b);
    else
        e->give_wait_ms = 0;
    /* all that is the listener's has been done */
    pthread_mutex_lock(&q->lock);
    if (empm__time_is_late(empm__wings_chore_at(e), b->now_ms))
        q->chore = 1;
    given = q->count > 0 || q->chore;
    if (given)
        empm__queue_end_round_locked(q);
    empm__queue_settle(q, old ? 2 : 1);
    return given;
}

/* Returns for how many milliseconds the listener may sleep, -1: until something
 * happens. Every time that it keeps has its line here, as no thread wakes it
 * for them. */
static int empm__listener_poll_timeout(empm__engine *e, uint32_t now_ms)
{
    uint32_t at = EMPM__NEVER;
    const uint32_t queued = empm__load_acq(&e->score->queued);
    int wait = empm__wheel_wait(&e->wheel, now_ms), t;
    if (queued > 0 && e->queue.listening >= 0)
        return 0;                    /* a worker that only looks */
    if (e->paused & (EMPM__PAUSE_FDS | EMPM__PAUSE_FULL))
        at = e->retry_at_ms;
    if (e->paused == 0 && empm__load(&e->score->idle_workers) <= queued)
        at = empm__time_after(now_ms, 2); /* to close the gate in time */
    if (e->paused & EMPM__PAUSE_TURN)
        at = empm__time_earlier(at, e->turn_over_at_ms);
    if (e->nheld > 0)                /* workers do not say what they close */
        at = empm__time_after(now_ms, 1);
    if (EMPM__SHARES(e) && queued > 0 && e->give_at_ms == EMPM__NEVER)
        /* workers may block, and jobs wait then */
        at = empm__time_after(now_ms, 1);
    at = empm__time_earlier(at, e->give_at_ms);
    at = empm__time_earlier(at, e->sweep_at_ms);
    at = empm__time_earlier(at, e->stop_at_ms);
    at = empm__time_earlier(at, empm__wings_expire_at(e));
    at = empm__time_earlier(at, empm__wings_chore_at(e));
    if (at != EMPM__NEVER) {
        t = empm__time_until(at, now_ms);
        t = t > 0 ? t : 0;
        if (wait < 0 || t < wait)
            wait = t;
    }
    return wait;
}

/* Looks for new connections: on the endpoint or the exchange that `event` is
 * of, or, as the bell has been rung, on all of them. */
static void empm__listener_look(empm__engine *e, empm__batch *b, uint32_t event)
{
    int k;
    if (e->paused == 0 && EMPM__SHARES(e) &&
        (event == EMPM__EVENT_BELL ||
         event == EMPM__EVENT_ENDPOINT + EMPM__EXCHANGE))
        empm__move_take(e, b, 0);
    for (k = 0; k < e->s->nendpoints && e->paused == 0; k++)
        if (empm__listener_watches(e, k) &&
            (event == EMPM__EVENT_BELL ||
             event == EMPM__EVENT_ENDPOINT + (uint32_t)k))
            empm__listener_accept(e, b, k, EMPM__ACCEPTS, 0);
}

/* epoll_wait or poll has failed. Memory may come back; if it goes on, the child
 * ends, and the parent makes another. */
static void empm__listener_cannot_wait(empm__engine *e)
{
    const struct timespec rest = { 0, 10000000 };
    if (errno == EINTR)
        return;
    if (e->deaf_at_us == 0)
        e->deaf_at_us = empm__now_us();
    empm__engine_log(e, EMPM_LOG_ERROR, 5019, "cannot wait for events: %s: "
                     "%s%s",
                     EMPM__EPOLL ? "epoll_wait" : "poll", strerror(errno),
                     EMPM__HAS_PARENT(e->s) ? ": the child ends if that goes on"
                                          : "");
    if (EMPM__HAS_PARENT(e->s) &&
        empm__now_us() - e->deaf_at_us >= EMPM__DEAF_US)
        _exit(1);
    nanosleep(&rest, NULL);
}

/* Are places short? Then the connections whose clients have gone are closed
 * here, before new ones are looked at, and not when a worker has time. */
static int empm__listener_is_tight(const empm__engine *e)
{
    return e->nheld > 0 || e->slab.in_use >= e->most;
}

/* Looks without reading: a client that has only closed its half may have sent a
 * request before. */
static int empm__listener_client_is_gone(const empm__conn *c)
{
    char byte;
    const ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && !empm__fd_would_block(errno) && errno != EINTR);
}

/* Orders of other threads and of the parent, all at once. */
static void empm__listener_obey(empm__engine *e, empm__batch *b)
{
    const uint32_t orders = __atomic_exchange_n(&e->poller.orders, 0u,
                                                __ATOMIC_ACQUIRE);
    empm__listener_drain_inbox(e, b);
    if (orders & (EMPM__ORDER_STOP | EMPM__ORDER_GRACEFUL))
        empm__listener_begin_stop(e, b, orders);
    if (orders & EMPM__ORDER_PING)
        empm__bump(&e->score->pongs, 1u);
    if (orders & EMPM__ORDER_ACCEPT)
        empm__listener_unpause(e, EMPM__PAUSE_NEW, b->now_ms);
    if (orders & EMPM__ORDER_GATE)
        empm__listener_unpause(e, EMPM__PAUSE_GATE, b->now_ms);
}

/* Offers an event to its record, unless that is free or has a new life: then
 * the event is of a descriptor that is closed here. */
static void empm__listener_event(empm__engine *e, empm__batch *b,
                                 const empm__event *event)
{
    const empm__conn *c = empm__slab_conn(&e->slab, event->index);
    if (c->protocol == EMPM__FREE || c->gen != event->gen)
        return;
    if (empm__listener_take(e, event->index, event->ready, b->now_ms) &&
        !((event->ready & EMPM__STICKY) && empm__listener_is_tight(e) &&
          empm__listener_client_is_gone(c) &&
          empm__listener_close_idle(e, event->index)))
        empm__listener_batch_add(e, b, event->index);
}

/* All that is due but the deadlines of records: of wings, of a stop, and the
 * ends of pauses. */
static void empm__listener_timers(empm__engine *e, empm__batch *b)
{
    const empm__wing *const *wing;
    if (empm__time_is_late(empm__wings_expire_at(e), b->now_ms)) {
        EMPM__EACH_WING(wing, expire)
            (*wing)->expire(e, b->now_ms);
    }
    if (empm__time_is_late(e->stop_at_ms, b->now_ms))
        empm__listener_abort_all(e, b);
    if ((e->paused & (EMPM__PAUSE_FDS | EMPM__PAUSE_FULL)) &&
        empm__time_until(e->retry_at_ms, b->now_ms) <= 0)
        empm__listener_unpause(e, EMPM__PAUSE_FDS | EMPM__PAUSE_FULL,
                               b->now_ms);
    if ((e->paused & EMPM__PAUSE_TURN) &&
        (empm__time_until(e->turn_over_at_ms, b->now_ms) <= 0 ||
         empm__listener_room(e, b) > empm__listener_fresh(e, b->now_ms)))
        empm__listener_unpause(e, EMPM__PAUSE_TURN, b->now_ms);
}

/* MaxConnectionsPerChild is reached: this child drains, and siblings, or a new
 * one, get what waits. */
static void empm__listener_retire_child(empm__engine *e)
{
    if (e->cfg->max_connections_per_child == 0 || !EMPM__HAS_PARENT(e->s) ||
        e->stopping ||
        empm__load(&e->score->accepted) - e->accepted_before <
            (uint32_t)e->cfg->max_connections_per_child)
        return;
    empm__store(&e->drain_ms, e->cfg->graceful_restart_timeout_ms);
    empm__poller_order(&e->poller,
                       EMPM__ORDER_GRACEFUL | EMPM__ORDER_HAND_OVER);
}

/* One round. Returns 1 if the role has been given back. */
static int empm__listener_round(empm__engine *e)
{
    empm__event *events = e->events;
    empm__batch b;
    int n, i, timeout_ms;
    b.head = b.tail = EMPM__NIL;
    b.count = 0;
    empm__listener_clock(&b);
    empm__listener_obey(e, &b);
    if (e->stopping && e->slab.in_use == 0)
        return 0;
    timeout_ms = b.count > 0 ? 0 : empm__listener_poll_timeout(e, b.now_ms);
    n = empm__poller_wait(&e->poller, timeout_ms, events);
    if (n < 0)
        empm__listener_cannot_wait(e);
    else
        e->deaf_at_us = 0;
    empm__listener_clock(&b);
    for (i = 0; i < n; i++) {
        if (events[i].index == EMPM__EVENT_WAKE)
            empm__poller_wake_fd_drain(e->poller.wake_fd[0]);
        else if (events[i].index < EMPM__EVENT_ENDPOINT)
            empm__listener_event(e, &b, &events[i]);
    }
    empm__listener_expire(e, &b);
    empm__listener_settle(e, &b, 0);
    empm__listener_timers(e, &b);
    /* new connections after old ones: they have places, and may free some */
    for (i = 0; i < n; i++)
        if (events[i].index >= EMPM__EVENT_ENDPOINT &&
            events[i].index != EMPM__EVENT_WAKE)
            empm__listener_look(e, &b, events[i].index);
    if (EMPM__FORKS && empm__time_is_late(e->sweep_at_ms, b.now_ms))
        empm__move_drain(e, &b);
    empm__listener_retire_child(e);
    return empm__listener_end_round(e, &b);
}

/* The listener's role, until a round has something to do for workers, or the
 * end has come. */
static void empm__listener_run(void *arg)
{
    empm__engine *e = (empm__engine *)arg;
    while (!empm__listener_round(e))
        if (e->stopping && e->slab.in_use == 0) {
            empm__queue_close(&e->queue);
            return;
        }
}

/* The same for the standby. It has the role as no worker is free, so it runs a
 * chore itself; nobody listens meanwhile, unless a worker comes back. */
static void empm__listener_run_standby(void *arg)
{
    empm__engine *e = (empm__engine *)arg;
    int chore;
    if (EMPM__SHARES(e) && empm__load(&e->score->queued) > 0)
        e->give_at_ms = empm__now_ms();     /* siblings may have time */
    empm__listener_run(arg);
    pthread_mutex_lock(&e->queue.lock);
    chore = empm__queue_chore_locked(&e->queue);
    pthread_mutex_unlock(&e->queue.lock);
    if (chore)
        empm__wings_chore(e);
}

/* The standby's thread, the last one of an engine: it waits for the workers,
 * ends what wings have, and then says that all is done. */
static void *empm__listener_standby_main(void *arg)
{
    empm__engine *e = (empm__engine *)arg;
    const empm__wing *const *wing;
    int i;
    if (!EMPM__HAS_PARENT(e->s))             /* else it says when */
        empm__poller_order(&e->poller, EMPM__ORDER_ACCEPT);
    empm__queue_stand_by(&e->queue, empm__listener_run_standby, e);
    for (i = 0; i < e->started; i++)
        pthread_join(e->workers[i].thread, NULL);
    EMPM__EACH_WING(wing, stopped)
        (*wing)->stopped(e);
    empm__engine_log_rest(e);
    pthread_mutex_lock(&e->done_lock);
    e->done = 1;
    pthread_cond_broadcast(&e->done_cond);
    pthread_mutex_unlock(&e->done_lock);
    i = empm__load_acq(&e->done_fd);
    if (i >= 0) {
        ssize_t r = write(i, "d", 1);
        (void)r;
    }
    return NULL;
}

/* ---------------------------------------------------------------------------
 * >>head -- what a head is, what is refused, and its fields and lists
 *
 * Line by line, in place: each line is judged once, when its LF has arrived, so
 * a head that comes in single bytes costs no more than one that comes whole,
 * and gets the same verdict. Names and values stay where they are and get a
 * NUL; all positions are offsets from `in`, which may move when it grows. The
 * parser takes no memory: it says that it needs a place for a field, and goes
 * on when it has one.
 *
 * Two programs that read one message apart can be played off against each
 * other. So a form that one server or proxy takes, and another one reads as
 * something else, is refused, with 400 where no other status stands:
 *
 *   refused                        some take it as        which opens
 *   bare LF or CR, NUL, controls   the end of a line,     smuggling: a request
 *                                  others as a value's    within a value
 *   space before the colon, names  another field, or      smuggling by a length
 *     that are no token, or empty  none                   that one overlooks
 *   a folded line                  a part of the value,   the same
 *                                  or a field
 *   Content-Length twice or a      the first, or the      smuggling: where one
 *     list, even of equal values   last                   body ends, the other
 *                                                         reads a request
 *   a length with sign, blank,     the digits before it   the same
 *     hex or 64 bits
 *   Content-Length and             either of them         CL.TE, TE.CL
 *     Transfer-Encoding
 *   Transfer-Encoding in HTTP/1.0  no such field          CL.TE, old proxies
 *   a last coding that is not      a body up to the end   TE.TE: one of two
 *     "chunked"; "chunked" twice,  of the connection, or  gives up its length
 *     quoted, with parameters      as chunks
 *   another coding before it: 501  bytes as they came     content past filters
 *   Host twice, none in HTTP/1.1   the first, the last,   another site's answer
 *                                  a site of its own      in a cache
 *   '@', '/', blanks or half an    another host           links in mails that
 *     escape in Host                                      lead elsewhere
 *   "GET /  HTTP/1.1", a version   a path with blanks,    a path that filters
 *     other than HTTP/n.n          HTTP/0.9               have not seen
 *   HTTP/2 and above as text: 505  HTTP/1                 smuggling by upgrade
 *   CONNECT: 501                   a tunnel               a proxy for anybody
 *   a path above the root, half    a path within          files of others
 *     escapes, %00
 *   a chunk's size with 0x, sign   another size           TERM.EXT: a chunk
 *     or blanks; bare LF in or                            within extensions
 *     behind it
 *   bytes between data and CRLF    data, or a size        the same
 *
 * Forms that clients need, and that are read in one way, are taken:
 *
 *   taken                                    for
 *   empty lines before a request: they take  clients that end a POST with CRLF
 *     no room and prolong no wait
 *   bytes above 0x7f in the target           curl, PHP, Go and Java, which send
 *                                            queries as they were typed
 *   '#' and what follows: cut off            links, Python's http.client
 *   dots, empty segments (>>route)           apt, Go, Java, Python, PHP, Node
 *   zeros before a length (its value         senders with a fixed width; valid
 *     counts, and its bound)                 by RFC 9110 8.6
 *   lists with empty elements, over several  Expect: "", or twice; by RFC 9110
 *     fields, with quoted strings            5.3 and 5.6.1
 *   blanks around ';' and '=' in chunks      RFC 9112 7.1.1 wants it
 *   trailers that must not be: dropped       RFC 9110 6.5.1
 *   HTTP/1.2 and above: as 1.1               RFC 9110 2.5
 *
 * source    RFC 9112 2 to 6, RFC 9110 5 and 7.2
 * ------------------------------------------------------------------------- */

typedef struct empm__field {
    uint32_t name, value;          /* offsets from in */
    uint16_t name_len;
    uint16_t pad;
} empm__field;

#define EMPM__INLINE_FIELDS 40

enum empm__phase { EMPM__REQUEST_LINE, EMPM__FIELDS, EMPM__HEAD_DONE };

enum {                             /* empm__head.flags */
    EMPM__H_HOST    = 1,
    EMPM__H_TE      = 2,
    EMPM__H_CHUNKED = 4,
    EMPM__H_CLOSE   = 8,
    EMPM__H_KEEP    = 16,
    EMPM__H_EXPECT  = 32,          /* 100-continue */
    EMPM__H_EXPECT_OTHER = 64,
    EMPM__H_TE_ODD  = 128,         /* a coding that we do not have: 501 */
    EMPM__H_ABSOLUTE = 256
};

typedef struct empm__span {        /* where a piece of the head stands */
    uint32_t at, len;              /* an offset from in, and bytes */
} empm__span;

enum empm__part {                  /* of the request line */
    EMPM__PART_METHOD, EMPM__PART_TARGET,
    EMPM__PART_PATH, EMPM__PART_QUERY,
    EMPM__PART_HOST,               /* with its port; mostly of the Host field */
    EMPM__PARTS
};

typedef struct empm__head {
    uint32_t line, scanned;       /* where the line begins; no LF before this */
    uint32_t start;                /* where the request line begins */
    empm__span spans[EMPM__PARTS];
    uint32_t flags;
    int      minor;                /* of the version: 0 or 1 */
    enum empm__phase phase;
    int64_t  length;               /* Content-Length, -1: none */
    uint32_t nfields, max_fields;  /* fields; places for some */
    empm__field *fields;
} empm__head;

/* Results of the readers of HTTP: 0, it is done; 100 to 599, the status with
 * which the request is refused; or one of these. */
enum {
    EMPM__MORE = -1,               /* more input is needed */
    EMPM__FULL = -2,               /* a place for one more field is needed: give
                                      one and call again */
    EMPM__DATA = -3,               /* bytes of the body are next */
    EMPM__TURN = -4                /* the turn of the connection is over */
};

static void empm__head_init(empm__head *h, empm__field *fields, uint32_t max,
                            uint32_t at)
{
    memset(h, 0, sizeof *h);
    h->line = h->scanned = h->start = at;
    h->length = -1;
    h->fields = fields;
    h->max_fields = max;
}

/* Is a part of the head this word, in this case? */
static int empm__head_part_is(const empm__head *h, const char *in,
                              enum empm__part part, const char *word)
{
    const empm__span *p = &h->spans[part];
    return strlen(word) == p->len && memcmp(in + p->at, word, p->len) == 0;
}

/* The index of the first field called `name`, n bytes, from `from` on; nfields:
 * there is none. */
static uint32_t empm__head_find(const empm__head *h, const char *text,
                                const char *name, size_t n, uint32_t from)
{
    while (from < h->nfields &&
           (h->fields[from].name_len != n ||
            !empm__text_same(text + h->fields[from].name, n, name, n)))
        from++;
    return from;
}

/* The one reader of lists (each #rule of RFC 9110 5.6.1). An element is trimmed
 * and never empty; a comma in a quoted string divides nothing. Fields of one
 * name read as one list (5.3): the parser takes them one by one, as they come,
 * and adds up; later they are walked together.
 *
 * `escape` is the character that makes the next one of a quoted string plain:
 * '\\', or 0 in lists of entity tags, where a '\' is one (8.8.3). */
typedef struct empm__list {
    const char *item;              /* the element ... */
    size_t      n;                 /* ... and its bytes */
    const char *at;                /* what is left of the value */
    char        escape;
    const empm__head *h;           /* NULL: this value is all there is */
    const char *text, *name;       /* of h; of the fields that belong to it */
    uint32_t    next;              /* the field to look at after this one */
} empm__list;

static void empm__list_of_value(empm__list *l, const char *value)
{
    memset(l, 0, sizeof *l);
    l->at = value;
    l->escape = '\\';
}

EMPM__OPTIONAL
static void empm__list_of_fields(empm__list *l, const empm__head *h,
                                 const char *text, const char *name,
                                 char escape)
{
    memset(l, 0, sizeof *l);
    l->at = "";
    l->escape = escape;
    l->h = h;
    l->text = text;
    l->name = name;
}

/* On to the next element. Returns 0 at the end of the list. */
static int empm__list_next(empm__list *l)
{
    for (;;) {
        const char *p = l->at, *end;
        int quoted = 0;
        while (*p == ' ' || *p == '\t' || *p == ',')
            p++;
        l->item = end = p;
        for (; *p != '\0' && (quoted || *p != ','); p++) {
            if (*p == '"')
                quoted = !quoted;
            else if (quoted && *p == l->escape && p[1] != '\0')
                p++;
            if (*p != ' ' && *p != '\t')
                end = p + 1;
        }
        l->at = p;
        l->n = (size_t)(end - l->item);
        if (l->n > 0)
            return 1;
        if (l->h == NULL ||
            (l->next = empm__head_find(l->h, l->text, l->name, strlen(l->name),
                                       l->next)) == l->h->nfields)
            return 0;
        l->at = l->text + l->h->fields[l->next++].value;
    }
}

/* The last element of s[..*left), which then ends before it. For fields to
 * which each proxy appends: quotes mean nothing here, since a client could open
 * one and hide in it what the proxies say of it. Returns 0: there is none. */
EMPM__OPTIONAL
static int empm__list_last(const char *s, size_t *left, const char **item,
                           size_t *n)
{
    size_t end = *left, at;
    while (end > 0 && (s[end - 1] == ' ' || s[end - 1] == '\t' ||
                       s[end - 1] == ','))
        end--;
    for (at = end; at > 0 && s[at - 1] != ',';)
        at--;
    *left = at;
    while (at < end && (s[at] == ' ' || s[at] == '\t'))
        at++;
    *item = s + at;
    *n = end - at;
    return end > 0;
}

/* ---------------------------------------------------------------------------
 * >>head-lines -- request line and fields, each judged when its LF has arrived
 *
 * A line is looked for once: bytes that have been scanned without LF are not
 * scanned again. The request line is cut into its parts, a field into name and
 * value, and the fields that the server itself obeys leave flags and numbers.
 * The head as a whole is judged at its end.
 *
 * source    RFC 9112 2 to 6, RFC 9110 5 and 7.2
 * ------------------------------------------------------------------------- */

/* Is it host [":" port], RFC 9110 4.2.1? An IPv6 address stands in brackets. An
 * empty host is valid: it is for targets without authority. */
static int empm__head_host_valid(const empm__chars *t, const char *s, size_t n)
{
    size_t i = 0;
    if (n > 0 && s[0] == '[') {
        char text[INET6_ADDRSTRLEN];
        unsigned char addr[16];
        while (++i < n && s[i] != ']' && i < sizeof text)
            text[i - 1] = s[i];
        if (i == n || s[i] != ']')
            return 0;
        text[i - 1] = '\0';
        if (inet_pton(AF_INET6, text, addr) != 1)
            return 0;
        i++;
    } else
        for (; i < n; i++)
            if (empm__text_is_escape(s + i, n - i))
                i += 2;
            else if (!(t->of[(unsigned char)s[i]] & EMPM__HOST))
                break;
    if (i < n && (s[i] != ':' || i == 0))
        return 0;
    for (i += i < n; i < n; i++)
        if (!empm__ascii_is_digit((unsigned char)s[i]))
            return 0;
    return 1;
}

/* Cuts the target into host, path and query, by its form (RFC 9112 3.2):
 * "/path?query", "http://host/path?query", or the "*" of OPTIONS. An absolute
 * target overrules the Host field. Returns 0 or a status. */
static int empm__head_parse_target(empm__head *h, const empm__chars *t,
                                   const char *in)
{
    const empm__span *target = &h->spans[EMPM__PART_TARGET];
    empm__span *path = &h->spans[EMPM__PART_PATH];
    empm__span *query = &h->spans[EMPM__PART_QUERY];
    const uint32_t end = target->at + target->len;
    const char *s = in + target->at, *q;
    if (empm__head_part_is(h, in, EMPM__PART_METHOD, "CONNECT"))
        return 501;                     /* for proxies, whatever its target */
    if (*s == '*')
        return target->len == 1 &&
                       empm__head_part_is(h, in, EMPM__PART_METHOD, "OPTIONS")
                   ? 0 : 400;
    if (*s != '/') {
        empm__span *host = &h->spans[EMPM__PART_HOST];
        const uint32_t skip =
            target->len > 7 && empm__text_same(s, 7, "http://", 7) ? 7
            : target->len > 8 && empm__text_same(s, 8, "https://", 8) ? 8 : 0;
        uint32_t n = skip;
        if (skip == 0)
            return 400;
        while (n < target->len && s[n] != '/' && s[n] != '?')
            n++;
        if (n == skip || !empm__head_host_valid(t, s + skip, n - skip))
            return 400;
        h->flags |= EMPM__H_ABSOLUTE;
        host->at = target->at + skip;
        host->len = n - skip;
        path->at += n;
    }
    path->len = end - path->at;
    q = (const char *)memchr(in + path->at, '?', path->len);
    if (q != NULL) {
        path->len = (uint32_t)(q - in) - path->at;
        query->at = path->at + path->len + 1;
        query->len = end - query->at;
    }
    return 0;
}

/* Reads "method SP target SP HTTP/1.x" in in[at..end), with one SP each: a
 * reader that skips more blanks sees another target. Returns 0 or a status. */
static int empm__head_parse_request_line(empm__head *h, const empm__chars *t,
                                         char *in, uint32_t at, uint32_t end)
{
    empm__span *method = &h->spans[EMPM__PART_METHOD];
    empm__span *target = &h->spans[EMPM__PART_TARGET];
    const char *s = in + at, *e = in + end, *sp, *cut;
    h->start = at;
    sp = (const char *)memchr(s, ' ', (size_t)(e - s));
    if (sp == NULL || sp == s || !empm__chars_all(t, s, (size_t)(sp - s),
                                                  EMPM__TCHAR))
        return 400;
    method->at = at;
    method->len = (uint32_t)(sp - s);
    target->at = at + method->len + 1;
    s = sp + 1;
    sp = (const char *)memchr(s, ' ', (size_t)(e - s));
    if (sp == NULL || !empm__chars_all(t, s, (size_t)(sp - s), EMPM__TARGET))
        return 400;
    cut = (const char *)memchr(s, '#', (size_t)(sp - s));
    if (cut != NULL) {                  /* the version moves up to the cut */
        memmove(in + (cut - in), sp, (size_t)(e - sp));
        e -= sp - cut;
        sp = cut;
    }
    if (sp == s)
        return 400;
    target->len = (uint32_t)(sp - s);
    h->spans[EMPM__PART_PATH] = *target;     /* until we know better */
    h->spans[EMPM__PART_QUERY].at = target->at + target->len;
    if (e - sp != 9 || memcmp(sp, " HTTP/", 6) != 0 ||
        !empm__ascii_is_digit((unsigned char)sp[6]) || sp[7] != '.' ||
        !empm__ascii_is_digit((unsigned char)sp[8]))
        return 400;
    if (sp[6] != '1')
        return 505;
    h->minor = sp[8] == '0' ? 0 : 1;    /* RFC 9110 2.5: the highest we know */
    return empm__head_parse_target(h, t, in);
}

/* Reads one Transfer-Encoding field; there may be several. Nothing may follow
 * "chunked"; any other well-formed coding is one that the server does not have.
 * Returns 0 or 400. */
static int empm__head_parse_coding(empm__head *h, const empm__chars *t,
                                   const char *value)
{
    empm__list list;
    h->flags |= EMPM__H_TE;
    empm__list_of_value(&list, value);
    while (empm__list_next(&list)) {
        const char *item = list.item;
        const size_t n = list.n;
        size_t k;
        for (k = 0; k < n && (t->of[(unsigned char)item[k]] & EMPM__TCHAR); k++)
            ;
        if (k == 0 || (h->flags & EMPM__H_CHUNKED))
            return 400;
        if (k < n && item[k + strspn(item + k, " \t")] != ';')
            return 400;
        if (!empm__text_same(item, k, "chunked", 7))
            h->flags |= EMPM__H_TE_ODD;
        else if (k == n)
            h->flags |= EMPM__H_CHUNKED;
        else
            return 400;                 /* it has no parameters, 9112 7.1 */
    }
    return 0;
}

/* Notes what a field says that the server itself obeys: Host, Connection,
 * Content-Length, Transfer-Encoding, Expect. Their contradictions are judged
 * later, in the whole. Returns 0 or 400. */
static int empm__head_parse_known(empm__head *h, const empm__chars *t,
                                  const char *in, const empm__field *f)
{
    const char *name = in + f->name, *value = in + f->value;
    const size_t n = f->name_len;
    empm__list list;
    if (empm__text_same(name, n, "host", 4)) {
        const size_t len = strlen(value);
        if ((h->flags & EMPM__H_HOST) || !empm__head_host_valid(t, value, len))
            return 400;
        h->flags |= EMPM__H_HOST;
        if (!(h->flags & EMPM__H_ABSOLUTE)) {
            h->spans[EMPM__PART_HOST].at = f->value;
            h->spans[EMPM__PART_HOST].len = (uint32_t)len;
        }
    } else if (empm__text_same(name, n, "connection", 10)) {
        empm__list_of_value(&list, value);
        while (empm__list_next(&list)) {
            if (empm__text_same(list.item, list.n, "close", 5))
                h->flags |= EMPM__H_CLOSE;
            else if (empm__text_same(list.item, list.n, "keep-alive", 10))
                h->flags |= EMPM__H_KEEP;
        }
    } else if (empm__text_same(name, n, "content-length", 14)) {
        if (h->length >= 0)
            return 400;
        h->length = empm__parse_u63(value, strlen(value));
        if (h->length < 0)
            return 400;
    } else if (empm__text_same(name, n, "transfer-encoding", 17)) {
        return empm__head_parse_coding(h, t, value);
    } else if (empm__text_same(name, n, "expect", 6)) {
        empm__list_of_value(&list, value);
        while (empm__list_next(&list))
            h->flags |= empm__text_same(list.item, list.n, "100-continue", 12)
                            ? (uint32_t)EMPM__H_EXPECT
                            : (uint32_t)EMPM__H_EXPECT_OTHER;
    }
    return 0;
}

/* Reads "name:OWS value OWS" in in[at..end) into *f and ends both strings with
 * a NUL, in place of the colon and of the byte behind the value. It needs
 * nothing of a head. Returns 0 or 400. */
static int empm__head_parse_field(empm__field *f, const empm__chars *t,
                                  char *in, uint32_t at, uint32_t end)
{
    uint32_t colon = at, v;
    while (colon < end && (t->of[(unsigned char)in[colon]] & EMPM__TCHAR))
        colon++;
    if (colon == at || colon == end || in[colon] != ':' ||
        colon - at > 65535)
        return 400;
    v = colon + 1;
    while (v < end && (in[v] == ' ' || in[v] == '\t'))
        v++;
    end = v + (uint32_t)empm__text_trimmed(in + v, end - v);
    if (!empm__chars_all(t, in + v, end - v, EMPM__VCHAR))
        return 400;
    in[colon] = in[end] = '\0';
    f->name = at;
    f->name_len = (uint16_t)(colon - at);
    f->value = v;
    return 0;
}

/* Judges the head as a whole, RFC 9112 3.2 and 6.3: is there a host, and is it
 * certain where the body ends? Returns 0 or a status. */
static int empm__head_judge(const empm__head *h)
{
    if (h->minor > 0 && !(h->flags & EMPM__H_HOST))
        return 400;
    if (h->flags & EMPM__H_TE) {
        if (h->minor == 0 || h->length >= 0 || !(h->flags & EMPM__H_CHUNKED))
            return 400;
        if (h->flags & EMPM__H_TE_ODD)
            return 501;
    }
    return 0;
}

static uint32_t empm__head_fields_limit(const empm_config *cfg)
{
    return cfg->limit_request_fields > 0 ? (uint32_t)cfg->limit_request_fields
                                         : UINT32_MAX;
}

/* Takes the field in in[at..end), a line without its CRLF. HTTP/1 gives line
 * after line; a protocol with another coding can write such lines and give them
 * here, too. Returns 0, a status or EMPM__FULL. */
static int empm__head_add_field(empm__head *h, const empm_config *cfg,
                                const empm__chars *t, char *in, uint32_t at,
                                uint32_t end)
{
    int status;
    if (h->nfields >= empm__head_fields_limit(cfg))
        return 431;
    if (h->nfields == h->max_fields)
        return EMPM__FULL;
    status = empm__head_parse_field(&h->fields[h->nfields], t, in, at, end);
    if (status == 0)
        status = empm__head_parse_known(h, t, in, &h->fields[h->nfields]);
    h->nfields += status == 0;
    return status;
}

/* Takes the line in in[h->line..end), without its CRLF. Returns 0, a status or
 * EMPM__FULL. */
static int empm__head_take_line(empm__head *h, const empm_config *cfg,
                                const empm__chars *t, char *in, uint32_t end)
{
    const int empty = end == h->line;
    int status;
    if (h->phase == EMPM__FIELDS && !empty)
        return empm__head_add_field(h, cfg, t, in, h->line, end);
    if (h->phase == EMPM__FIELDS) {
        h->phase = EMPM__HEAD_DONE;
        return 0;
    }
    if (empty) {                        /* RFC 9112 2.2: some send CRLF first */
        h->start = end + 2;
        return 0;
    }
    status = empm__head_parse_request_line(h, t, in, h->line, end);
    if (status == 0)
        h->phase = EMPM__FIELDS;
    return status;
}

/* Reads the head in in[..end), as far as it has come. Returns 0: it is complete
 * and its body begins at h->line; a status; EMPM__MORE or EMPM__FULL. */
static int empm__head_parse(empm__head *h, const empm_config *cfg,
                            const empm__chars *t, char *in, uint32_t end)
{
    int status, part;
    while (h->phase != EMPM__HEAD_DONE) {
        const int first = h->phase == EMPM__REQUEST_LINE;
        const uint32_t limit = first ? (uint32_t)cfg->limit_request_line
                                     : (uint32_t)cfg->limit_request_field_size;
        const int too_long = first ? 414 : 431;
        const char *lf = (const char *)memchr(in + h->scanned, '\n',
                                              end - h->scanned);
        const uint32_t stop = lf != NULL ? (uint32_t)(lf - in) : end;
        const uint32_t len = stop - h->line;
        /* 1. Not HTTP at all (a TLS hello begins with 0x16): no LF will come */
        if (first && len > 0 && in[h->line] != '\r' &&
            !(t->of[(unsigned char)in[h->line]] & EMPM__TCHAR))
            return 400;
        /* 2. Too long, whether its end has come or not */
        if (len > limit + 1 ||
            stop - h->start >= (uint32_t)cfg->limit_request_head)
            return too_long;
        /* 3. A whole line, or none */
        if (lf == NULL) {
            h->scanned = end;
            return EMPM__MORE;
        }
        if (len == 0 || in[stop - 1] != '\r')
            return 400;                 /* bare LF */
        status = empm__head_take_line(h, cfg, t, in, stop - 1);
        if (status != 0)
            return status;
        h->line = h->scanned = stop + 1;
    }
    status = empm__head_judge(h);
    if (status != 0)
        return status;
    for (part = EMPM__PART_METHOD; part <= EMPM__PART_TARGET; part++)
        in[h->spans[part].at + h->spans[part].len] = '\0';
    return 0;
}

/* ---------------------------------------------------------------------------
 * >>body -- where a body ends, and the chunk grammar
 *
 *   4;name="v"CRLF  d a t a CRLF   0CRLF   Field: vCRLF  CRLF
 *   \_____________/ \_____/ \__/   \___/   \__________/  \__/
 *    SIZE            DATA    END    SIZE    TRAILER
 *
 * A length is hexadecimal digits and nothing else; extensions are checked and
 * ignored; trailers are bounded like fields, and those that would change how
 * the message is read are dropped. A fault is never skipped: 400 and close. The
 * reader sees framing alone: its caller takes the data between, to where it
 * belongs, and without a copy through here.
 *
 * source    RFC 9112 7.1, RFC 9110 6.5.1
 * ------------------------------------------------------------------------- */

#define EMPM__CHUNK_LINE 1024      /* size and extensions, one chunk */
#define EMPM__CHUNK_EXTRA 16384    /* extensions, the whole body */

enum empm__chunk_phase {
    EMPM__CHUNK_SIZE, EMPM__CHUNK_DATA, EMPM__CHUNK_END, EMPM__CHUNK_TRAILER,
    EMPM__CHUNK_DONE
};

typedef struct empm__chunked {
    enum empm__chunk_phase phase;
    uint32_t scanned;              /* of the current line */
    uint32_t extra;                /* bytes of extensions so far */
    uint32_t dropped;              /* trailers that must not be */
    uint64_t left;                 /* of the current chunk's data */
} empm__chunked;

/* The index of the first byte from i on that is no blank: "bad whitespace",
 * which no sender may produce and each recipient must take (RFC 9110 5.6.3). */
static size_t empm__chunk_skip_bws(const char *s, size_t i, size_t n)
{
    while (i < n && (s[i] == ' ' || s[i] == '\t'))
        i++;
    return i;
}

/* Is it as RFC 9112 7.1.1 has it?
 *   *( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] ) */
static int empm__chunk_ext_valid(const empm__chars *t, const char *s, size_t n)
{
    size_t i = 0, from;
    while (i < n) {
        i = empm__chunk_skip_bws(s, i, n);
        if (i == n || s[i] != ';')
            return 0;
        i = from = empm__chunk_skip_bws(s, i + 1, n);
        while (i < n && (t->of[(unsigned char)s[i]] & EMPM__TCHAR))
            i++;
        if (i == from)
            return 0;
        from = empm__chunk_skip_bws(s, i, n);
        if (from == n || s[from] != '=')
            continue;
        i = from = empm__chunk_skip_bws(s, from + 1, n);
        if (i < n && s[i] == '"') {
            for (i++; i < n && s[i] != '"'; i++) {
                if (s[i] == '\\' && ++i == n)
                    return 0;
                if (!(t->of[(unsigned char)s[i]] & EMPM__VCHAR))
                    return 0;
            }
            if (i++ == n)
                return 0;
        } else {
            while (i < n && (t->of[(unsigned char)s[i]] & EMPM__TCHAR))
                i++;
            if (i == from)
                return 0;
        }
    }
    return 1;
}

/* Fields that a trailer must not carry: framing, routing, authentication,
 * content and request modifiers (RFC 9110 6.5.1). A program that merged one
 * into the head would have checked it too late. */
static int empm__chunk_trailer_forbidden(const char *name)
{
    return empm__text_listed(
        "transfer-encoding content-length host connection keep-alive trailer "
        "te upgrade expect max-forwards authorization proxy-authorization "
        "proxy-connection cookie content-type content-encoding content-range "
        "range cache-control pragma if-match if-none-match if-modified-since "
        "if-unmodified-since if-range", name);
}

/* "size [extensions]" in s, n bytes, without CRLF. Returns 0 or 400. */
static int empm__chunk_parse_size(empm__chunked *k, const empm__chars *t,
                                  const char *s, uint32_t n)
{
    uint32_t i = 0;
    int digit;
    k->left = 0;
    for (; i < n && (digit = empm__ascii_hex((unsigned char)s[i])) >= 0; i++) {
        if (k->left >> 59 != 0)
            return 400;
        k->left = k->left * 16 + (unsigned)digit;
    }
    k->extra += n - i;
    if (i == 0 || k->extra > EMPM__CHUNK_EXTRA ||
        !empm__chunk_ext_valid(t, s + i, n - i))
        return 400;
    k->phase = k->left > 0 ? EMPM__CHUNK_DATA : EMPM__CHUNK_TRAILER;
    return 0;
}

/* Takes a trailer field, or drops one that must not be, from in[at..end).
 * Returns 0, a status or EMPM__FULL. */
static int empm__chunk_add_trailer(empm__chunked *k, const empm_config *cfg,
                                   const empm__chars *t, empm__head *trailers,
                                   char *in, uint32_t at, uint32_t end)
{
    empm__field *f;
    if (trailers->nfields + k->dropped >= empm__head_fields_limit(cfg))
        return 431;
    if (trailers->nfields == trailers->max_fields)
        return EMPM__FULL;
    f = &trailers->fields[trailers->nfields];
    if (empm__head_parse_field(f, t, in, at, end) != 0)
        return 400;
    if (empm__chunk_trailer_forbidden(in + f->name))
        k->dropped++;
    else
        trailers->nfields++;
    return 0;
}

/* Reads the framing at in[*at..end) and moves *at over it. Trailer fields go to
 * `trailers`, whose offsets count from this `in`. Returns 0: the body is
 * complete; EMPM__DATA: k->left bytes of it begin at *at, and the caller takes
 * what is there and lowers k->left; a status; EMPM__MORE or EMPM__FULL. */
static int empm__chunk_parse(empm__chunked *k, const empm_config *cfg,
                             const empm__chars *t, empm__head *trailers,
                             char *in, uint32_t *at, uint32_t end)
{
    while (k->phase != EMPM__CHUNK_DONE) {
        const char *lf;
        const uint32_t from = *at;
        uint32_t stop, len;
        int status = 0;
        if (k->phase == EMPM__CHUNK_DATA) {
            if (k->left > 0)
                return EMPM__DATA;
            k->phase = EMPM__CHUNK_END;
        }
        lf = (const char *)memchr(in + from + k->scanned, '\n',
                                  end - from - k->scanned);
        stop = lf != NULL ? (uint32_t)(lf - in) : end;
        len = stop - from;
        if (k->phase == EMPM__CHUNK_END
                ? len > 1 || (len == 1 && in[from] != '\r')
            : k->phase == EMPM__CHUNK_SIZE
                ? len > EMPM__CHUNK_LINE
                : len > (uint32_t)cfg->limit_request_field_size + 1)
            return k->phase == EMPM__CHUNK_TRAILER ? 431 : 400;
        if (lf == NULL) {
            k->scanned = len;
            return EMPM__MORE;
        }
        if (len == 0 || in[stop - 1] != '\r')
            return 400;
        if (k->phase == EMPM__CHUNK_END)
            k->phase = EMPM__CHUNK_SIZE;
        else if (k->phase == EMPM__CHUNK_SIZE)
            status = empm__chunk_parse_size(k, t, in + from, len - 1);
        else if (len == 1)
            k->phase = EMPM__CHUNK_DONE;
        else
            status = empm__chunk_add_trailer(k, cfg, t, trailers, in, from,
                                             stop - 1);
        if (status != 0)
            return status;
        k->scanned = 0;
        *at = stop + 1;
    }
    return 0;
}

/* ---------------------------------------------------------------------------
 * >>request -- what a handler holds
 *
 * One page: the struct, a first piece of arena, and the rest is the input
 * buffer. The struct begins with the io of its connection, which lasts as long
 * as bytes are on their way in or out and may span several pipelined requests;
 * the rest is the request itself.
 *
 *   +--------+--------------------+------------+---------------------------+
 *   | page   | empm_request       | arena      | in: head, small body, ... |
 *   +--------+--------------------+------------+---------------------------+
 * ------------------------------------------------------------------------- */

enum empm__body_mode {
    EMPM__BODY_NONE, EMPM__BODY_IN_PLACE, EMPM__BODY_MEMORY, EMPM__BODY_SPOOL,
    EMPM__BODY_PIECES, EMPM__BODY_DROP
};

/* How far the response is. Each state allows less than the one before it; only
 * a body that is forgotten leads back, from PROMISED to BEGUN. */
enum empm__answer {
    EMPM__UNANSWERED,             /* the handler has said nothing so far */
    EMPM__BEGUN,                  /* it has said something: it may go on */
    EMPM__PROMISED,               /* a producer or a file will be the body */
    EMPM__COMMITTED,              /* from here: the head is decided */
    EMPM__STREAMING,              /* ... the producer adds */
    EMPM__COMPLETE                /* nothing can be added */
};

/* What becomes of the connection after the answer. It only rises. */
enum empm__ending {
    EMPM__STAYS,
    EMPM__CLOSES,                 /* and the client may have sent more by now */
    EMPM__CLOSES_ASKED,           /* the client sends no more: it has said so */
    EMPM__CLOSES_UNREAD           /* there is input that nobody will read */
};

/* Who has put an end to a request that is refused. */
enum empm__refusal { EMPM__BY_SERVER, EMPM__BY_ON_BODY, EMPM__BY_END_OF_INPUT };

enum empm__framing {              /* where the response's body ends */
    EMPM__UNFRAMED,               /* the head is not decided yet */
    EMPM__BODILESS,               /* HEAD, 204, 304: there is none */
    EMPM__BY_LENGTH, EMPM__BY_CHUNKS,
    EMPM__BY_CLOSE                /* HTTP/1.0: the end of the connection */
};

enum empm__suspension {
    EMPM__SUSP_NONE,
    EMPM__SUSP_ARMED,          /* empm_suspend() was called, the handler runs */
    EMPM__SUSP_WAITING,           /* it has returned EMPM_SUSPENDED: a call of
                                     its function is owed from here */
    EMPM__SUSP_DUE                /* ... and wake_why is the reason */
};

typedef struct empm__defer {
    empm_cleanup       *fn;
    void               *p;
    struct empm__defer *next;
} empm__defer;

typedef struct empm__note {       /* empm_note() */
    struct empm__note *next;
    const char        *name, *value;    /* value NULL: taken away */
} empm__note;

struct empm__value;

/* An answer that waits for its status. 0, or EMPM_E*; it may commit the
 * head. */
typedef int empm__answerer(empm_request *req);

struct empm_request {             /* owner: whoever owns the connection */
    empm__io      io;             /* first: c->io is it, and may span several
                                     requests */
    empm__conn   *c;
    empm__worker *w;              /* the worker that runs it now */

    /* the request: all below is cleared between requests */
    uint32_t      start_ms;      /* of the head or body; EMPM__NEVER: not yet */
    uint32_t      head_out;       /* bytes of the response's head */
    uint64_t      began_us;       /* when its first byte was seen; 0: not yet */
    int64_t       sent_before, got_before;  /* the flight's, for earlier ones */
    uint32_t      last_byte_ms;
    int64_t       received;       /* bytes of the head or body so far */
    uint64_t      head_us;        /* the head was complete; 0: it is not yet */
    char         *arena_at, *arena_end;
    empm__page   *arena_pages, *arena_big;
    empm__defer  *defers;
    char         *text;           /* what head's offsets count from: `in` when
                                     the head was complete, and it stays */
    empm__head    head;
    empm__head    trailers;
    empm__route  *route;
    char         *path_text;      /* as empm_path() gives it */
    struct empm__value *values;   /* decoded and copied so far */
    void         *data;           /* the user's, empm_set_data() */
    struct empm__note *notes;     /* the latest first */
    char         *peer, *client;
    empm__peer    client_is;      /* once asked for with the head complete */
    uint32_t      deadline_ms;    /* the route's, for empm_should_stop() */
    /* its body */
    enum empm__body_mode body_mode;
    int           body_open;      /* not all of it has been read */
    enum empm__refusal refusal;
    int           counted;        /* in route->requests */
    int64_t       body_left;      /* of Content-Length */
    int64_t       body_limit;
    empm__chunked chunked;
    char         *body;
    int64_t       body_len;       /* what has arrived */
    size_t        body_cap;       /* in memory, with the NUL */
    int64_t       body_reserved;  /* of pool.body_memory */
    empm__page   *body_page;
    char         *body_big;
    int           body_fd;
    int64_t       body_spooled;   /* of pool.spool */
    char         *body_nul;       /* where a byte was replaced by NUL */
    char          body_saved;
    /* the response */
    enum empm__answer answer;
    int           status;
    enum empm__ending ending;
    int           failed;         /* EMPM_E*: abort instead of finishing */
    enum empm__framing framing;   /* empm__response_commit decides */
    int           head_only;      /* the method is HEAD */
    int64_t       declared;       /* Content-Length, or -1 */
    int64_t       written;        /* body bytes accepted so far */
    char         *fields;         /* "Name: value\r\n"... of the response */
    uint32_t      fields_len, fields_cap;
    int           has_type;
    empm__page   *body_out, *body_out_last; /* not yet framed */
    size_t        body_out_bytes;
    empm_producer *producer;
    void         *producer_user;
    empm__answerer *source;       /* makes the answer once its status is known:
                                     of `file` */
    empm__file   *file;
    /* a suspension */
    empm_wake    *wake;
    void         *wake_user;
    uint32_t      wake_deadline;
    enum empm__suspension suspension;
    int           wake_why;       /* enum empm_why; 0: none yet */
    int           told_half;      /* HALF_CLOSED has been reported */

    /* not cleared */
    empm__path    path;
    empm__field   inline_fields[EMPM__INLINE_FIELDS];
};

#define EMPM__ARENA 1024
#define EMPM__HEAD_ROOM 640       /* kept free before a body, for the head */
#define EMPM__CHUNK_ROOM 16       /* ... for a chunk's size */
#define EMPM__TAIL_ROOM 8         /* ... for CRLF, or CRLF 0 CRLF CRLF */
#define EMPM__FILE_SMALL (EMPM__PAGE_ROOM - EMPM__HEAD_ROOM - EMPM__TAIL_ROOM)

EMPM__ASSERT_STATIC(sizeof(empm_request) + EMPM__ARENA + 512 <=
                    EMPM_PAGE_BYTES - sizeof(empm__page),
                    a_page_is_too_small_for_a_request);

/* Makes the struct a request that has not begun. The io stays. */
static void empm__request_clear(empm_request *req)
{
    char *arena = (char *)(req + 1) + (16 - sizeof *req % 16) % 16;
    memset(&req->start_ms, 0, offsetof(empm_request, path) -
                                  offsetof(empm_request, start_ms));
    req->arena_at = arena;
    req->arena_end = (char *)(req + 1) + EMPM__ARENA;
    req->body_fd = -1;
    req->declared = -1;
    req->status = 200;
    req->sent_before = req->io.sent + req->io.out_left;
    req->got_before = req->io.got -
                      (int64_t)(req->io.in_end - req->io.in_start);
    empm__head_init(&req->head, req->inline_fields, EMPM__INLINE_FIELDS,
                    req->io.in_start);
}

/* The request of a connection whose protocol is HTTP; NULL: it is idle. */
static empm_request *empm__request_of(const empm__conn *c)
{
    return (empm_request *)(void *)c->io;
}

/* May status and fields of the answer still change? */
static int empm__request_head_is_open(const empm_request *req)
{
    return req->answer < EMPM__COMMITTED;
}

/* The handler has said something of its answer. */
static void empm__request_answered(empm_request *req, enum empm__answer to)
{
    if (req->answer < to)
        req->answer = to;
}

/* May the handler still add to the body? */
static int empm__request_may_add(const empm_request *req)
{
    return req->answer < EMPM__PROMISED || req->answer == EMPM__COMMITTED;
}

/* The connection closes after this answer, at least as `how`. */
static void empm__request_closes(empm_request *req, enum empm__ending how)
{
    if (req->ending < how)
        req->ending = how;
}

/* Borrows a page and makes it the connection's request; NULL: no memory. */
static empm_request *empm__request_borrow(empm__worker *w, empm__conn *c)
{
    empm__page *p = empm__page_borrow(w);
    empm_request *req;
    if (p == NULL)
        return NULL;
    req = (empm_request *)(void *)(p + 1);
    memset(&req->io, 0, sizeof req->io);
    req->w = w;
    req->c = c;
    req->io.in = (char *)(req + 1) + EMPM__ARENA;
    req->io.in_cap = (uint32_t)((char *)p + EMPM_PAGE_BYTES - req->io.in);
    req->io.spool_fd = -1;
    empm__request_clear(req);
    c->io = &req->io;
    return req;
}

/* Gives back the memory that a body was in. */
static void empm__request_body_forget(empm__worker *w, empm_request *req)
{
    empm__budget_release(&w->engine->pool.body_memory, req->body_reserved);
    empm__page_return(w, req->body_page);
    EMPM_FREE(req->body_big);
    req->body_reserved = 0;
    req->body_page = NULL;
    req->body_big = NULL;
}

/* Forgets the file that was to be the answer. */
static void empm__request_file_drop(empm_request *req)
{
    empm__file_unref(req->file);
    req->file = NULL;
    req->source = NULL;
}

/* No function of the user's will see this request again: the cleanups run, and
 * its body goes, even if a slow client still takes the answer. */
static void empm__request_release(empm_request *req)
{
    empm__pool *pool = &req->w->engine->pool;
    while (req->defers != NULL) {
        empm__defer *d = req->defers;
        req->defers = d->next;
        d->fn(d->p);
    }
    if (req->body_nul != NULL)
        *req->body_nul = req->body_saved;
    if (req->body_fd >= 0) {
        if (req->body_mode == EMPM__BODY_SPOOL && req->body != NULL)
            munmap(req->body, (size_t)req->body_len + 1);
        close(req->body_fd);
        empm__pool_fd_release(pool, EMPM__FOR_BODIES);
    }
    empm__budget_release(&pool->spool[EMPM__FOR_BODIES], req->body_spooled);
    empm__request_body_forget(req->w, req);
    req->body = req->body_nul = NULL;
    req->body_fd = -1;
    req->body_spooled = 0;
}

/* Ends the request: its memory goes back. The flight (input that follows,
 * output under way) stays. */
static void empm__request_end(empm_request *req)
{
    empm__worker *w = req->w;
    empm__request_release(req);
    empm__request_file_drop(req);
    if (req->counted)
        __atomic_sub_fetch(&req->route->requests, 1u, __ATOMIC_RELAXED);
    empm__pages_return(w, req->body_out);
    empm__pages_return(w, req->arena_pages);
    empm__pages_free(req->arena_big);
    if (!empm__request_head_is_open(req)) {
        const uint64_t took = req->head_us != 0 ? w->turn_us - req->head_us : 0;
        empm__bump(&w->score->accesses, 1u);
        empm__bump(&w->score->duration_us, took);
        empm__store(&w->score->took_us,
                    took < UINT32_MAX ? (uint32_t)took : UINT32_MAX);
        req->c->requests++;
    }
}

/* Gives back everything; c->io is NULL afterwards. */
static void empm__request_flight_end(empm__worker *w, empm__conn *c)
{
    empm_request *req = empm__request_of(c);
    if (req == NULL)
        return;
    req->w = w;
    if (req->answer != EMPM__COMPLETE && !req->failed)
        req->failed = EMPM_ECLOSED;  /* a cleanup that writes reaches nobody */
    empm__request_end(req);
    empm__io_end(w, &req->io);
    c->io = NULL;
    empm__page_return(w, (empm__page *)(void *)req - 1);
}

/* On to the next request of the flight. */
static void empm__request_next(empm_request *req)
{
    empm__request_end(req);
    empm__request_clear(req);
}

/* ---------------------------------------------------------------------------
 * >>request-memory -- what lives as long as a request
 *
 * Memory is cut from pages of the request and goes back with them at its end,
 * so that nothing of it has to be freed alone, and most requests need no page
 * beside their own. A piece of more than half a page is allocated by itself.
 * Fields and input grow here, and nothing moves that the user may point to.
 * ------------------------------------------------------------------------- */

EMPM_API void *empm_alloc(empm_request *req, size_t n)
{
    empm__page *p;
    if (n > SIZE_MAX / 2)
        return NULL;
    n = (n + 15) & ~(size_t)15;
    if (n <= (size_t)(req->arena_end - req->arena_at)) {
        void *at = req->arena_at;
        req->arena_at += n;
        return at;
    }
    if (n > EMPM__PAGE_ROOM / 2) {         /* a block of its own */
        p = (empm__page *)empm__worker_memory(req->w, NULL, sizeof *p + n);
        if (p == NULL)
            return NULL;
        p->next = req->arena_big;
        req->arena_big = p;
        return p + 1;
    }
    if ((p = empm__page_borrow(req->w)) == NULL)
        return NULL;
    p->next = req->arena_pages;
    req->arena_pages = p;
    req->arena_at = (char *)(p + 1) + n;
    req->arena_end = (char *)p + EMPM_PAGE_BYTES;
    return p + 1;
}

EMPM_API int empm_defer(empm_request *req, empm_cleanup *fn, void *p)
{
    empm__defer *d;
    if (fn == NULL)
        return EMPM_EINVAL;
    if ((d = (empm__defer *)empm_alloc(req, sizeof *d)) == NULL)
        return EMPM_ENOMEM;
    d->fn = fn;
    d->p = p;
    d->next = req->defers;
    req->defers = d;
    return EMPM_OK;
}

/* A copy of n bytes, with a NUL, that lives as long as the request; NULL: there
 * is no memory. */
static char *empm__request_strndup(empm_request *req, const char *s, size_t n)
{
    char *to = (char *)empm_alloc(req, n + 1);
    if (to != NULL) {
        memcpy(to, s, n);
        to[n] = '\0';
    }
    return to;
}

/* Answers EMPM__FULL: twice as many fields, in the arena. Returns 0, or 503:
 * there is no memory. */
static int empm__request_fields_grow(empm_request *req, empm__head *h)
{
    const uint32_t max = h->max_fields ? h->max_fields * 2 : 8;
    empm__field *f = (empm__field *)empm_alloc(req, max * sizeof *f);
    if (f == NULL)
        return 503;
    if (h->nfields > 0)
        memcpy(f, h->fields, h->nfields * sizeof *f);
    h->fields = f;
    h->max_fields = max;
    return 0;
}

/* Reads what has come of the head. As empm__head_parse(), but never FULL. */
static int empm__request_head_parse(empm_request *req)
{
    const empm__worker *w = req->w;
    int r;
    if (req->io.in_end == req->io.in_start)
        return EMPM__MORE;
    do
        r = empm__head_parse(&req->head, w->cfg, &w->s->chars, req->io.in,
                             req->io.in_end);
    while (r == EMPM__FULL &&
           (r = empm__request_fields_grow(req, &req->head)) == 0);
    return r;
}

/* Reads the framing of a body in chunks, as empm__chunk_parse(), but never
 * FULL. */
static int empm__request_chunk_parse(empm_request *req)
{
    const empm__worker *w = req->w;
    int r;
    do
        r = empm__chunk_parse(&req->chunked, w->cfg, &w->s->chars,
                              &req->trailers, req->io.in, &req->io.in_start,
                              req->io.in_end);
    while (r == EMPM__FULL &&
           (r = empm__request_fields_grow(req, &req->trailers)) == 0);
    return r;
}

/* Moves a head that is not complete yet to the front of `in`, over the requests
 * before it that have been answered. Its offsets move along. */
static void empm__request_in_shift(empm_request *req)
{
    empm__head *h = &req->head;
    const uint32_t by = req->io.in_start;
    uint32_t i;
    memmove(req->io.in, req->io.in + by, req->io.in_end - by);
    req->io.in_start = 0;
    req->io.in_end -= by;
    h->line -= by;
    h->scanned -= by;
    h->start -= by;
    for (i = 0; i < EMPM__PARTS; i++)
        if (h->spans[i].at >= by)    /* else it is not known yet */
            h->spans[i].at -= by;
    for (i = 0; i < h->nfields; i++) {
        h->fields[i].name -= by;
        h->fields[i].value -= by;
    }
}

/* Makes room for more input: twice as much, at most `most` bytes. All
 * positions are offsets, so `in` may move; but once the head is complete the
 * user may hold pointers into it, and then the old one stays until the
 * request's end. Returns 0, or 431: it would be more than `most`; or 503:
 * there is no memory. */
static int empm__request_in_room(empm_request *req, uint32_t most)
{
    const uint32_t cap = req->io.in_cap < most / 2 ? req->io.in_cap * 2 : most;
    empm__page *big, *old = req->io.in_big;
    if (req->io.in_end < req->io.in_cap)
        return 0;
    if (req->io.in_cap >= most)
        return 431;
    big = (empm__page *)empm__worker_memory(req->w, NULL, sizeof *big + cap);
    if (big == NULL)
        return 503;
    memcpy(big + 1, req->io.in, req->io.in_end);
    if (old != NULL && req->text == NULL)
        EMPM_FREE(old);
    else if (old != NULL) {
        old->next = req->arena_big;
        req->arena_big = old;
    }
    req->io.in = (char *)(big + 1);
    req->io.in_cap = cap;
    req->io.in_big = big;
    return 0;
}

/* ---------------------------------------------------------------------------
 * >>values -- what the client has sent, by name
 *
 * A value is found when it is asked for, decoded into memory of the request,
 * and remembered, so that asking again costs a look and gives the same pointer.
 * Nothing is allocated for names that are not asked for.
 * ------------------------------------------------------------------------- */

/* A part of a complete head. Method, target and query end with a NUL; the query
 * ends where the target does. */
static const char *empm__request_part(const empm_request *req,
                                      enum empm__part part)
{
    return req->text + req->head.spans[part].at;
}

EMPM_API const char *empm_method(const empm_request *req)
{
    return empm__request_part(req, EMPM__PART_METHOD);
}

EMPM_API const char *empm_target(const empm_request *req)
{
    return empm__request_part(req, EMPM__PART_TARGET);
}

EMPM_API const char *empm_path(const empm_request *req)
{
    return req->path_text;
}

EMPM_API const char *empm_query_string(const empm_request *req)
{
    return empm__request_part(req, EMPM__PART_QUERY);
}

EMPM_API int empm_minor_version(const empm_request *req)
{
    return req->head.minor;
}

/* empm_path() for a log line, cut to n bytes: bytes that a terminal would obey
 * or not show are escaped. Returns `to`. */
static const char *empm__request_path_shown(const empm_request *req, char *to,
                                            size_t n)
{
    const char *s = req->path_text != NULL ? req->path_text : "-";
    size_t k = 0;
    for (; *s != '\0' && k + 5 < n; s++)
        if ((unsigned char)*s < 127)
            to[k++] = *s;
        else
            k += (size_t)snprintf(to + k, n - k, "\\x%02x", (unsigned char)*s);
    to[k] = '\0';
    return to;
}

/* Returns the value of the first field of that name, NULL: there is none. */
static const char *empm__request_field_find(const char *text,
                                            const empm__head *h,
                                            const char *name)
{
    const uint32_t i = empm__head_find(h, text, name, strlen(name), 0);
    return i < h->nfields ? text + h->fields[i].value : NULL;
}

EMPM_API const char *empm_header(const empm_request *req, const char *name)
{
    return empm__request_field_find(req->text, &req->head, name);
}

/* Trailers stand in `in`, behind the chunks: there they are complete when the
 * body is. */
EMPM_API const char *empm_trailer(const empm_request *req, const char *name)
{
    return req->body_open ? NULL
                          : empm__request_field_find(req->io.in, &req->trailers,
                                                     name);
}

EMPM_API int empm_header_at(const empm_request *req, int i, const char **name,
                            const char **value)
{
    if (i < 0 || (uint32_t)i >= req->head.nfields)
        return EMPM_EINVAL;
    *name = req->text + req->head.fields[i].name;
    *value = req->text + req->head.fields[i].value;
    return EMPM_OK;
}

/* A value that has been asked for. It is made once, since a request may last
 * for days and ask at every turn: memory would grow with each. */
struct empm__value {
    struct empm__value *next;
    const char         *from;      /* where it stands as it was sent */
    int                 how;       /* enum empm__how */
    char               *text;      /* NULL: it cannot be decoded */
};

enum empm__how { EMPM__AS_SENT, EMPM__DECODED, EMPM__REST };

/* Returns the n bytes at `from`, with a NUL, in the way of `how`: a copy
 * that was made for an earlier call, or a new one. NULL: no memory, or a bad
 * escape. */
static char *empm__request_value(empm_request *req, const char *from, size_t n,
                                 enum empm__how how)
{
    struct empm__value *v = req->values;
    size_t i, k = 0;
    for (; v != NULL; v = v->next)
        if (v->from == from && v->how == (int)how)
            return v->text;
    v = (struct empm__value *)empm_alloc(req, sizeof *v + n + 1);
    if (v == NULL)
        return NULL;
    v->next = req->values;
    v->from = from;
    v->how = (int)how;
    v->text = (char *)(v + 1);
    req->values = v;
    if (how == EMPM__REST) {       /* escapes are sound; "%2f" and "%25" stay */
        for (i = 0; i < n; i++) {
            const int code = from[i] != '%' ? -1
                                            : empm__text_unhex(from + i + 1);
            if (code < 0 || code == '/' || code == '%')
                v->text[k++] = from[i];
            else {
                v->text[k++] = (char)code;
                i += 2;
            }
        }
        v->text[k] = '\0';
    } else if (how == EMPM__AS_SENT) {
        memcpy(v->text, from, n);
        v->text[n] = '\0';
    } else if (empm__text_decode(v->text, from, n, 1) < 0)
        v->text = NULL;
    return v->text;
}

EMPM_API const char *empm_path_value(const empm_request *req, const char *name)
{
    const empm__route *r = req->route;
    const size_t n = strlen(name);
    const char *raw;
    int i;
    for (i = 0; r != NULL && i < r->nsegs; i++) {
        const empm__seg *seg = &r->segs[i];
        if (seg->kind == EMPM__SEG_TEXT || seg->len != n ||
            memcmp(seg->text, name, n) != 0)
            continue;
        if (seg->kind == EMPM__SEG_ONE)
            return req->path.seg[i];
        /* the request is ours to allocate from, const or not */
        raw = req->path_text + req->path.raw[i];
        return empm__request_value(empm__request_of(req->c), raw, strlen(raw),
                                   EMPM__REST);
    }
    return NULL;
}

EMPM_API const char *empm_host(empm_request *req)
{
    const char *host = empm__request_part(req, EMPM__PART_HOST);
    const uint32_t n = req->head.spans[EMPM__PART_HOST].len;
    if (n == 0)
        return "";
    return req->head.flags & EMPM__H_ABSOLUTE
               ? empm__request_value(req, host, n, EMPM__AS_SENT) : host;
}

/* Is `key` of n bytes, decoded, the same as name? They are compared byte by
 * byte on the way: keys that are not asked for cost no memory. */
static int empm__request_key_is(const char *key, size_t n, const char *name)
{
    size_t i;
    for (i = 0; i < n; i++, name++) {
        char ch = key[i] == '+' ? ' ' : key[i];
        if (empm__text_is_escape(key + i, n - i)) {
            ch = (char)empm__text_unhex(key + i + 1);
            i += 2;
        }
        if (*name == '\0' || *name != ch)
            return 0;
    }
    return *name == '\0';
}

/* Returns the first value of `name` in "name=value&name=value", len bytes; ""
 * if it has none; NULL: it is not there, or as empm__request_value(). */
static const char *empm__request_pair_find(empm_request *req, const char *s,
                                           size_t len,
                                           const char *name, enum empm__how how)
{
    const char *end = s + len;
    while (s < end) {
        const char *amp = (const char *)memchr(s, '&', (size_t)(end - s));
        const char *stop = amp != NULL ? amp : end;
        const char *eq = (const char *)memchr(s, '=', (size_t)(stop - s));
        const char *key_end = eq != NULL ? eq : stop;
        if (empm__request_key_is(s, (size_t)(key_end - s), name)) {
            const char *from = eq != NULL ? eq + 1 : stop;
            return from == stop ? "" : empm__request_value(req, from,
                                                           (size_t)(stop -
                                                                    from), how);
        }
        s = amp != NULL ? amp + 1 : end;
    }
    return NULL;
}

EMPM_API const char *empm_query(empm_request *req, const char *name)
{
    const char *q = empm_query_string(req);
    return empm__request_pair_find(req, q, strlen(q), name, EMPM__DECODED);
}

EMPM_API const char *empm_query_raw(empm_request *req, const char *name)
{
    const char *q = empm_query_string(req);
    return empm__request_pair_find(req, q, strlen(q), name, EMPM__AS_SENT);
}

/* A form is read in the coding of queries; multipart/form-data is not. */
static const char *empm__request_form_find(empm_request *req, const char *name,
                                           enum empm__how how)
{
    static const char type[] = "application/x-www-form-urlencoded";
    const char *ct = empm_header(req, "Content-Type");
    if (ct == NULL || req->body == NULL ||
        !empm__text_same(ct, strcspn(ct, "; \t"), type, sizeof type - 1))
        return NULL;
    return empm__request_pair_find(req, req->body, (size_t)req->body_len, name,
                                   how);
}

EMPM_API const char *empm_form(empm_request *req, const char *name)
{
    return empm__request_form_find(req, name, EMPM__DECODED);
}

EMPM_API const char *empm_form_raw(empm_request *req, const char *name)
{
    return empm__request_form_find(req, name, EMPM__AS_SENT);
}

EMPM_API const char *empm_cookie(empm_request *req, const char *name)
{
    const empm__head *h = &req->head;
    const size_t n = strlen(name);
    uint32_t i = 0;
    for (; (i = empm__head_find(h, req->text, "cookie", 6, i)) < h->nfields;
         i++) {
        const char *s = req->text + h->fields[i].value;
        /* RFC 6265 4.2.1: name=value; name=value. Quotes are no part of it */
        while (*s != '\0') {
            size_t len = strcspn(s, ";");
            if (len > n && s[n] == '=' && memcmp(s, name, n) == 0) {
                s += n + 1;
                len = empm__text_trimmed(s, len - (n + 1));
                if (len > 1 && s[0] == '"' && s[len - 1] == '"') {
                    s++;
                    len -= 2;
                }
                return empm__request_value(req, s, len, EMPM__AS_SENT);
            }
            s += len + (s[len] == ';');
            s += strspn(s, " \t");
        }
    }
    return NULL;
}

EMPM_API char *empm_body(empm_request *req, size_t *len)
{
    static char empty[1];          /* never written: it has no bytes */
    if (len != NULL)
        *len = req->body != NULL ? (size_t)req->body_len : 0;
    return req->body != NULL ? req->body : empty;
}

/* ---------------------------------------------------------------------------
 * >>notes -- the client of a request, and what is noted of it
 *
 * The peer is the other end of the connection: the kernel is asked for it once,
 * and only if something needs it. The client is the peer, or the address that a
 * trusted proxy has named; log lines, the scoreboard and empm_client() show it.
 * A note is a pair of strings that a handler leaves for the access log.
 * ------------------------------------------------------------------------- */

/* Returns the peer of the connection, which has its place beside the record.
 * The kernel forgets it with a reset, and then its family is UNKNOWN for
 * good. */
static const empm__peer *empm__request_peer(empm_request *req)
{
    empm__peer *p = empm__slab_peer(&req->w->engine->slab, req->w->index);
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    if (p->family != EMPM__PEER_UNASKED)
        return p;
    memset(&a, 0, sizeof a);
    if (getpeername(req->c->fd, (struct sockaddr *)&a, &n) == 0)
        empm__peer_from(p, &a);
    else
        empm__peer_set(p, EMPM__PEER_UNKNOWN, NULL, 0);
    return p;
}

EMPM_API const char *empm_peer(empm_request *req)
{
    char text[96];
    if (req->peer == NULL) {
        empm__peer_text(empm__request_peer(req), 1, text, sizeof text);
        req->peer = empm__request_strndup(req, text, strlen(text));
    }
    return req->peer != NULL ? req->peer : "unknown";
}

/* Returns the client: the peer, or the address that a trusted peer speaks for.
 * Before the head is complete it is the peer, as no field is known yet. */
static empm__peer empm__request_client(empm_request *req)
{
    empm__peer p = *empm__request_peer(req);
    if (req->client_is.family != EMPM__PEER_UNASKED)
        return req->client_is;       /* thousands of entries are read once */
    if (req->text != NULL) {
        if (req->w->s->find_client != NULL)
            req->w->s->find_client(req, &p);
        req->client_is = p;
    }
    return p;
}

static void empm__request_log(empm_request *req, enum empm_log_level level,
                              int code, const char *fmt, ...) EMPM__PRINTF(4,
                                                                           5);

static void empm__request_log_v(empm_request *req, enum empm_log_level level,
                                int code, const char *fmt, va_list ap)
    EMPM__PRINTF(4, 0);

/* A message about a request names its client and its worker. */
static void empm__request_log_v(empm_request *req, enum empm_log_level level,
                                int code, const char *fmt, va_list ap)
{
    empm__worker *w = req->w;
    const empm__peer p = empm__request_client(req);
    char client[96];
    empm__peer_text(&p, p.port != 0, client, sizeof client);
    empm__log_v(w->cfg, level, code, (long)w->number, client, fmt, ap);
}

/* A message with a number, which load could repeat: it is limited. */
static void empm__request_log(empm_request *req, enum empm_log_level level,
                              int code, const char *fmt, ...)
{
    empm__worker *w = req->w;
    va_list ap;
    if (!empm__log_wanted(w->cfg, level) ||
        !empm__log_may(w->cfg, w->engine->log_limits, level, code,
                       EMPM__LOG_MOST))
        return;
    va_start(ap, fmt);
    empm__request_log_v(req, level, code, fmt, ap);
    va_end(ap);
}

EMPM_API void empm_log(empm_request *req, enum empm_log_level level,
                       const char *fmt, ...)
{
    const empm_config *cfg = req->w->cfg;
    va_list ap;
    if (cfg->log == NULL || (int)level < 0 || (int)level > cfg->log_level)
        return;
    va_start(ap, fmt);
    empm__request_log_v(req, level, 0, fmt, ap);
    va_end(ap);
}

EMPM_API const char *empm_client(empm_request *req)
{
    char text[96];
    if (req->client == NULL) {
        const empm__peer p = empm__request_client(req);
        empm__peer_text(&p, 0, text, sizeof text);
        req->client = empm__request_strndup(req, text, strlen(text));
    }
    return req->client != NULL ? req->client : "unknown";
}

/* Shows in the scoreboard what this worker works for: request line, host and
 * client of a complete head. */
static void empm__request_score(empm__worker *w, empm_request *req)
{
    empm__score_worker *sc = w->score;
    const empm__span *part = req->head.spans;
    empm__peer client;
    if (!w->cfg->extended_status)
        return;
    client = empm__request_client(req);
    empm__store(&sc->of_connection, req->c->requests + 1);
    empm__score_store_text(sc->request, sizeof sc->request,
                           empm_method(req),
                           empm__min(part[EMPM__PART_METHOD].len + 1 +
                                     part[EMPM__PART_TARGET].len + 9,
                                     EMPM__SCORE_REQUEST - 1));
    empm__score_store_text(sc->host, sizeof sc->host,
                           empm__request_part(req, EMPM__PART_HOST),
                           empm__min(part[EMPM__PART_HOST].len,
                                     EMPM__SCORE_HOST - 1));
    empm__score_store_text(sc->client, sizeof sc->client, &client,
                           sizeof client);
}

/* A call on the socket has failed. That the client or the network is gone is no
 * news; anything else is this system's trouble. Leaves errno as it is. */
static void empm__request_lost(empm__worker *w, empm__conn *c,
                               const char *call)
{
    const int why = errno;
    switch (why) {
    case ECONNABORTED: case ECONNRESET: case EHOSTDOWN: case EHOSTUNREACH:
    case ENETDOWN: case ENETUNREACH: case ENOTCONN: case EPIPE: case ETIMEDOUT:
        return;
    default:
        break;
    }
    if (c->io != NULL)
        empm__request_log(empm__request_of(c), EMPM_LOG_ERROR, 5017, "%s: %s: "
                          "the connection is closed", call, strerror(why));
    else
        empm__worker_log(w, EMPM_LOG_ERROR, 5017, "%s: %s: the connection is "
                         "closed", call, strerror(why));
    errno = why;
}

EMPM_API int empm_note(empm_request *req, const char *name, const char *value)
{
    empm__note *note = (empm__note *)empm_alloc(req, sizeof *note);
    if (note == NULL)
        return EMPM_ENOMEM;
    note->name = empm__request_strndup(req, name, strlen(name));
    note->value = value == NULL ? NULL
                                : empm__request_strndup(req, value,
                                                        strlen(value));
    if (note->name == NULL || (value != NULL && note->value == NULL))
        return EMPM_ENOMEM;
    note->next = req->notes;
    req->notes = note;
    return EMPM_OK;
}

/* Returns the value of the latest note of that name; NULL: there is none, or it
 * has been taken away. */
EMPM__OPTIONAL
static const char *empm__request_note(const empm_request *req, const char *name)
{
    const empm__note *note = req->notes;
    while (note != NULL && strcmp(note->name, name) != 0)
        note = note->next;
    return note != NULL ? note->value : NULL;
}

/* Writes the line of a request that is over into the access logs. `aborted`:
 * its answer did not reach its end. */
static void empm__request_log_line(empm_request *req, int aborted)
{
    if (req->w->s->log_request != NULL)
        req->w->s->log_request(req, aborted);
}

EMPM_API void empm_set_data(empm_request *req, void *data)
{
    req->data = data;
}

EMPM_API void *empm_data(const empm_request *req)
{
    return req->data;
}

EMPM_API void *empm_thread_data(const empm_request *req)
{
    return req->w->thread_data;
}

EMPM_API empm_server *empm_server_of(const empm_request *req)
{
    return req->w->s;
}

EMPM_API int empm_should_stop(const empm_request *req)
{
    uint32_t word = empm__load(&req->c->word);
    int bits = 0;
#if !EMPM__EPOLL
    struct pollfd p;               /* nobody watches a connection that runs */
    p.fd = req->c->fd;
    p.events = EMPM__POLLRDHUP;
    p.revents = 0;
    if (poll(&p, 1, 0) > 0)
        word |= (p.revents & EMPM__POLLRDHUP ? (uint32_t)EMPM__READY_RDHUP
                                             : 0u) |
                (p.revents & (POLLHUP | POLLERR) ? (uint32_t)EMPM__READY_HUP
                                                 : 0u);
#endif
    if (word & EMPM__READY_RDHUP)
        bits |= EMPM_STOP_HALF_CLOSED;
    if (word & EMPM__READY_HUP)
        bits |= EMPM_STOP_GONE;
    if (req->deadline_ms != EMPM__NEVER &&
        empm__time_until(req->deadline_ms, empm__now_ms()) <= 0)
        bits |= EMPM_STOP_DEADLINE;
    if (empm__load(&req->w->engine->stopping) & EMPM__ORDER_STOP)
        bits |= EMPM_STOP_STOPPING;
    return bits;
}

/* ---------------------------------------------------------------------------
 * >>protocol -- what differs between protocols
 *
 * A protocol is a table: a step for each state that its connections can be in,
 * what becomes of a connection that cannot go on, and how an answer looks on
 * the wire. The rest, from routes to the access log, knows requests only.
 * ------------------------------------------------------------------------- */

/* What a step leaves for the release: what to wait for, and until when. */
typedef struct empm__wait {
    uint32_t want;                 /* WANT bits, IDLE, KEEP */
    uint32_t deadline_ms;
    int      turn_over;            /* not waiting: others first */
} empm__wait;

typedef enum empm__state empm__step(empm__worker *w, empm__conn *c,
                                    empm__wait *wait);

/* taken    a worker has taken a record that has an io
 * cut      the state of a connection that cannot go on, whatever has failed:
 *          CLOSED, if nobody has to be told first
 * retire   gives back all that the record holds of the protocol's
 * head     writes a head, at most EMPM_PAGE_BYTES; `length` -1: it is not known
 * piece    frames a page of a body whose length was not known; it has
 *          EMPM__CHUNK_ROOM before its bytes and EMPM__TAIL_ROOM behind them
 * end      ends such a body. EMPM_OK, or EMPM_E* */
typedef struct empm__protocol {
    const char       *name;        /* as in ALPN, RFC 7301 */
    empm__step       *step[EMPM__STATES];    /* NULL: no state of it */
    void            (*taken)(empm__worker *w, empm__conn *c);
    enum empm__state (*cut)(empm__conn *c);
    void            (*retire)(empm__worker *w, empm__conn *c);
    size_t          (*head)(empm_request *req, char *to, int64_t length);
    void            (*piece)(empm__page *p);
    int             (*end)(empm_request *req);
} empm__protocol;

/* The protocol of a record; its table stands behind the steps that it names. */
static const empm__protocol *empm__protocol_of(const empm__conn *c);

/* ---------------------------------------------------------------------------
 * >>response -- from a handler's words to bytes in order
 *
 * A body gathers in pages until its length is known or EMPM_RESPONSE_BUFFER is
 * exceeded; then empm__response_commit() decides, once, the head and where the
 * body ends, and framed pages go to `out`: the queue that the socket empties,
 * in order (>>io).
 *
 *     body_out --commit--> head, framed pages --> io.out --flush--> socket
 * ------------------------------------------------------------------------- */

EMPM_API const char *empm_scheme(const empm_request *req)
{
    return empm__transport_of(req->c)->scheme;
}

/* Logs what is wrong with an answer, with its request. */
static void empm__response_complain(empm_request *req, const char *what)
{
    char path[208];
    empm__request_log(req, EMPM_LOG_ERROR, 5002, "%s %s: %s",
                      req->path_text != NULL ? empm_method(req) : "-",
                      empm__request_path_shown(req, path, sizeof path), what);
}

/* The same; EMPM_ESYS: errno has the reason. */
static void empm__response_complain_why(empm_request *req, int error,
                                        const char *what)
{
    char text[200];
    if (error == EMPM_ESYS) {
        snprintf(text, sizeof text, "%s: %s", what, strerror(errno));
        what = text;
    }
    empm__response_complain(req, what);
}

/* The response cannot be finished: remember why, say it once. */
static void empm__response_fail(empm_request *req, int error, const char *why)
{
    if (req->failed)
        return;
    req->failed = error;
    if (error != EMPM_ECLOSED)
        empm__response_complain_why(req, error, why);
}

/* What has been written finds no room, in memory or in the overflow. */
static void empm__response_fail_room(empm_request *req, int error)
{
    empm__response_fail(req, error,
                        error == EMPM_EFULL ? "LimitResponseSpool, "
                        "MaxSpoolBytes or "
                                              "MaxOpenFiles is reached"
                        : error == EMPM_ESYS ? "SpoolDirectory, which the "
                        "answer overflows "
                                               "to"
                                             : "no memory for the response");
}

/* Sends what is ready, and notes why it cannot be. */
static enum empm__flushed empm__response_flush(empm_request *req)
{
    empm__io *io = &req->io;
    const enum empm__flushed r = empm__io_flush(req->w, req->c, io);
    if (r == EMPM__CUT && io->fault != 0)
        empm__response_fail(req, io->fault, io->fault_text);
    else if (r == EMPM__CUT)
        empm__request_lost(req->w, req->c, "send");
    return r;
}

/* Passes one framed page on. Where the overflow is full, the socket is tried:
 * it may have room by now. */
static int empm__response_emit(empm_request *req, empm__page *p)
{
    int r = empm__io_put(req->w, &req->io, p);
    if (r == EMPM_EFULL)
        r = empm__response_flush(req) == EMPM__CUT
                ? EMPM_ECLOSED : empm__io_put(req->w, &req->io, p);
    if (r != EMPM_OK)
        empm__page_return(req->w, p);
    return r;
}

/* Frames the pages that have gathered and passes them on. The one way from
 * body_out to out: an answer that has no body loses them here. */
static int empm__response_emit_body(empm_request *req)
{
    int r = EMPM_OK;
    while (req->body_out != NULL && r == EMPM_OK) {
        empm__page *p = req->body_out;
        req->body_out = p->next;
        if (p->start == p->end || req->framing == EMPM__BODILESS) {
            empm__page_return(req->w, p);
            continue;
        }
        if (req->framing == EMPM__BY_CHUNKS)
            empm__protocol_of(req->c)->piece(p);
        r = empm__response_emit(req, p);
    }
    if (req->body_out == NULL)
        req->body_out_last = NULL;
    req->body_out_bytes = 0;
    return r;
}

/* ---------------------------------------------------------------------------
 * >>response-head -- status line, fields, and where the body ends
 *
 * The head is decided once: by a length, by chunks, or by the end of the
 * connection (RFC 9112 6.3). Date and Server are made once a second for each
 * worker.
 * ------------------------------------------------------------------------- */

/* The phrase of every status from 200 on that IANA has registered. */
static const char *empm__response_reason(int status)
{
    static const struct { int status; const char *text; } list[] = {
        { 200, "OK" }, { 201, "Created" }, { 202, "Accepted" },
        { 203, "Non-Authoritative Information" }, { 204, "No Content" },
        { 205, "Reset Content" }, { 206, "Partial Content" },
        { 207, "Multi-Status" }, { 208, "Already Reported" },
        { 226, "IM Used" }, { 300, "Multiple Choices" },
        { 301, "Moved Permanently" }, { 302, "Found" }, { 303, "See Other" },
        { 304, "Not Modified" }, { 305, "Use Proxy" },
        { 307, "Temporary Redirect" }, { 308, "Permanent Redirect" },
        { 400, "Bad Request" }, { 401, "Unauthorized" },
        { 402, "Payment Required" }, { 403, "Forbidden" },
        { 404, "Not Found" }, { 405, "Method Not Allowed" },
        { 406, "Not Acceptable" }, { 407, "Proxy Authentication Required" },
        { 408, "Request Timeout" }, { 409, "Conflict" }, { 410, "Gone" },
        { 411, "Length Required" }, { 412, "Precondition Failed" },
        { 413, "Content Too Large" }, { 414, "URI Too Long" },
        { 415, "Unsupported Media Type" }, { 416, "Range Not Satisfiable" },
        { 417, "Expectation Failed" }, { 421, "Misdirected Request" },
        { 422, "Unprocessable Content" }, { 423, "Locked" },
        { 424, "Failed Dependency" }, { 425, "Too Early" },
        { 426, "Upgrade Required" }, { 428, "Precondition Required" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 451, "Unavailable For Legal Reasons" },
        { 500, "Internal Server Error" }, { 501, "Not Implemented" },
        { 502, "Bad Gateway" }, { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" }, { 505, "HTTP Version Not Supported" },
        { 506, "Variant Also Negotiates" }, { 507, "Insufficient Storage" },
        { 508, "Loop Detected" }, { 510, "Not Extended" },
        { 511, "Network Authentication Required" }
    };
    size_t i;
    for (i = 0; i < EMPM__COUNT(list); i++)
        if (list[i].status == status)
            return list[i].text;
    return status < 300 ? "Success" : status < 400 ? "Redirection"
         : status < 500 ? "Client Error" : "Server Error";
}

/* "Date: ...\r\nServer: ...\r\n", made anew once a second. RFC 9110 6.6.1. */
static void empm__response_date_update(empm__worker *w)
{
    int64_t now = (int64_t)time(NULL);
    const char *name = w->cfg->server_field;
    char date[30];
    int n;
    if (now == w->date_s)
        return;
    w->date_s = now;
    empm__format_date(date, now);
    n = snprintf(w->date, sizeof w->date, "Date: %s\r\n%s%.80s%s", date,
                 *name ? "Server: " : "", name, *name ? "\r\n" : "");
    w->date_len = (uint32_t)n;
}

static char *empm__text_append(char *at, const char *s, size_t n)
{
    memcpy(at, s, n);
    return at + n;
}
#define EMPM__ADD(at, literal) \
    empm__text_append(at, literal, sizeof literal - 1)

/* Has an answer with this status no Content-Length? RFC 9110 8.6. */
static int empm__response_is_lengthless(int status)
{
    return status == 204 || status == 304;
}

/* ... and no body? RFC 9110 6.4.1, 15.3.6. */
static int empm__response_is_bodiless(const empm_request *req, int status)
{
    return req->head_only || empm__response_is_lengthless(status) ||
           status == 205;
}

/* As Apache does, to a client that has asked for it: how long the connection
 * waits for another request, and for how many. Node's pools go by it. */
static char *empm__response_keep_alive_write(const empm_request *req, char *at)
{
    const empm_config *cfg = req->w->cfg;
    at = EMPM__ADD(at, "Connection: keep-alive\r\nKeep-Alive: timeout=");
    at += empm__format_u64(at, (uint64_t)cfg->keep_alive_timeout_ms / 1000);
    if (cfg->max_keep_alive_requests > 0) {
        at = EMPM__ADD(at, ", max=");
        at += empm__format_u64(at, (uint64_t)cfg->max_keep_alive_requests - 1 -
                                       req->c->requests);
    }
    return EMPM__ADD(at, "\r\n");
}

/* Writes the head; `length` -1: without Content-Length. At most
 * EMPM_PAGE_BYTES: fields_len is bounded by empm__response_field_add(). */
static size_t empm__response_head_write(empm_request *req, char *to,
                                        int64_t length)
{
    const char *reason = empm__response_reason(req->status);
    char *at = EMPM__ADD(to, "HTTP/1.1 ");
    at += empm__format_u64(at, (uint64_t)req->status);
    *at++ = ' ';
    at = empm__text_append(at, reason, strlen(reason));
    at = EMPM__ADD(at, "\r\n");
    empm__response_date_update(req->w);
    at = empm__text_append(at, req->w->date, req->w->date_len);
    if (!req->has_type && !empm__response_is_lengthless(req->status) &&
        length != 0)
        at = EMPM__ADD(at, "Content-Type: text/plain; charset=utf-8\r\n");
    if (!empm__response_is_lengthless(req->status) && length >= 0) {
        at = EMPM__ADD(at, "Content-Length: ");
        at += empm__format_u64(at, (uint64_t)length);
        at = EMPM__ADD(at, "\r\n");
    } else if (req->framing == EMPM__BY_CHUNKS)
        at = EMPM__ADD(at, "Transfer-Encoding: chunked\r\n");
    if (req->ending != EMPM__STAYS)
        at = EMPM__ADD(at, "Connection: close\r\n");
    else if (req->head.flags & EMPM__H_KEEP)
        at = empm__response_keep_alive_write(req, at);
    if (req->fields_len > 0)
        at = empm__text_append(at, req->fields, req->fields_len);
    at = EMPM__ADD(at, "\r\n");
    return (size_t)(at - to);
}

#define EMPM__FIELDS_MAX (EMPM_PAGE_BYTES - 512)

/* Decides the head, and where the body ends, and puts it on its way with what
 * has gathered. `whole`: the body is complete, so its length is known. */
static int empm__response_commit(empm_request *req, int whole)
{
    char head[EMPM_PAGE_BYTES];
    int64_t length = req->declared;
    size_t n;
    empm__page *p = req->body_out;
    req->answer = EMPM__COMMITTED;
    if (empm__engine_is_closing(req->w->engine))
        empm__request_closes(req, EMPM__CLOSES);
    if (req->body_open && req->body_mode == EMPM__BODY_NONE)
        /* on_head answers: nobody will read it */
        empm__request_closes(req, EMPM__CLOSES_UNREAD);
    if (whole && length < 0)
        length = req->written;
    if (req->status == 205)
        length = 0;
    req->framing = empm__response_is_bodiless(req, req->status) ? EMPM__BODILESS
                 : length >= 0        ? EMPM__BY_LENGTH
                 : req->head.minor > 0 ? EMPM__BY_CHUNKS : EMPM__BY_CLOSE;
    if (req->framing == EMPM__BY_CLOSE) {
        empm__request_closes(req, EMPM__CLOSES);
        req->c->flags |= EMPM__F_RESET;  /* until all of it is sent */
    }
    n = empm__protocol_of(req->c)->head(req, head, length);
    req->head_out = (uint32_t)n;
    /* A small answer is one piece of memory, and so one send() */
    if (p != NULL && req->io.out == NULL && n <= p->start &&
        req->framing == EMPM__BY_LENGTH) {
        p->start -= (uint32_t)n;
        memcpy(empm__page_data(p) + p->start, head, n);
        return empm__response_emit_body(req);
    }
    return empm__io_copy(req->w, &req->io, head, n) < 0
               ? EMPM_ENOMEM : empm__response_emit_body(req);
}

/* The body is whole: what has gathered goes out, and the mark of its end. */
static int empm__response_end_body(empm_request *req)
{
    int r = empm__response_emit_body(req);
    if (r == EMPM_OK && req->framing == EMPM__BY_CHUNKS)
        r = empm__protocol_of(req->c)->end(req);
    return r;
}

/* Makes the page a chunk, RFC 9112 7.1. */
static void empm__response_chunk(empm__page *p)
{
    char *data = empm__page_data(p);
    uint32_t n = p->end - p->start;
    data[--p->start] = '\n';
    data[--p->start] = '\r';
    do
        data[--p->start] = "0123456789abcdef"[n % 16];
    while ((n /= 16) != 0);
    data[p->end++] = '\r';
    data[p->end++] = '\n';
}

/* The last chunk, and no trailers. */
static int empm__response_end_chunks(empm_request *req)
{
    empm__page *p = empm__page_borrow(req->w);
    if (p == NULL)
        return EMPM_ENOMEM;
    p->end = 5;
    memcpy(empm__page_data(p), "0\r\n\r\n", 5);
    return empm__response_emit(req, p);
}

/* ---------------------------------------------------------------------------
 * >>response-calls -- what a handler calls to answer
 *
 * Each call checks that the answer may still change, keeps what it is given by
 * copy, and never waits for the client. A call in the wrong order is the
 * handler's fault: it is said in the error log, and returns EMPM_EMISUSE.
 *
 * The end of a handler ends the answer. A status that it returns stands for a
 * line of text, unless it has made a body of its own; an error after the head
 * has left can only be told by cutting the connection, so that no client takes
 * half an answer for a whole one.
 * ------------------------------------------------------------------------- */

/* May the handler still add to its answer? EMPM_OK, or the error to return. */
static int empm__response_may_write(empm_request *req)
{
    if (req->failed)
        return req->failed;
    if (!empm__request_may_add(req)) {
        empm__response_complain(req, "the answer is complete already");
        return EMPM_EMISUSE;
    }
    return EMPM_OK;
}

EMPM_API int empm_status(empm_request *req, int status)
{
    if (status < 200 || status > 599)
        return EMPM_EINVAL;
    if (!empm__request_head_is_open(req)) {
        empm__response_complain(req, "status set after the head was sent");
        return EMPM_EMISUSE;
    }
    req->status = status;
    empm__request_answered(req, EMPM__BEGUN);
    return EMPM_OK;
}

/* The first line `name: value` at or behind `at` among the response's fields,
 * or NULL; *next is where the line after it begins. */
static char *empm__response_field_line(const empm_request *req, char *at,
                                       const char *name, size_t n, char **next)
{
    char *end;
    if (at == NULL)
        return NULL;
    for (end = req->fields + req->fields_len; at < end; at = *next) {
        *next = (char *)memchr(at, '\n', (size_t)(end - at)) + 1;
        if ((size_t)(*next - at) > n && at[n] == ':' &&
            empm__text_same(at, n, name, n))
            return at;
    }
    return NULL;
}

/* The bytes that the response's fields called `name` take. */
static size_t empm__response_field_bytes(const empm_request *req,
                                         const char *name, size_t n)
{
    char *at = req->fields, *next;
    size_t sum = 0;
    while ((at = empm__response_field_line(req, at, name, n, &next)) != NULL) {
        sum += (size_t)(next - at);
        at = next;
    }
    return sum;
}

/* Removes all fields called `name`. */
static void empm__response_field_remove(empm_request *req, const char *name,
                                        size_t n)
{
    char *at = req->fields, *next;
    while ((at = empm__response_field_line(req, at, name, n, &next)) != NULL) {
        memmove(at, next, (size_t)(req->fields + req->fields_len - next));
        req->fields_len -= (uint32_t)(next - at);
    }
}

/* Room for `need` bytes behind the response's fields. */
static int empm__response_fields_reserve(empm_request *req, size_t need)
{
    if (need > EMPM__FIELDS_MAX - req->fields_len)
        return EMPM_EFULL;
    if (req->fields_len + need > req->fields_cap) {
        const size_t cap = empm__min((req->fields_len + need) * 2 + 128,
                                     EMPM__FIELDS_MAX);
        char *more = (char *)empm_alloc(req, cap);
        if (more == NULL)
            return EMPM_ENOMEM;
        if (req->fields_len > 0)
            memcpy(more, req->fields, req->fields_len);
        req->fields = more;
        req->fields_cap = (uint32_t)cap;
    }
    return EMPM_OK;
}

/* Adds a field, or, `replace`, puts it in the place of all of its name. Fields
 * that frame the answer are the server's (`ours`); Content-Length is kept as a
 * number, and holds the handler to it. A name or value with bytes that could
 * begin another field is refused: RFC 9110 5.5. */
static int empm__response_field_add(empm_request *req, const char *name,
                                    const char *value, int replace)
{
    static const char *const ours[] = { "transfer-encoding", "connection",
                                        "trailer", "upgrade", "keep-alive",
                                        "date", "server" };
    const empm__chars *t = &req->w->s->chars;
    const size_t n = name != NULL ? strlen(name) : 0;
    const size_t v = value != NULL ? strlen(value) : 0, need = n + v + 4;
    size_t i, old;
    int r;
    if (value == NULL)
        return EMPM_EINVAL;
    if (!empm__request_head_is_open(req)) {
        empm__response_complain(req, "field set after the head was sent");
        return EMPM_EMISUSE;
    }
    if (n == 0 || !empm__chars_all(t, name, n, EMPM__TCHAR) ||
        !empm__chars_all(t, value, v, EMPM__VCHAR)) {
        empm__response_complain(req, "field with a bad name or value refused");
        return EMPM_EINVAL;
    }
    for (i = 0; i < EMPM__COUNT(ours); i++)
        if (empm__text_same(name, n, ours[i], strlen(ours[i])))
            return EMPM_EINVAL;
    if (empm__text_same(name, n, "content-length", 14)) {
        const int64_t len = empm__parse_u63(value, v);
        if (len < req->written) {    /* no number, or too late for it */
            empm__response_complain(req, "bad Content-Length refused");
            return EMPM_EINVAL;
        }
        req->declared = len;
        return EMPM_OK;
    }
    old = replace ? empm__response_field_bytes(req, name, n) : 0;
    if (need > old && (r = empm__response_fields_reserve(req, need - old)) < 0)
        return r;                    /* and what was there stays */
    if (old > 0)
        empm__response_field_remove(req, name, n);
    {
        char *at = req->fields + req->fields_len;
        at = empm__text_append(at, name, n);
        at = EMPM__ADD(at, ": ");
        at = empm__text_append(at, value, v);
        at = EMPM__ADD(at, "\r\n");
        req->fields_len = (uint32_t)(at - req->fields);
    }
    if (empm__text_same(name, n, "content-type", 12))
        req->has_type = 1;
    return EMPM_OK;
}

EMPM_API int empm_set_header(empm_request *req, const char *name,
                             const char *value)
{
    return empm__response_field_add(req, name, value, 1);
}

EMPM_API int empm_add_header(empm_request *req, const char *name,
                             const char *value)
{
    return empm__response_field_add(req, name, value, 0);
}

/* Room for at least one more byte of body; NULL: no memory. */
static empm__page *empm__response_body_room(empm_request *req)
{
    empm__page *p = req->body_out_last;
    if (p != NULL && p->end < EMPM__PAGE_ROOM - EMPM__TAIL_ROOM)
        return p;
    if ((p = empm__page_borrow(req->w)) == NULL)
        return NULL;
    p->start = p->end = req->body_out == NULL && empm__request_head_is_open(req)
                            ? EMPM__HEAD_ROOM : EMPM__CHUNK_ROOM;
    if (req->body_out_last != NULL)
        req->body_out_last->next = p;
    else
        req->body_out = p;
    req->body_out_last = p;
    return p;
}

/* Passes on what has gathered, with the head if that is still open, and sends
 * once there is half a buffer more than the socket has refused before. Returns
 * EMPM_OK, or why the answer has failed. */
static int empm__response_push_body(empm_request *req)
{
    int r = empm__request_head_is_open(req) ? empm__response_commit(req, 0)
                                      : empm__response_emit_body(req);
    if (r < 0)
        empm__response_fail_room(req, r);
    else if (req->io.out_left - req->io.out_tried >=
                 EMPM_RESPONSE_BUFFER / 2 &&
             empm__response_flush(req) == EMPM__CUT)
        empm__response_fail(req, EMPM_ECLOSED, "");
    return req->failed;
}

EMPM_API int empm_write(empm_request *req, const void *data, size_t len)
{
    const char *s = (const char *)data;
    int r = empm__response_may_write(req);
    if (r < 0)
        return r;
    if (data == NULL && len > 0)
        return EMPM_EINVAL;
    empm__request_answered(req, EMPM__BEGUN);
    if (req->declared >= 0 &&
        (int64_t)len > req->declared - req->written) {
        empm__response_complain(req, "more body than was declared");
        return EMPM_EMISUSE;
    }
    req->written += (int64_t)len;
    /* the body of an answer to HEAD is counted, and goes nowhere */
    while (len > 0 && req->framing != EMPM__BODILESS) {
        empm__page *p = empm__response_body_room(req);
        size_t n;
        if (p == NULL) {
            empm__response_fail(req, EMPM_ENOMEM, "no memory for the response");
            return EMPM_ENOMEM;
        }
        n = empm__min(len, EMPM__PAGE_ROOM - EMPM__TAIL_ROOM - p->end);
        memcpy(empm__page_data(p) + p->end, s, n);
        p->end += (uint32_t)n;
        req->body_out_bytes += n;
        s += n;
        len -= n;
        if (req->body_out_bytes > (empm__request_head_is_open(req)
                                       ? EMPM_RESPONSE_BUFFER
                                       : EMPM__PAGE_ROOM) &&
            (r = empm__response_push_body(req)) < 0)
            return r;
    }
    return EMPM_OK;
}

EMPM_API int empm_vprintf(empm_request *req, const char *fmt, va_list ap)
{
    char small[512], *big;
    va_list again;
    int n;
    va_copy(again, ap);
    n = vsnprintf(small, sizeof small, fmt, ap);
    if (n >= 0 && (size_t)n < sizeof small)
        n = empm_write(req, small, (size_t)n);
    else if (n < 0)
        n = EMPM_EINVAL;
    else if ((big = (char *)EMPM_MALLOC((size_t)n + 1)) == NULL) {
        empm__response_fail(req, EMPM_ENOMEM, "no memory for empm_printf");
        n = EMPM_ENOMEM;
    } else {
        vsnprintf(big, (size_t)n + 1, fmt, again);
        n = empm_write(req, big, (size_t)n);
        EMPM_FREE(big);
    }
    va_end(again);
    return n;
}

EMPM_API int empm_printf(empm_request *req, const char *fmt, ...)
{
    va_list ap;
    int r;
    va_start(ap, fmt);
    r = empm_vprintf(req, fmt, ap);
    va_end(ap);
    return r;
}

EMPM_API int empm_flush(empm_request *req)
{
    int r = empm__response_may_write(req);
    if (r < 0)
        return r;
    empm__request_answered(req, EMPM__BEGUN);
    if (empm__response_push_body(req) == EMPM_OK &&
        empm__response_flush(req) == EMPM__CUT)
        empm__response_fail(req, EMPM_ECLOSED, "");
    return req->failed;
}

EMPM_API int empm_stream(empm_request *req, int64_t length, empm_producer *fn,
                         void *user)
{
    int r = fn == NULL ? EMPM_EINVAL : empm__response_may_write(req);
    if (r < 0)
        return r;
    if (!empm__request_head_is_open(req) || req->written > 0) {
        empm__response_complain(req, "empm_stream() after the body has begun");
        return EMPM_EMISUSE;
    }
    req->producer = fn;
    req->producer_user = user;
    empm__request_answered(req, EMPM__PROMISED);
    if (length >= 0)
        req->declared = length;
    return EMPM_OK;
}

/* One page more from the producer. Returns EMPM_OK or an error; at the end the
 * response is complete. */
static int empm__response_produce(empm_request *req)
{
    empm__page *p = empm__response_body_room(req);
    long n;
    size_t cap;
    if (p == NULL)
        return EMPM_ENOMEM;
    /* no more than was declared: the producer cannot break the framing */
    cap = EMPM__PAGE_ROOM - EMPM__TAIL_ROOM - p->end;
    if (req->declared >= 0 && (int64_t)cap > req->declared - req->written)
        cap = (size_t)(req->declared - req->written);
    req->w->calling = EMPM__CALL_OTHER;
    n = cap > 0 ? req->producer(req, empm__page_data(p) + p->end, cap,
                                req->producer_user) : 0;
    req->w->calling = EMPM__CALL_NONE;
    if (n < 0 || (size_t)n > cap)
        return EMPM_EMISUSE;
    p->end += (uint32_t)n;
    req->written += n;
    if (n == 0) {
        if (req->declared >= 0 && req->written < req->declared)
            return EMPM_EMISUSE;
        req->answer = EMPM__COMPLETE;
        return empm__response_end_body(req);
    }
    return empm__response_emit_body(req);
}

/* Forgets a body of which nothing has left. */
static void empm__response_body_forget(empm_request *req)
{
    empm__pages_return(req->w, req->body_out);
    req->body_out = req->body_out_last = NULL;
    req->body_out_bytes = 0;
    req->written = 0;
    req->declared = -1;
    req->producer = NULL;
    empm__request_file_drop(req);
    if (req->answer == EMPM__PROMISED)
        req->answer = EMPM__BEGUN;
}

/* Makes the answer a line of text that names the status. What the handler has
 * said of another body, and whether that may be kept, does not hold for it. */
static void empm__response_status_text(empm_request *req, int status)
{
    static const char *const fields[] = {
        "content-type", "content-encoding", "content-language",
        "content-location", "content-disposition", "content-range",
        "accept-ranges", "etag", "last-modified", "cache-control", "expires"
    };
    size_t i;
    empm__response_body_forget(req);
    req->status = status;
    for (i = 0; req->fields_len > 0 && i < EMPM__COUNT(fields); i++)
        empm__response_field_remove(req, fields[i], strlen(fields[i]));
    req->has_type = 0;
    empm_printf(req, "%d %s\n", status, empm__response_reason(status));
}

/* The answer cannot be what it was to be: 500 if nothing has left, else the end
 * of the connection. */
static void empm__response_cannot(empm_request *req, int error, const char *why)
{
    if (!empm__request_head_is_open(req)) {
        empm__response_fail(req, error, why);
        return;
    }
    empm__response_complain_why(req, error, why);
    empm__response_status_text(req, 500);
}

/* Ends the response after the handler returned `rc`. Afterwards it is
 * complete, or a producer goes on in WRITE, or req->failed says why it must
 * be aborted. */
static void empm__response_finish(empm_request *req, int rc)
{
    char text[48];
    int r;
    if (req->body_open)             /* nobody has read it: it cannot go on */
        empm__request_closes(req, EMPM__CLOSES_UNREAD);
    if (req->failed)                /* that has been said, or is the client's */
        return;
    /* 1. what it has returned is no status, or it has said nothing: 500 */
    if (rc < 0 || rc == EMPM_SUSPENDED || rc > 599 || (rc > 1 && rc < 200)) {
        snprintf(text, sizeof text, "returned %d, which is no status", rc);
        empm__response_complain(req, rc < 0 ? "has failed"
                                : rc == EMPM_SUSPENDED
                           ? "returned EMPM_SUSPENDED without a suspension"
                           : text);
        rc = 500;
    } else if (rc == EMPM_OK && req->answer == EMPM__UNANSWERED) {
        empm__response_complain(req, "gave no answer");
        rc = 500;
    }
    /* 2. a status makes the answer, if there is time for it */
    if (rc != EMPM_OK && empm__request_head_is_open(req)) {
        const int said = req->written > 0 || req->declared >= 0 ||
                         req->has_type || req->answer == EMPM__PROMISED ||
                         empm__response_is_lengthless(rc) || rc == 205;
        req->status = rc;
        if (rc >= 400 ? req->written == 0 : !said)
            empm__response_status_text(req, rc);
    } else if (rc >= 500)
        empm__response_fail(req, EMPM_EMISUSE, "failed in the middle of its "
                            "answer");
    else if (rc != EMPM_OK)
        empm__response_complain(req, "returned a status after its answer");
    /* 3. a file knows now whether it is sent, in part, or not modified */
    if (req->source != NULL && !req->failed && req->source(req) < 0)
        empm__response_cannot(req, EMPM_ESYS, "the file cannot be read");
    if (req->failed)
        return;
    /* 4. a producer goes on when the socket takes more */
    if (req->producer != NULL) {
        if (empm__response_commit(req, 0) < 0)
            empm__response_fail(req, EMPM_ENOMEM, "no memory for the response");
        req->answer = req->framing == EMPM__BODILESS ? EMPM__COMPLETE
                                                     : EMPM__STREAMING;
        return;
    }
    /* 5. all else is complete here */
    if (req->declared >= 0 && req->written < req->declared &&
        !empm__response_is_bodiless(req, req->status)) {
        empm__response_cannot(req, EMPM_EMISUSE, "less body than was declared");
        if (req->failed)
            return;
    }
    r = empm__request_head_is_open(req) ? empm__response_commit(req, 1)
                                        : EMPM_OK;
    if (r == EMPM_OK)
        r = empm__response_end_body(req);
    if (r < 0)
        empm__response_fail_room(req, r);
    req->answer = EMPM__COMPLETE;
}

/* The reply that the server gives by itself. */
static void empm__response_answer(empm_request *req, int status)
{
    if (status == 503)
        empm__response_field_add(req, "Retry-After", "1", 1);
    empm__response_finish(req, status);
}

/* ---------------------------------------------------------------------------
 * >>steps -- what the steps of a connection share
 *
 * A step is one state's work, empm__do_...(). It returns the state to go to;
 * its own state means "I must wait", and `wait` says for what and until when.
 * The picture that they make together is in >>conn.
 *
 * runs on   a worker that owns the connection, all up to >>conn
 * ------------------------------------------------------------------------- */

/* Looks at the clock; a step that waits or is late has to know the time. */
static uint32_t empm__step_clock(empm__worker *w)
{
    return w->now_ms = empm__now_ms();
}

/* Is the server asked to close what is idle, and to end suspensions? A graceful
 * stop asks for neither, before its limit. */
static int empm__step_closes_idle(const empm__worker *w)
{
    return (empm__load(&w->engine->stopping) & EMPM__ORDER_STOP) != 0;
}

/* Reads once, as the transport's recv() does. */
static ssize_t empm__step_recv(empm__worker *w, empm__conn *c, void *buf,
                               size_t n)
{
    const ssize_t r = empm__transport_of(c)->recv(w, c, buf, n);
    if (r > 0) {
        w->turn_bytes += (uint32_t)r;
        if (c->io != NULL)
            c->io->got += r;
    } else if (r == EMPM__LOST)
        empm__request_lost(w, c, "recv");
    return r;
}

/* What is wrong is the client's: answer, take no more, close. */
static enum empm__state empm__step_refuse(empm_request *req, int status)
{
    const empm__head *h = &req->head;
    empm__request_closes(req, EMPM__CLOSES_UNREAD);
    req->head_only = empm__head_part_is(h, req->io.in, EMPM__PART_METHOD,
                                        "HEAD");
    /* not even the version is known */
    if (h->spans[EMPM__PART_TARGET].len == 0)
        req->head.minor = 1;
    if (status == 408)
        req->c->flags |= EMPM__F_SHORT;
    req->body_open = 0;
    if (req->body_mode == EMPM__BODY_DROP)
        return EMPM__WRITE;              /* it has its answer already */
    if (!empm__request_head_is_open(req)) {  /* on_head or on_body has begun */
        if (!req->failed)
            empm__request_log(req, EMPM_LOG_INFO, 5018, "%d after the answer "
                              "has begun: aborted", status);
        req->failed = EMPM_EMISUSE;
    } else {
        if (req->refusal != EMPM__BY_ON_BODY)   /* else its text goes too */
            empm__response_body_forget(req);
        empm__response_answer(req, status);
    }
    return EMPM__WRITE;
}

/* Waits for the direction that the transport has asked for, until `deadline_ms`
 * at the latest. Returns EMPM_OK, or EMPM_ESYS: it cannot be watched. */
static int empm__step_wait(empm__worker *w, empm__conn *c, empm__wait *wait,
                           ssize_t direction, uint32_t deadline_ms)
{
    wait->deadline_ms = empm__time_earlier(wait->deadline_ms, deadline_ms);
    if (direction != EMPM__WANTS_OUT) {
        wait->want |= EMPM__WANT(EMPM__READY_IN);
        return EMPM_OK;
    }
    wait->want |= EMPM__WANT(EMPM__READY_OUT);
    return empm__poller_want_out(&w->engine->poller, c, w->index) < 0
               ? EMPM_ESYS : EMPM_OK;
}

/* How many bytes of the wire the client has acknowledged; where the system
 * does not tell, how many were sent. */
static int64_t empm__step_acked(const empm_request *req)
{
    const int unacked = empm__fd_unacked(req->c->fd);
    return req->io.wire - (unacked > 0 ? unacked : 0);
}

/* Waits until the output that has met a full socket can go on. */
static int empm__step_wait_write(empm__worker *w, empm_request *req,
                                 empm__wait *wait)
{
    empm__io *io = &req->io;
    if (io->write_deadline == EMPM__NEVER) {
        io->acked = empm__step_acked(req);
        io->write_deadline = empm__time_after(empm__step_clock(w),
                                              w->cfg->timeout_ms);
    }
    return empm__step_wait(w, req->c, wait, io->blocked, io->write_deadline);
}

/* Is it too late for the output that waits? A due deadline moves on if the
 * client has taken enough since, by ResponseMinRate: EPOLLOUT alone would not
 * tell, there can be a megabyte between two of its edges. */
static int empm__step_write_late(empm__worker *w, empm_request *req)
{
    empm__io *io = &req->io;
    int64_t now;
    if (io->write_deadline == EMPM__NEVER ||
        !empm__time_is_late(io->write_deadline, empm__step_clock(w)))
        return 0;
    now = empm__step_acked(req);
    if (now <= io->acked ||
        now - io->acked < (int64_t)w->cfg->timeout_ms *
                              w->cfg->response_min_rate / 1000) {
        empm__bump(&w->score->timeouts, 1u);
        empm__request_log(req, EMPM_LOG_INFO, 5003, "has taken %lld bytes in "
                          "Timeout of %d ms: dropped",
                          (long long)(now - io->acked), w->cfg->timeout_ms);
        return 1;
    }
    io->acked = now;
    io->write_deadline = empm__time_after(w->now_ms, w->cfg->timeout_ms);
    return 0;
}

/* Sends what waits, as the steps do: a client that takes too little is late. */
static enum empm__flushed empm__step_push(empm__worker *w, empm_request *req)
{
    const enum empm__flushed r = empm__response_flush(req);
    if (r == EMPM__SENT)
        req->io.write_deadline = EMPM__NEVER;
    return r == EMPM__BLOCKED && empm__step_write_late(w, req) ? EMPM__LATE : r;
}

/* Nothing more will be sent: says so to the client. Returns the state: CLOSED,
 * or LINGER, as long as empm__do_linger() has it. */
static enum empm__state empm__step_finish(empm__worker *w, empm__conn *c,
                                          int linger)
{
    const empm_config *cfg = w->cfg;
    empm__transport_of(c)->finish(w, c, !linger);
    if (!linger)
        return EMPM__CLOSED;
    c->requests = 0;                     /* from here: KiB dropped */
    empm__store(&c->deadline_ms,
                empm__time_after(empm__step_clock(w),
                                 c->flags & EMPM__F_SHORT
                                     ? cfg->linger_short_ms
                                     : cfg->linger_timeout_ms));
    return EMPM__LINGER;
}

/* Has this connection had its share? 16 requests, 1 MiB, 1 ms. */
static int empm__turn_is_over(const empm__worker *w)
{
    return w->turn_requests >= EMPM_TURN_REQUESTS ||
           w->turn_bytes >= EMPM_TURN_BYTES ||
           w->turn_us - w->turn_start_us >= EMPM_TURN_US;
}

/* A function of the user's is called that has not been quick so far: others
 * shall not count on this worker meanwhile. */
static void empm__turn_may_block(empm__worker *w, const empm__route *r)
{
    if (empm__load(&r->quick) < EMPM__QUICK)
        empm__queue_leave(&w->engine->queue, w->number);
}

/* A connection has the worker from here: nothing of its share is used yet. */
static void empm__turn_begin(empm__worker *w)
{
    w->turn_requests = w->turn_bytes = 0;
    w->turn_start_us = w->turn_us = empm__now_us();
    w->now_ms = empm__time_us_to_ms(w->turn_us);
    empm__store(&w->turn_began, empm__time_after(w->now_ms, 0));
    empm__store(&w->score->began_us, w->turn_us);
}

/* ---------------------------------------------------------------------------
 * >>dispatch -- from a complete head to a route and the next step
 *
 * All that can be judged by the head alone is judged here, before a byte of the
 * body is waited for: the path, its route, the limits of both, and on_head. A
 * refusal reaches the client before it sends a body in vain, and one that the
 * connection survives drops a short body.
 *
 * source    RFC 9110 9.3.7 (OPTIONS), 10.1.1 (Expect), 15.5.5, 15.5.6, 15.6.2
 * ------------------------------------------------------------------------- */

/* Is it a method of RFC 9110 or 5789, or of any route? Then a path without it
 * gets 404 or 405, else 501. Methods have a case. */

static int empm__dispatch_method_known(const empm__routes *t, const char *m)
{
    static const char *const known[] = { "GET", "HEAD", "POST", "PUT", "DELETE",
                                         "OPTIONS", "PATCH" };
    size_t i;
    for (i = 0; i < EMPM__COUNT(known); i++)
        if (*m == *known[i] && strcmp(m, known[i]) == 0)
            return 1;
    for (i = 0; i < t->n; i++)
        if (strcmp(m, t->list[i].method) == 0)
            return 1;
    return 0;
}

/* Sets the Allow field: each method once, of the routes that are marked in
 * `seen`, or, if it is NULL, of all. */
static void empm__dispatch_allow(empm_request *req, const unsigned char *seen)
{
    const empm__routes *t = req->w->engine->routes;
    char list[512] = "", *at = list;
    uint32_t i, k;
    int any = 0;
    for (i = 0; i < t->n; i++) {
        const char *m = t->list[i].method;
        if (seen != NULL && !seen[i])
            continue;
        if (*m == '\0')
            any = 1;
        for (k = 0; k < i; k++)
            if ((seen == NULL || seen[k]) &&
                strcmp(m, t->list[k].method) == 0)
                break;
        if (k < i || *m == '\0' || strcmp(m, "OPTIONS") == 0 ||
            strlen(m) + 24 > (size_t)(list + sizeof list - at))
            continue;
        at += snprintf(at, (size_t)(list + sizeof list - at), "%s%s%s",
                       at == list ? "" : ", ", m,
                       strcmp(m, "GET") == 0 ? ", HEAD" : "");
    }
    if (any)
        snprintf(list, sizeof list, "GET, HEAD, POST, PUT, PATCH, DELETE");
    at = list + strlen(list);
    snprintf(at, (size_t)(list + sizeof list - at), "%sOPTIONS",
             at == list ? "" : ", ");
    empm_set_header(req, "Allow", list);
}

/* Writes n bytes at `at`: as they are, or as %XX where they cannot stand in a
 * segment of a path (RFC 3986 3.3) or, with `query`, in a query that was sent.
 * Returns where it has ended, at most 3 n behind `at`. */
static char *empm__dispatch_percent(char *at, const empm__chars *t,
                                    const char *s, size_t n, int query)
{
    for (; n > 0; n--, s++) {
        const unsigned ch = (unsigned char)*s;
        if (query ? ch > ' ' && ch < 127
                  : ((t->of[ch] & EMPM__HOST) && ch != '%') || ch == ':' ||
                        ch == '@')
            *at++ = *s;
        else {
            *at++ = '%';
            *at++ = "0123456789ABCDEF"[ch >> 4];
            *at++ = "0123456789ABCDEF"[ch & 15];
        }
    }
    return at;
}

/* 301 or 308 from /a to /a/, with the query: a whole path, since some clients
 * do not resolve a relative one. It is made of the decoded segments, none of
 * them empty, so it cannot begin with "//" or "/\", which name another host. */
static int empm__dispatch_slash_redirect(empm_request *req)
{
    const empm__path *p = &req->path;
    const char *q = empm_query_string(req);
    size_t n = 3 + 3 * strlen(q);
    char *to, *at;
    int i;
    for (i = 0; i < p->n; i++)
        n += 1 + 3 * (size_t)p->len[i];
    if ((at = to = (char *)empm_alloc(req, n)) == NULL)
        return 503;
    for (i = 0; i < p->n; i++)
        if (p->len[i] > 0) {
            *at++ = '/';
            at = empm__dispatch_percent(at, &req->w->s->chars, p->seg[i],
                                        p->len[i], 0);
        }
    *at++ = '/';
    if (*q != '\0')
        *at++ = '?';
    *empm__dispatch_percent(at, &req->w->s->chars, q, strlen(q), 1) = '\0';
    if (empm_set_header(req, "Location", to) < 0)
        return 414;
    return req->head_only || strcmp(empm_method(req), "GET") == 0 ? 301 : 308;
}

/* Makes path_text, normal, and path, its segments, of the path as it was sent.
 * Returns 0 or a status. */
static int empm__dispatch_path(empm_request *req)
{
    const empm__span *sent = &req->head.spans[EMPM__PART_PATH];
    const char *raw = sent->len > 0 ? req->text + sent->at
                                    : "/";   /* "http://host" means its "/" */
    const size_t n = sent->len > 0 ? sent->len : 1;
    char *decoded = (char *)empm_alloc(req, n + 1);
    req->path_text = empm__request_strndup(req, raw, n);
    if (req->path_text == NULL || decoded == NULL)
        return 503;
    return empm__path_split(&req->path, req->path_text, n, decoded);
}

/* Is "/a/" a pattern of its own, where the request is for "/a"? Then req->path
 * is that of "/a/" afterwards. */
static int empm__dispatch_is_below(empm_request *req)
{
    const empm__route *r;
    empm__path *p = &req->path;
    if (p->n == EMPM_PATH_SEGMENTS || p->len[p->n - 1] == 0)
        return 0;
    p->seg[p->n] = p->seg[p->n - 1] + p->len[p->n - 1];    /* its NUL: "" */
    p->len[p->n++] = 0;
    r = empm__route_search(req->w->engine->routes, 0, p, 0, empm_method(req),
                           NULL);
    if (r != NULL && r->nsegs == p->n)
        return 1;
    p->n--;
    return 0;
}

/* No route serves path and method. Returns the status: 200 for OPTIONS, 405
 * with Allow if other methods are served, 404, or 501 for a method of
 * nobody. */
static int empm__dispatch_without_route(empm_request *req, int options)
{
    const empm__routes *t = req->w->engine->routes;
    const char *m = empm_method(req);
    unsigned char small[64], *seen = small;
    if (t->n > sizeof small &&
        (seen = (unsigned char *)empm_alloc(req, t->n)) == NULL)
        return 503;
    memset(seen, 0, t->n);
    empm__route_search(t, 0, &req->path, 0, m, seen);
    if (memchr(seen, 1, t->n) == NULL)
        return empm__dispatch_method_known(t, m) ? 404 : 501;
    empm__dispatch_allow(req, seen);
    if (!options)
        return empm__dispatch_method_known(t, m) ? 405 : 501;
    empm__request_answered(req, EMPM__BEGUN);
    return 200;
}

/* Finds the route. Returns 0: req->route is set; else the status to answer
 * with, which is 200 for OPTIONS that the server answers itself. */
static int empm__dispatch_find_route(empm_request *req)
{
    const char *m = empm_method(req);
    const int options = strcmp(m, "OPTIONS") == 0;
    int status;
    /* OPTIONS of "*", or of "http://host" (RFC 9112 3.2.4): of all there is */
    if (*empm_target(req) == '*' ||
        (options && req->head.spans[EMPM__PART_PATH].len == 0 &&
         *empm_query_string(req) == '\0')) {
        if ((req->path_text = empm__request_strndup(req, "*", 1)) == NULL)
            return 503;
        empm__dispatch_allow(req, NULL);
        empm__request_answered(req, EMPM__BEGUN);
        return 200;
    }
    if ((status = empm__dispatch_path(req)) != 0)
        return status;
    req->route = empm__route_search(req->w->engine->routes, 0, &req->path, 0,
                                    m, NULL);
    if ((req->route == NULL ||
         req->route->segs[req->route->nsegs - 1].kind == EMPM__SEG_REST) &&
        empm__dispatch_is_below(req))
        return empm__dispatch_slash_redirect(req);
    return req->route != NULL ? 0 : empm__dispatch_without_route(req, options);
}

/* Answers before the body has come. A short body that is surely on its way is
 * dropped as it arrives, and the connection stays (RFC 9112 9.3). It is not
 * sure if the client expects 100 Continue and has sent none of it: then the
 * client may keep it. Returns the next state. */
static enum empm__state empm__dispatch_answer_early(empm_request *req, int rc)
{
    const empm__head *h = &req->head;
    const int waits = h->minor > 0 && req->io.in_end == req->io.in_start &&
                      (h->flags & (EMPM__H_EXPECT | EMPM__H_EXPECT_OTHER)) != 0;
    if (req->body_open && req->body_left <= EMPM_DROP_BODY && !waits &&
        empm__request_head_is_open(req) && req->producer == NULL) {
        req->body_mode = EMPM__BODY_DROP;
        req->body_limit = EMPM_DROP_BODY;
        req->body_open = 0;
    }
    empm__response_finish(req, rc);
    return req->body_mode == EMPM__BODY_DROP && !req->failed ? EMPM__READ_BODY
                                                             : EMPM__WRITE;
}

/* Counts the request for max_requests of its route, until its end. Returns 0:
 * there are too many. */
static int empm__dispatch_route_enter(empm_request *req)
{
    empm__route *r = req->route;
    if (r->user->max_requests <= 0)
        return 1;
    if (__atomic_add_fetch(&r->requests, 1u, __ATOMIC_RELAXED) >
        (uint32_t)r->user->max_requests) {
        __atomic_sub_fetch(&r->requests, 1u, __ATOMIC_RELAXED);
        return 0;
    }
    req->counted = 1;                /* until empm__request_end() */
    return 1;
}

/* Decides by the head, the settings and the state of the server whether the
 * connection closes after this answer (RFC 9112 9.3). */
static void empm__dispatch_ending(empm_request *req)
{
    const empm_config *cfg = req->w->cfg;
    const empm__head *h = &req->head;
    if ((h->flags & EMPM__H_CLOSE) ||
        (h->minor == 0 && !(h->flags & EMPM__H_KEEP)))
        empm__request_closes(req, EMPM__CLOSES_ASKED);
    if (!cfg->keep_alive || cfg->keep_alive_timeout_ms == 0 ||
        (cfg->max_keep_alive_requests > 0 &&
         req->c->requests + 1 >= (uint32_t)cfg->max_keep_alive_requests) ||
        empm__engine_is_closing(req->w->engine))
        empm__request_closes(req, EMPM__CLOSES);
}

/* The head is complete: finds its route and whether it may come in.
 * Returns the next state: READ_BODY if there is a body to wait for, HANDLE, or
 * that of an early answer. From here the head's text stays where it is. */
static enum empm__state empm__dispatch_request(empm__worker *w,
                                               empm_request *req)
{
    const empm_config *cfg = w->cfg;
    empm__head *h = &req->head;
    int status, i;
    const int64_t length = h->flags & EMPM__H_CHUNKED ? -1
                           : h->length > 0 ? h->length : 0;
    req->io.in_start = h->line;
    req->text = req->io.in;
    req->head_us = w->turn_us;
    w->turn_requests++;                  /* refused ones, too */
    empm__store(&w->score->began_us, w->turn_us);
    empm__request_score(w, req);
    req->head_only = strcmp(empm_method(req), "HEAD") == 0;
    empm__dispatch_ending(req);
    req->body_open = length != 0;
    req->body_left = length;
    req->start_ms = req->last_byte_ms = EMPM__NEVER;
    req->received = 0;
    /* The route, its limits, its on_head */
    status = empm__dispatch_find_route(req);
    if (status == 0) {
        const empm_route *u = req->route->user;
        req->body_limit = u->limit_body >= 0 ? u->limit_body
                                             : cfg->limit_request_body;
        if (u->timeout_ms > 0)
            req->deadline_ms = empm__time_after(empm__step_clock(w),
                                                u->timeout_ms);
        if (h->minor > 0 && (h->flags & EMPM__H_EXPECT_OTHER))
            status = 417;
        else if (req->body_limit > 0 && length > req->body_limit)
            status = 413;
        else if (!empm__dispatch_route_enter(req))
            status = 503;
        else if (u->on_head != NULL) {
            empm__turn_may_block(w, req->route);
            w->calling = EMPM__CALL_OTHER;
            i = u->on_head(req, u->user);
            w->calling = EMPM__CALL_NONE;
            w->turn_us = empm__now_us();
            if (i != EMPM_OK || req->answer != EMPM__UNANSWERED)
                return empm__dispatch_answer_early(req, i);
        }
    }
    /* Onward; or a fault of the client's, after which nothing more is read;
     * or an answer after which the connection may go on */
    if (status == 0)
        return req->body_open ? EMPM__READ_BODY : EMPM__HANDLE;
    if (status == 400 || status == 413 || status == 414)
        return empm__step_refuse(req, status);
    if (status == 503)
        empm_set_header(req, "Retry-After", "1");
    return empm__dispatch_answer_early(req, status == 200 ? EMPM_OK : status);
}

/* ---------------------------------------------------------------------------
 * >>reading -- the steps HANDSHAKE, READ_HEAD and READ_BODY
 *
 * A connection that has sent nothing is idle and holds no page. From its first
 * byte on two deadlines count, which the header of a request and its body have
 * in common: RequestReadTimeout's, which moves with the rate of the client, and
 * Timeout after the last byte. Each is asked only when the socket is empty: a
 * client that is late and has sent is served.
 * ------------------------------------------------------------------------- */

/* Before HTTP: a PROXY header, where the endpoint has one, then the handshake
 * of the transport. Both have the deadline that was set at accept. */
static enum empm__state empm__do_handshake(empm__worker *w, empm__conn *c,
                                           empm__wait *wait)
{
    const uint32_t deadline = empm__load(&c->deadline_ms);
    int r;
    if (w->s->endpoints[c->endpoint].proxy && !(c->flags & EMPM__F_PROXIED)) {
        const enum empm__state next = w->s->read_proxy(w, c, wait);
        if (next != EMPM__READ_HEAD)
            return next;
        c->flags |= EMPM__F_PROXIED;
    }
    if (empm__transport_of(c)->handshake == NULL)
        return EMPM__READ_HEAD;
    r = empm__transport_of(c)->handshake(w, c);
    if (r > 0)
        return EMPM__READ_HEAD;
    if (r == 0) {
        c->flags |= EMPM__F_SHORT;
        return empm__step_finish(w, c, 1);
    }
    if (r == EMPM__LOST)
        empm__request_lost(w, c, "handshake");
    else if (!empm__time_is_late(deadline, empm__step_clock(w)) &&
             empm__step_wait(w, c, wait, r, deadline) == EMPM_OK)
        return EMPM__HANDSHAKE;
    return EMPM__CLOSED;
}

/* Is nothing here of a request but empty lines, which are none, or half of
 * one? */
static int empm__reading_head_is_blank(const empm_request *req)
{
    const empm__head *h = &req->head;
    const uint32_t n = req->io.in_end - h->start;
    return h->phase == EMPM__REQUEST_LINE &&
           (n == 0 || (n == 1 && req->io.in[h->start] == '\r'));
}

/* Waits for more of a head or a body, or finds that it is too late: 408. The
 * deadline is min(start + initial + bytes * 1000 / rate [, max], last byte +
 * Timeout); initial 0: the latter alone. */
static enum empm__state empm__reading_on(empm__worker *w, empm_request *req,
                                         empm__wait *wait, ssize_t direction,
                                         int initial_ms, int max_ms, int rate)
{
    const uint32_t now = empm__step_clock(w);
    uint32_t deadline;
    if (req->start_ms == EMPM__NEVER)
        req->start_ms = empm__time_after(now, 0);
    if (req->last_byte_ms == EMPM__NEVER)
        req->last_byte_ms = empm__time_after(now, 0);
    deadline = empm__time_after(req->last_byte_ms, w->cfg->timeout_ms);
    if (initial_ms > 0) {
        int64_t ms = initial_ms;
        if (rate > 0)
            ms += req->received * 1000 / rate;
        if (max_ms > 0 && ms > max_ms)
            ms = max_ms;
        deadline = empm__time_earlier(deadline,
                                      empm__time_after(req->start_ms, ms));
    }
    if (empm__time_is_late(deadline, now)) {
        empm__bump(&w->score->timeouts, 1u);
        return empm__step_refuse(req, 408);
    }
    if (empm__step_wait(w, req->c, wait, direction, deadline) < 0 ||
        (req->io.out != NULL && empm__step_wait_write(w, req, wait) < 0))
        return EMPM__CLOSED;
    return (enum empm__state)req->c->state;
}

/* No byte of a request is here: the connection is as idle as it was, and its
 * page goes back, unless half an empty line stands in it. */
static enum empm__state empm__reading_idle(empm__worker *w, empm__conn *c,
                                           empm_request *req, empm__wait *wait,
                                           ssize_t direction)
{
    const uint32_t deadline = empm__load(&c->deadline_ms);
    if (empm__time_is_late(deadline, empm__step_clock(w)) ||
        empm__step_closes_idle(w) ||
        empm__step_wait(w, c, wait, direction, deadline) < 0)
        return EMPM__CLOSED;
    if (req->io.in_end > req->head.start)
        return EMPM__READ_HEAD;
    empm__request_flight_end(w, c);
    wait->want |= EMPM__IDLE;
    return c->requests > 0 ? EMPM__KEEPALIVE : EMPM__READ_HEAD;
}

/* Makes room for more of a head. 0, or the status: 431, 503. */
static int empm__reading_room(empm_request *req)
{
    if (empm__reading_head_is_blank(req))    /* empty lines take no room */
        req->io.in_start = req->head.start;
    if (req->io.in_end == req->io.in_cap && req->io.in_start > 0)
        empm__request_in_shift(req);
    return empm__request_in_room(
        req, (uint32_t)req->w->cfg->limit_request_head + 4096);
}

/* READ_HEAD: parses what is here, then reads, until the head is complete or the
 * socket is empty. Earlier answers go out before it waits: the client may not
 * send its next request before it has them. */
static enum empm__state empm__do_read_head(empm__worker *w, empm__conn *c,
                                           empm__wait *wait)
{
    const empm_config *cfg = w->cfg;
    empm_request *req = empm__request_of(c);
    ssize_t n = EMPM__WANTS_IN;
    int status;
    if (req == NULL && (req = empm__request_borrow(w, c)) == NULL)
        return EMPM__CLOSED;
    for (;;) {
        int r;
        if (req->began_us == 0 && req->io.in_end > req->io.in_start) {
            req->began_us = w->turn_us;
            if (w->s->log_request != NULL)   /* none can ask after a reset */
                empm__request_peer(req);
        }
        r = empm__request_head_parse(req);
        if (r == 0)
            return empm__dispatch_request(w, req);
        if (r != EMPM__MORE)
            return empm__step_refuse(req, r);
        if (req->io.out != NULL)
            return EMPM__WRITE;          /* earlier answers before we wait */
        if (c->flags & EMPM__F_DRAINED)
            break;
        if (w->turn_bytes >= EMPM_TURN_BYTES) {
            if (empm__reading_head_is_blank(req) &&
                empm__time_is_late(empm__load(&c->deadline_ms),
                                   empm__step_clock(w)))
                return EMPM__CLOSED;
            wait->turn_over = 1;
            return EMPM__READ_HEAD;
        }
        if ((status = empm__reading_room(req)) != 0)
            return empm__step_refuse(req, status);
        n = empm__step_recv(w, c, req->io.in + req->io.in_end,
                            req->io.in_cap - req->io.in_end);
        if (n == EMPM__WANTS_IN || n == EMPM__WANTS_OUT)
            break;
        if (n == 0 && !empm__reading_head_is_blank(req)) {
            req->refusal = EMPM__BY_END_OF_INPUT;
            return empm__step_refuse(req, 400); /* RFC 9112 8 */
        }
        if (n <= 0)
            return EMPM__CLOSED;
        req->io.in_end += (uint32_t)n;
        req->last_byte_ms = EMPM__NEVER;
    }
    if (empm__reading_head_is_blank(req))
        return empm__reading_idle(w, c, req, wait, n);
    req->received = req->io.in_end - req->io.in_start;
    return empm__reading_on(w, req, wait, n, cfg->header_timeout_ms,
                            cfg->header_timeout_max_ms, cfg->header_min_rate);
}

/* ---------------------------------------------------------------------------
 * >>reading-body -- a body, into memory or a file
 *
 * A body is kept where it costs least, and moves on as it grows. Its data goes
 * straight to where it belongs; only framing passes through `in`.
 *
 *   in place   behind its head, if the page has room for all of it
 *   memory     a page, then a block, up to LimitBodyInMemory
 *   spool      an unlinked file in SpoolDirectory, mapped when it is complete
 *   pieces     nowhere: on_body has each piece as it comes
 *   drop       nowhere: the request has its answer already
 *
 * Memory, descriptors and room on the disk are taken for bytes that have
 * arrived, never for those that a Content-Length announces: a large number
 * costs a client nothing and the server nothing. All four budgets are those of
 * the child; a body that finds none left is refused by 503, one that the disk
 * has no room for by 507.
 * ------------------------------------------------------------------------- */

/* A call on the spool file has failed: logs it. Returns the status: 507 if the
 * disk is full, else 503. */
static int empm__body_spool_failed(empm_request *req, const char *call)
{
    const int why = errno;
    empm__request_log(req, EMPM_LOG_ERROR, 5004, "SpoolDirectory %s: %s: %s",
                      req->w->cfg->spool_directory, call, strerror(why));
    return why == ENOSPC || why == EDQUOT || why == EFBIG ? 507 : 503;
}

/* Memory for `need` bytes that have arrived, and a NUL; `data` are the last of
 * them. After the room behind the head comes a page, then a multiple of what is
 * needed, at most what is promised. 0, or the status. */
static int empm__body_grow(empm__worker *w, empm_request *req, size_t need,
                           const char *data)
{
    const int page = need < EMPM__PAGE_ROOM;
    const int taken = req->body_big == NULL && need >= EMPM__SCRATCH / 2 &&
                      w->scratch != NULL && data == w->scratch + req->body_len;
    /* long ones grow by eight: each move copies, and touches new memory */
    int64_t cap = (int64_t)need * (need > EMPM__SCRATCH ? 8 : 2);
    int64_t most = w->cfg->limit_body_in_memory;
    char *to;
    if (need < req->body_cap)
        return 0;
    if (req->body_left >= 0 && req->body_len + req->body_left < most)
        most = req->body_len + req->body_left;
    cap = page ? EMPM_PAGE_BYTES : taken ? EMPM__SCRATCH + 1
                                 : (cap < most ? cap : most) + 1;
    if (!empm__budget_reserve(&w->engine->pool.body_memory,
                              cap - req->body_reserved,
                              w->cfg->max_body_memory)) {
        empm__request_log(req, EMPM_LOG_ERROR, 5005, "MaxBodyMemory of %lld is "
                          "reached", (long long)w->cfg->max_body_memory);
        return 503;
    }
    req->body_reserved = cap;
    if (page) {
        if ((req->body_page = empm__page_borrow(w)) == NULL)
            return 503;
        to = empm__page_data(req->body_page);
        if (req->body_len > 0)
            memcpy(to, req->body, (size_t)req->body_len);
        req->body = to;
        req->body_cap = EMPM__PAGE_ROOM;
        return 0;
    }
    if (taken) {
        to = w->scratch;
        w->scratch = NULL;
    } else if ((to = (char *)empm__worker_memory(w, req->body_big,
                                                 (size_t)cap)) == NULL)
        return 503;
    if (req->body_big == NULL && req->body_len > 0)
        memcpy(to, req->body, (size_t)req->body_len);
    empm__page_return(w, req->body_page);
    req->body_page = NULL;
    req->body = req->body_big = to;
    req->body_cap = (size_t)cap;
    return 0;
}

/* Where the next `direct` bytes of body are read to, and how many: to their
 * place if there is room, else to the scratch, behind a gap for what has come
 * before, so that the body can take the scratch over. NULL: no memory. */
static char *empm__body_place(empm__worker *w, const empm_request *req,
                              int64_t direct, size_t *room)
{
    const int in_memory = req->body_mode == EMPM__BODY_MEMORY;
    char *to;
    if (in_memory && (size_t)req->body_len < req->body_cap) {
        *room = req->body_cap - 1 - (size_t)req->body_len;
        if (*room >= EMPM__SCRATCH / 4 || (int64_t)*room >= direct)
            return req->body + req->body_len;
    }
    if ((to = empm__worker_scratch(w)) == NULL)
        return NULL;
    *room = EMPM__SCRATCH;
    if (in_memory && req->body_big == NULL &&
        req->body_len < EMPM__SCRATCH / 2) {
        *room -= (size_t)req->body_len;
        to += req->body_len;
    }
    return to;
}

/* Writes to the spool file, behind what is there. 0, or the status. */
static int empm__body_write(empm_request *req, const char *data, size_t n)
{
    int64_t at = req->body_len;
    while (n > 0) {
        const ssize_t r = pwrite(req->body_fd, data, n, (off_t)at);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return empm__body_spool_failed(req, "write");
        at += r;
        data += r;
        n -= (size_t)r;
    }
    return 0;
}

/* Appends to the spool file, within MaxSpoolBytes. 0, or the status. */
static int empm__body_spool(empm__worker *w, empm_request *req,
                            const char *data, size_t n)
{
    int status;
    if (!empm__pool_spool_reserve(w, EMPM__FOR_BODIES, (int64_t)n)) {
        empm__request_log(req, EMPM_LOG_ERROR, 5005, "MaxSpoolBytes of %lld is "
                          "reached", (long long)w->cfg->max_spool_bytes);
        return 503;
    }
    req->body_spooled += (int64_t)n;
    status = empm__body_write(req, data, n);
    req->body_len += (int64_t)n;
    return status;
}

/* Moves the part of the body that has come from memory to a file, and gives the
 * memory back. 0, or the status. */
static int empm__body_to_file(empm__worker *w, empm_request *req)
{
    const char *memory = req->body;
    const size_t n = (size_t)req->body_len;
    int status = 0;
    if (!empm__pool_fd_reserve(w, EMPM__FOR_BODIES))
        return 503;
    req->body_fd = empm__fd_unnamed_file(w->s->spool_dir);
    if (req->body_fd < 0) {
        status = empm__body_spool_failed(req, "open");
        empm__pool_fd_release(&w->engine->pool, EMPM__FOR_BODIES);
        return status;
    }
    req->body_mode = EMPM__BODY_SPOOL;
    req->body = NULL;
    req->body_len = 0;
    if (n > 0)
        status = empm__body_spool(w, req, memory, n);
    empm__request_body_forget(w, req);
    return status;
}

/* Takes n bytes of body that stand in `data` (which may be where they belong).
 * 0, or the status of the refusal. */
static int empm__body_put(empm__worker *w, empm_request *req, const char *data,
                          size_t n)
{
    const int64_t len = req->body_len + (int64_t)n;
    int status = 0;
    if (req->body_limit > 0 && len > req->body_limit)
        return 413;
    if (req->body_mode == EMPM__BODY_DROP) {
        req->body_len = len;
        return 0;
    }
    if (req->body_mode == EMPM__BODY_PIECES) {
        const empm_route *u = req->route->user;
        req->body_len = len;
        w->calling = EMPM__CALL_OTHER;
        status = u->on_body(req, data, n, u->user);
        w->calling = EMPM__CALL_NONE;
        req->refusal = status != 0 ? EMPM__BY_ON_BODY : EMPM__BY_SERVER;
        return status == 0 || (status >= 200 && status <= 599) ? status : 500;
    }
    if ((uint64_t)len > SIZE_MAX / 2)    /* 32 bit: it could not be mapped */
        return 413;
    if (req->body_mode == EMPM__BODY_MEMORY) {
        if (len < EMPM__PAGE_ROOM || len <= w->cfg->limit_body_in_memory) {
            status = empm__body_grow(w, req, (size_t)len, data);
            if (status != 0)
                return status;
            if (data != req->body + req->body_len)
                memcpy(req->body + req->body_len, data, n);
            req->body_len = len;
            return 0;
        }
        status = empm__body_to_file(w, req);
    }
    return status != 0 ? status : empm__body_spool(w, req, data, n);
}

/* Decides where the body will be kept, and asks for it: 100 Continue. Bytes
 * that have come behind the head are where the body begins, so a longer body
 * than the page has room for begins there and moves on. 0, or the status. */
static int empm__body_begin(empm_request *req)
{
    const int64_t left = req->body_left;
    const uint32_t room = req->io.in_cap - req->io.in_start;
    if (req->route->user->on_body != NULL)
        req->body_mode = EMPM__BODY_PIECES;
    else if (left > 0 && left < room)
        req->body_mode = EMPM__BODY_IN_PLACE;
    else {
        req->body_mode = EMPM__BODY_MEMORY;
        if (left > room) {               /* it begins there, and moves on */
            req->body = req->io.in + req->io.in_start;
            req->body_cap = room;
            req->body_len = req->io.in_end - req->io.in_start;
            req->body_left -= req->body_len;
            req->io.in_start = req->io.in_end = req->io.in_cap;
        }
    }
    empm__head_init(&req->trailers, NULL, 0, 0);
    /* RFC 9110 10.1.1: only now is the body wanted, and only if none is here */
    if ((req->head.flags & EMPM__H_EXPECT) && req->head.minor > 0 &&
        req->io.in_end == req->io.in_start && req->body_len == 0 &&
        empm__io_copy(req->w, &req->io, "HTTP/1.1 100 Continue\r\n\r\n",
                      25) < 0)
        return 503;
    return 0;
}

/* The body is complete: one piece, a NUL behind it. 0, or a status. */
static int empm__body_end(empm_request *req)
{
    req->body_open = 0;
    if (req->body_mode == EMPM__BODY_IN_PLACE) {
        req->body = req->io.in + req->io.in_start;
        req->body_len = req->body_left;
        req->io.in_start += (uint32_t)req->body_left;
    } else if (req->body_mode == EMPM__BODY_SPOOL) {
        void *m;
        /* The NUL is written: a hole needs a block when it is looked at, and
         * on a full tmpfs that is SIGBUS */
        const int status = empm__body_write(req, "", 1);
        if (status != 0)
            return status;
        m = mmap(NULL, (size_t)req->body_len + 1, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE, req->body_fd, 0);
        if (m == MAP_FAILED)
            return empm__body_spool_failed(req, "mmap");
        req->body = (char *)m;
        return 0;
    }
    if (req->body != NULL && req->body_mode != EMPM__BODY_PIECES) {
        req->body_nul = req->body + req->body_len;
        req->body_saved = *req->body_nul;
        *req->body_nul = '\0';
    }
    return 0;
}

/* Consumes what is at hand. Returns 0: the body is complete; a status;
 * EMPM__MORE, and *direct tells how much of it is data; EMPM__TURN. */
static int empm__body_consume(empm__worker *w, empm_request *req,
                              int64_t *direct)
{
    const int chunked = (req->head.flags & EMPM__H_CHUNKED) != 0;
    *direct = 0;
    if (req->body_mode == EMPM__BODY_IN_PLACE)
        return (int64_t)(req->io.in_end - req->io.in_start) >= req->body_left
                   ? 0 : EMPM__MORE;
    for (;;) {
        int64_t left = req->body_left;
        size_t n;
        int status;
        if (chunked) {
            status = empm__request_chunk_parse(req);
            if (status != EMPM__DATA)
                return status;
            left = req->chunked.left > INT64_MAX ? INT64_MAX
                                                 : (int64_t)req->chunked.left;
            if (req->body_limit > 0 &&
                left > req->body_limit - req->body_len)
                return 413;
        } else if (left == 0)
            return 0;
        n = req->io.in_end - req->io.in_start;
        if ((int64_t)n > left)
            n = (size_t)left;
        if (n == 0) {
            *direct = left;
            return EMPM__MORE;
        }
        status = empm__body_put(w, req, req->io.in + req->io.in_start, n);
        if (status != 0)
            return status;
        req->io.in_start += (uint32_t)n;
        if (chunked)
            req->chunked.left -= n;
        else
            req->body_left -= (int64_t)n;
        if (req->body_mode == EMPM__BODY_PIECES) {
            w->turn_us = empm__now_us();     /* on_body may take its time */
            if (empm__turn_is_over(w))
                return EMPM__TURN;
        }
    }
}

/* Reads more: data straight to where it goes, framing into `in`. As
 * empm__step_recv(); a status above 99 is a refusal. */
static ssize_t empm__body_recv(empm__worker *w, empm__conn *c,
                               empm_request *req, int64_t direct)
{
    const uint32_t floor = req->head.line;
    const int trailers = req->trailers.nfields > 0;
    const uint32_t kept = trailers ? req->trailers.fields[0].name : floor;
    ssize_t n;
    int status;
    /* framing that has been dealt with gives way; trailers must stay */
    if (req->body_mode != EMPM__BODY_IN_PLACE &&
        req->body != req->io.in + floor &&
        req->io.in_start == req->io.in_end && !trailers)
        req->io.in_start = req->io.in_end = floor;
    if (direct > (int64_t)(req->io.in_cap - req->io.in_end)) {
        size_t room;
        char *to = empm__body_place(w, req, direct, &room);
        if (to == NULL)
            return 503;
        if ((int64_t)room > direct)
            room = (size_t)direct;
        n = empm__step_recv(w, c, to, room);
        if (n <= 0)
            return n;
        status = empm__body_put(w, req, to, (size_t)n);
        if (status != 0)
            return status;
        if (req->head.flags & EMPM__H_CHUNKED)
            req->chunked.left -= (uint64_t)n;
        else
            req->body_left -= n;
    } else {
        /* what is left of the framing moves up; trailers stay where they are */
        if (req->io.in_end == req->io.in_cap && req->io.in_start > floor &&
            !trailers) {
            memmove(req->io.in + floor, req->io.in + req->io.in_start,
                    req->io.in_end - req->io.in_start);
            req->io.in_end -= req->io.in_start - floor;
            req->io.in_start = floor;
        }
        if ((status = empm__request_in_room(req, kept + (uint32_t)w->cfg->
                                             limit_request_head + 4096)) != 0)
            return status;
        n = empm__step_recv(w, c, req->io.in + req->io.in_end,
                            req->io.in_cap - req->io.in_end);
        if (n <= 0)
            return n;
        req->io.in_end += (uint32_t)n;
    }
    req->received += n;
    req->last_byte_ms = EMPM__NEVER;
    return 1;
}

/* READ_BODY: uses what is here, sends what waits, reads, until the body is
 * complete, refused, or the socket is empty. A turn that is over sends it
 * behind others in the queue, with its state as it is. */
static enum empm__state empm__do_read_body(empm__worker *w, empm__conn *c,
                                           empm__wait *wait)
{
    const empm_config *cfg = w->cfg;
    empm_request *req = empm__request_of(c);
    ssize_t n = EMPM__WANTS_IN;
    int status, tried = 0;
    if (req->body_mode == EMPM__BODY_NONE &&
        (status = empm__body_begin(req)) != 0)
        return empm__step_refuse(req, status);
    if (req->body_mode == EMPM__BODY_PIECES)
        empm__turn_may_block(w, req->route);
    for (;;) {
        int64_t direct;
        status = empm__body_consume(w, req, &direct);
        if (status == 0 && (status = empm__body_end(req)) == 0)
            return req->body_mode == EMPM__BODY_DROP ? EMPM__WRITE
                                                     : EMPM__HANDLE;
        if (status > 0)
            return empm__step_refuse(req, status);
        /* 100 Continue, earlier answers, what on_body says: unless the socket
         * was full a moment ago */
        if (req->io.out != NULL &&
            (!tried || req->io.out_left != req->io.out_tried ||
             empm__conn_noted(c, EMPM__READY_OUT))) {
            const enum empm__flushed r = empm__step_push(w, req);
            tried = 1;
            if (r == EMPM__CUT || r == EMPM__LATE)
                return EMPM__CLOSED;
            if (r == EMPM__TURN_OVER)
                status = EMPM__TURN;
        }
        if (status == EMPM__TURN) {
            wait->turn_over = 1;
            return EMPM__READ_BODY;
        }
        if (c->flags & EMPM__F_DRAINED)
            break;
        if (empm__turn_is_over(w)) {
            wait->turn_over = 1;
            return EMPM__READ_BODY;
        }
        n = empm__body_recv(w, c, req, direct);
        if (n == EMPM__WANTS_IN || n == EMPM__WANTS_OUT)
            break;
        w->turn_us = empm__now_us();
        if (n == 0) {                    /* it may still read: RFC 9112 8 */
            if (req->body_mode != EMPM__BODY_DROP)
                req->refusal = EMPM__BY_END_OF_INPUT;
            return empm__step_refuse(req, 400);
        }
        if (n < 0)
            return EMPM__CLOSED;
        if (n > 99)
            return empm__step_refuse(req, (int)n);
    }
    return empm__reading_on(w, req, wait, n, cfg->body_timeout_ms,
                            cfg->body_timeout_max_ms, cfg->body_min_rate);
}

/* ---------------------------------------------------------------------------
 * >>handling -- the steps HANDLE and SUSPENDED
 *
 * The handler runs here, and may block. A route whose calls have been quick so
 * far has credit: it is called while this worker still counts as running, and
 * answers of several requests leave together. Any other route is called after
 * the worker has left the running ones, so that another one takes its place.
 *
 * A suspension holds no worker. Exactly one call of its function is owed from
 * the moment that the handler has returned EMPM_SUSPENDED, whatever happens:
 *
 *   NONE --empm_suspend()--> ARMED --handler returns EMPM_SUSPENDED--> WAITING
 *   ARMED --handler answers--> NONE         its ticket is stale from here
 *   WAITING --a reason is found--> DUE --its function is called--> NONE
 *   DUE, HALF_CLOSED: the function may go back to sleep with the same ticket
 * ------------------------------------------------------------------------- */

EMPM_API empm_ticket empm_suspend(empm_request *req, int timeout_ms,
                                  empm_wake *fn, void *user)
{
    if (fn == NULL || timeout_ms <= 0 ||
        req->w->calling != EMPM__CALL_HANDLER ||
        req->suspension != EMPM__SUSP_NONE || req->failed ||
        !empm__request_may_add(req) ||
        empm__conn_noted(req->c, EMPM__READY_HUP) ||
        empm__step_closes_idle(req->w))
        return 0;
    req->wake = fn;
    req->wake_user = user;
    req->wake_deadline = empm__time_after(empm__step_clock(req->w), timeout_ms);
    req->suspension = EMPM__SUSP_ARMED;
    empm__conn_next_serial(req->c);
    return (uint64_t)empm__load(&req->c->serial) << 32 | req->w->index;
}

/* Goes by what a handler or the function of a suspension has returned: the
 * request waits, or its answer is finished. */
static enum empm__state empm__handling_after_call(empm_request *req, int rc)
{
    if (req->suspension == EMPM__SUSP_ARMED && rc == EMPM_SUSPENDED) {
        empm__request_answered(req, EMPM__BEGUN);
        /* from here its function will be called, whatever fails */
        req->suspension = EMPM__SUSP_WAITING;
        if (req->written > 0 && !req->failed)
            empm__response_push_body(req);
        return EMPM__SUSPENDED;
    }
    if (req->suspension == EMPM__SUSP_ARMED) {    /* but it has answered */
        req->suspension = EMPM__SUSP_NONE;
        empm__conn_next_serial(req->c);
    }
    empm__response_finish(req, rc);
    return EMPM__WRITE;
}

/* Calls the function of a suspension with the reason that has been found. A
 * client that has ended its side may still read: that is told once, and the
 * function may wait on. */
static int empm__handling_wake_call(empm_request *req)
{
    const enum empm_why why = (enum empm_why)req->wake_why;
    const uint32_t serial = empm__load(&req->c->serial);
    int rc;
    req->suspension = EMPM__SUSP_NONE;
    req->wake_why = 0;
    if (why == EMPM_HALF_CLOSED)
        req->told_half = 1;              /* the ticket may stay good */
    else
        empm__conn_next_serial(req->c);
    rc = req->wake(req, why, req->wake_user);
    if (why == EMPM_HALF_CLOSED && req->suspension == EMPM__SUSP_NONE) {
        if (rc == EMPM_SUSPENDED)
            req->suspension = EMPM__SUSP_ARMED;   /* as it was */
        else if (empm__load(&req->c->serial) == serial)
            empm__conn_next_serial(req->c);
    }
    return rc;
}

/* HANDLE: calls the handler, or the function of a suspension that is due, and
 * books its time. A call that is owed is made even if the connection is lost or
 * its route has too many workers. */
static enum empm__state empm__do_handle(empm__worker *w, empm__conn *c,
                                        empm__wait *wait)
{
    empm_request *req = empm__request_of(c);
    empm__route *r = req->route;
    const empm_route *u = r->user;
    uint64_t before, after;
    uint32_t credit;
    const int first = req->suspension != EMPM__SUSP_DUE;
    int rc;
    (void)wait;                      /* it never waits */
    /* Answers of earlier requests must not wait for a handler that may block;
     * one that has been quick so far may go first, and they go out together */
    if (req->io.out != NULL && !req->failed &&
        empm__load(&r->quick) < EMPM__QUICK &&
        empm__response_flush(req) == EMPM__CUT) {
        if (first)
            return EMPM__CLOSED;
        empm__response_fail(req, EMPM_ECLOSED, "");
    }
    if (u->max_workers > 0 &&
        __atomic_add_fetch(&r->running, 1u, __ATOMIC_RELAXED) >
            (uint32_t)u->max_workers && first) {
        __atomic_sub_fetch(&r->running, 1u, __ATOMIC_RELAXED);
        empm__response_answer(req, 503);
        return EMPM__WRITE;
    }
    if (empm__load(&r->quick) < EMPM__QUICK)
        empm__queue_leave(&w->engine->queue, w->number);
    else
        empm__store(&w->engine->sleepers[w->number].quick, &r->quick);
    before = w->turn_us;
    w->calling = EMPM__CALL_HANDLER;
    rc = first ? r->handler(req, u->user) : empm__handling_wake_call(req);
    w->calling = EMPM__CALL_NONE;
    if (u->max_workers > 0)
        __atomic_sub_fetch(&r->running, 1u, __ATOMIC_RELAXED);
    after = empm__now_us();
    w->now_ms = empm__time_us_to_ms(after);
    w->turn_us = after;
    credit = empm__load(&r->quick);
    if (after - before > 100)
        empm__store(&r->quick, after - before > 1000 || credit < 4
                                   ? 0 : credit - 4);
    else if (credit < 16)
        empm__store(&r->quick, credit + 1);
    if (!first)                      /* a wake is as much work as a request */
        w->turn_requests++;
    return empm__handling_after_call(req, rc);
}

/* SUSPENDED: sends what waits, and looks for a reason to call the function.
 * Of several the first one in this order is told: resumed, gone, stopping, too
 * late, half closed. A worker comes here for each event, since output can wait,
 * too. */
static enum empm__state empm__do_suspended(empm__worker *w, empm__conn *c,
                                           empm__wait *wait)
{
    empm_request *req = empm__request_of(c);
    const uint32_t why = c->why;
    uint32_t now;
    int pending = 0;
    c->why = 0;
    if (req->io.out != NULL && !req->failed) {
        const enum empm__flushed r = empm__step_push(w, req);
        if (r == EMPM__CUT || r == EMPM__LATE)
            empm__response_fail(req, EMPM_ECLOSED, "");
        pending = r == EMPM__BLOCKED;
        if (r == EMPM__TURN_OVER) {
            c->why = (uint16_t)why;
            wait->turn_over = 1;
            return EMPM__SUSPENDED;
        }
    }
    now = empm__step_clock(w);
    if (why & EMPM__READY_RESUME)
        req->wake_why = EMPM_RESUMED;
    else if (req->failed || empm__conn_noted(c, EMPM__READY_HUP))
        req->wake_why = EMPM_GONE;
    else if (empm__step_closes_idle(w))
        req->wake_why = EMPM_STOPPING;
    else if (empm__time_is_late(req->wake_deadline, now))
        req->wake_why = EMPM_TIMEOUT;
    else if (!req->told_half && empm__conn_noted(c, EMPM__READY_RDHUP))
        req->wake_why = EMPM_HALF_CLOSED;
    if (req->wake_why == 0) {
        wait->want = EMPM__WANT(EMPM__READY_RESUME | EMPM__READY_STOP);
        if (!req->told_half)
            wait->want |= EMPM__WANT(EMPM__READY_RDHUP);
        wait->deadline_ms = req->wake_deadline;
        return pending && empm__step_wait_write(w, req, wait) < 0
                   ? EMPM__CLOSED : EMPM__SUSPENDED;
    }
    req->suspension = EMPM__SUSP_DUE;
    return EMPM__HANDLE;
}

EMPM_API void empm_after_fork(void)
{
    sigset_t none;
    sigemptyset(&none);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    signal(SIGTERM, SIG_DFL);        /* its handler writes to our pipe */
    signal(SIGCHLD, SIG_DFL);
    signal(SIGALRM, SIG_DFL);       /* GracefulStopSignal may be one of these */
    signal(SIGIO, SIG_DFL);
    signal(SIGURG, SIG_DFL);
#ifdef SIGPWR
    signal(SIGPWR, SIG_DFL);
#endif
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    signal(SIGWINCH, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    signal(SIGUSR1, SIG_DFL);
    signal(SIGUSR2, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* ---------------------------------------------------------------------------
 * >>writing -- the steps WRITE, KEEPALIVE and LINGER
 *
 * A slow reader costs its pages and no worker: what the socket does not take
 * waits in the io. When all is sent the connection goes on, or ends. Its end
 * takes care that the client can read the last answer: a socket that is closed
 * with unread input in it resets the connection, and the answer with it (RFC
 * 9112 9.6). So the server says FIN, and reads and drops for a while:
 *
 *   ending           what the client may still send       wait for its FIN
 *   CLOSES_ASKED     nothing                              no: close
 *   CLOSES           its next request                     LingerTimeoutShort
 *   CLOSES_UNREAD    the rest of a request, or many       LingerTimeout
 * ------------------------------------------------------------------------- */

/* Closes so that the client learns that the answer is not whole. */
static enum empm__state empm__writing_abort(empm__conn *c)
{
    c->flags |= EMPM__F_RESET;
    return EMPM__CLOSED;
}

/* From here the client has KeepAliveTimeout to begin its next request. */
static void empm__writing_keep(empm__worker *w, empm__conn *c)
{
    empm__store(&c->deadline_ms,
                empm__time_after(w->now_ms, w->cfg->keep_alive_timeout_ms));
}

/* All is sent. Returns the state that follows: the next request, which may be
 * here already, KEEPALIVE, LINGER or CLOSED. */
static enum empm__state empm__writing_after(empm__worker *w, empm__conn *c,
                                            empm_request *req)
{
    const int more = req->io.in_end > req->io.in_start;
    empm__request_log_line(req, req->failed != 0);
    if (req->failed)                 /* a length or chunks tell that it is not
                                        whole, or a reset */
        empm__request_closes(req, EMPM__CLOSES);
    if (req->framing == EMPM__BY_CLOSE) {
        if (req->failed)
            return EMPM__CLOSED;
        c->flags &= (uint8_t)~EMPM__F_RESET;
    }
    if (req->ending != EMPM__STAYS || req->body_open) {
        int linger = req->ending == EMPM__CLOSES_UNREAD || req->body_open ||
                     more;
        if (!linger && req->ending == EMPM__CLOSES) {
            /* we close, not the client: its next request may be under way; in
             * a stop we wait only if it is here */
            c->flags |= EMPM__F_SHORT;
            linger = !empm__load(&w->engine->stopping) ||
                     empm__transport_of(c)->pending(c) > 0;
        }
        empm__request_flight_end(w, c);
        return empm__step_finish(w, c, linger);
    }
    empm__writing_keep(w, c);
    if (more) {                          /* it may be an empty line only */
        empm__request_next(req);
        return EMPM__READ_HEAD;
    }
    empm__request_flight_end(w, c);
    return EMPM__KEEPALIVE;
}

/* WRITE: sends, lets the producer make more, and goes on with the next request.
 * The answers of pipelined requests gather in the io as long as they are small,
 * and leave in one call. */
static enum empm__state empm__do_write(empm__worker *w, empm__conn *c,
                                       empm__wait *wait)
{
    empm_request *req = empm__request_of(c);
    for (;;) {
        enum empm__flushed r;
        int error;
        if (req->failed || req->answer == EMPM__COMPLETE)
            empm__request_release(req);
        if (req->failed == EMPM_ECLOSED)
            return empm__writing_abort(c);
        if (req->answer == EMPM__COMPLETE && !req->failed &&
            req->ending == EMPM__STAYS &&
            !req->body_open &&
            req->io.in_end > req->io.in_start &&
            req->io.out_left < EMPM__PAGE_ROOM &&
            !empm__turn_is_over(w)) {
            empm__request_log_line(req, 0);
            empm__writing_keep(w, c);
            empm__request_next(req);     /* its answer joins this one */
            return EMPM__READ_HEAD;
        }
        r = empm__step_push(w, req);
        if (r == EMPM__CUT)
            return EMPM__CLOSED;
        if (r == EMPM__LATE)
            return empm__writing_abort(c);
        if (r == EMPM__TURN_OVER) {
            wait->turn_over = 1;
            return EMPM__WRITE;
        }
        if (r == EMPM__BLOCKED)
            return empm__step_wait_write(w, req, wait) < 0 ? EMPM__CLOSED
                                                           : EMPM__WRITE;
        if (req->failed)                 /* what was before it has gone out */
            return empm__writing_after(w, c, req);
        if (req->answer == EMPM__STREAMING) {
            if ((error = empm__response_produce(req)) < 0)
                empm__response_fail(req, error, "the producer has failed");
            w->turn_us = empm__now_us();
            if (w->turn_us - w->turn_start_us < EMPM_TURN_US || req->failed)
                continue;
            wait->turn_over = 1;
            return EMPM__WRITE;
        }
        if (empm__request_head_is_open(req)) {  /* between two requests */
            empm__writing_keep(w, c);
            return EMPM__READ_HEAD;
        }
        empm__io_spool_close(w, &req->io);
        if (empm__turn_is_over(w) && req->io.in_end > req->io.in_start &&
            req->ending == EMPM__STAYS && !req->body_open) {
            wait->turn_over = 1;
            return EMPM__WRITE;
        }
        return empm__writing_after(w, c, req);
    }
}

/* KEEPALIVE: reads the first bytes of a next request, or waits without a page.
 * The deadline was set when the answer had been sent. */
static enum empm__state empm__do_keepalive(empm__worker *w, empm__conn *c,
                                           empm__wait *wait)
{
    const uint32_t deadline = empm__load(&c->deadline_ms);
    ssize_t n = EMPM__WANTS_IN;
    if (!(c->flags & EMPM__F_DRAINED)) {
        empm_request *req = empm__request_borrow(w, c);
        if (req == NULL)
            return EMPM__CLOSED;
        n = empm__step_recv(w, c, req->io.in, req->io.in_cap);
        if (n > 0) {
            req->io.in_end = (uint32_t)n;
            return EMPM__READ_HEAD;
        }
        empm__request_flight_end(w, c);
        if (n == 0 || n == EMPM__LOST)
            return EMPM__CLOSED;
    }
    if (empm__step_closes_idle(w) || empm__time_is_late(deadline, w->now_ms) ||
        empm__step_wait(w, c, wait, n, deadline) < 0)
        return EMPM__CLOSED;
    wait->want |= EMPM__IDLE | EMPM__KEEP;
    return EMPM__KEEPALIVE;
}

/* Reads and drops what the client still sends, so that it gets to read our
 * last answer: close() with unread input would reset the connection. RFC
 * 9112 9.6. */
static enum empm__state empm__do_linger(empm__worker *w, empm__conn *c,
                                        empm__wait *wait)
{
    /* a stop ends it after LingerTimeoutShort, whenever it began */
    const uint32_t deadline = empm__time_earlier(
        empm__load(&c->deadline_ms), empm__load(&w->engine->linger_end_at_ms));
    char *scratch = empm__worker_scratch(w);
    ssize_t n = EMPM__WANTS_IN;
    while (scratch != NULL && !(c->flags & EMPM__F_DRAINED)) {
        n = empm__step_recv(w, c, scratch, EMPM__SCRATCH);
        if (n == EMPM__WANTS_IN || n == EMPM__WANTS_OUT)
            break;
        if (n <= 0)
            return EMPM__CLOSED;
        c->requests += (uint32_t)(n + 1023) / 1024;
        if (w->cfg->limit_linger_bytes > 0 &&
            (int64_t)c->requests * 1024 >= w->cfg->limit_linger_bytes)
            return EMPM__CLOSED;
        if (w->turn_bytes >= EMPM_TURN_BYTES) {
            wait->turn_over = 1;
            return EMPM__LINGER;
        }
    }
    if (scratch == NULL || empm__time_is_late(deadline, empm__step_clock(w)) ||
        (empm__load(&w->engine->stopping) && empm__fd_unacked(c->fd) == 0) ||
        empm__step_wait(w, c, wait, n, deadline) < 0)
        return EMPM__CLOSED;            /* late, or a stop and it has arrived */
    wait->want |= EMPM__WANT(EMPM__READY_STOP);
    return EMPM__LINGER;
}

/* ---------------------------------------------------------------------------
 * >>conn -- the life of a connection
 *
 *                        accept (listener)
 *                           |
 *                           v
 *      +---------------  HANDSHAKE  (Listen ... proxy: its header)
 *      |                    |
 *      |                    v
 *      |   +---------->  READ_HEAD  ---- bad or late: 400 408 414 431 ... --+
 *      |   |                |  \----- no body ----+                         |
 *      |   |                v                     |                         |
 *      |   |             READ_BODY -- refused, too large, late: 4xx --------+
 *      |   |                |                     |                         |
 *      |   |                v                     v                         |
 *      |   |             HANDLE  <----- resumed, timed out ---- SUSPENDED   |
 *      |   |                |  \-------- suspended ----------->  ^          |
 *      |   |                v                                               |
 *      |   |             WRITE   <------------------------------------------+
 *      |   |              |     \
 *      |   |              |      \ unread input is possible
 *      |   |              v       v
 *      |   +-- next -- KEEPALIVE  LINGER  (FIN sent, reading and dropping)
 *      |                  |         |
 *      +---- failed ------+----->  CLOSED
 *
 *   from       to         by                   when
 *   HANDSHAKE  READ_HEAD  empm__do_handshake   PROXY header, handshake complete
 *   HANDSHAKE  LINGER     empm__do_handshake   the handshake is refused
 *   READ_HEAD  READ_BODY  empm__do_read_head   head acceptable, a body follows
 *   READ_HEAD  HANDLE     empm__do_read_head   head acceptable, no body
 *   READ_HEAD  WRITE      empm__do_read_head   refused; or earlier answers wait
 *   READ_HEAD  KEEPALIVE  empm__do_read_head   only empty lines have come
 *   READ_BODY  HANDLE     empm__do_read_body   body complete
 *   READ_BODY  WRITE      empm__do_read_body   refused; or answered before
 *   HANDLE     SUSPENDED  empm__do_handle      the handler said so
 *   HANDLE     WRITE      empm__do_handle      answered
 *   SUSPENDED  HANDLE     empm__do_suspended   a reason to wake up
 *   WRITE      READ_HEAD  empm__do_write       pipelined input is in hand
 *   WRITE      KEEPALIVE  empm__do_write       all sent, nothing in hand
 *   WRITE      LINGER     empm__do_write       closing, unread input possible
 *   KEEPALIVE  READ_HEAD  empm__do_keepalive   bytes have arrived
 *   any        CLOSED     its own step         failed, late, or done
 *
 * runs on   a worker that owns the connection
 * ------------------------------------------------------------------------- */

/* --- HTTP/1.1 ------------------------------------------------------------- */

/* The request is this worker's from here, and the scoreboard shows it. */
static void empm__http1_taken(empm__worker *w, empm__conn *c)
{
    empm_request *req = empm__request_of(c);
    req->w = w;
    if (req->head_us != 0)
        empm__request_score(w, req);
}

/* A request that has begun has a line in the access log, however it ends. */
static void empm__http1_retire(empm__worker *w, empm__conn *c)
{
    if (c->io != NULL) {
        empm__request_of(c)->w = w;
        empm__request_log_line(empm__request_of(c), 1);
    }
    empm__request_flight_end(w, c);
}

/* A suspension that has begun is told first. */
static enum empm__state empm__http1_cut(empm__conn *c)
{
    empm_request *req = empm__request_of(c);
    if (req == NULL || req->suspension < EMPM__SUSP_WAITING)
        return EMPM__CLOSED;
    req->failed = EMPM_ECLOSED;
    req->suspension = EMPM__SUSP_DUE;
    req->wake_why = EMPM_GONE;
    return EMPM__HANDLE;
}

#ifdef EMPM__CHECKS                  /* the tests define it */
/* The rule that a connection breaks as it enters a state, or NULL. */
static const char *empm__http1_fault(const empm__worker *w,
                                     const empm__conn *c, enum empm__state to)
{
    const empm_request *req = empm__request_of(c);
    const int idle = to == EMPM__KEEPALIVE || to == EMPM__LINGER;
    if (w->calling != EMPM__CALL_NONE)
        return "no function of the user's runs between two steps";
    if (req == NULL)
        return idle || to <= EMPM__READ_HEAD || to == EMPM__CLOSED
                   ? NULL : "this state needs a request";
    if (idle)
        return "an idle connection holds no page";
    if (req->suspension == EMPM__SUSP_ARMED)
        return "a suspension is armed while its handler runs only";
    if ((req->suspension == EMPM__SUSP_WAITING) != (to == EMPM__SUSPENDED))
        return "SUSPENDED is the state of a suspension that waits";
    if ((req->suspension == EMPM__SUSP_DUE) != (req->wake_why != 0) ||
        (req->wake_why != 0 && to != EMPM__HANDLE))
        return "a suspension that is due has a reason, and HANDLE calls it";
    if ((req->framing == EMPM__UNFRAMED) != empm__request_head_is_open(req))
        return "a body is framed when its head is decided";
    if (empm__request_head_is_open(req) &&
        (req->producer != NULL || req->source != NULL) !=
            (req->answer == EMPM__PROMISED))
        return "a promised answer has a producer or a source";
    if (to == EMPM__WRITE && !req->failed &&
        req->answer > EMPM__UNANSWERED && req->answer < EMPM__STREAMING)
        return "an answer is written when nobody adds to it any more";
    return NULL;
}
#endif

static const empm__protocol empm__http1 = {
    "http/1.1",
    { empm__do_handshake, empm__do_read_head, empm__do_read_body,
      empm__do_handle, empm__do_suspended, empm__do_write, empm__do_keepalive,
      empm__do_linger, NULL },
    empm__http1_taken, empm__http1_cut, empm__http1_retire,
    empm__response_head_write, empm__response_chunk, empm__response_end_chunks
};

/* What the records' field `protocol` means; no record that runs has FREE. */
static const empm__protocol *empm__protocol_of(const empm__conn *c)
{
    static const empm__protocol *const list[EMPM__PROTOCOLS] = {
        &empm__http1, &empm__http1
    };
    return list[c->protocol];
}

/* Does the picture have this way? From any state there is one to CLOSED. */
static int empm__conn_transition_ok(int from, int to)
{
    static const uint16_t table[EMPM__STATES] = {
        /* HANDSHAKE */ 1 << EMPM__READ_HEAD | 1 << EMPM__LINGER,
        /* READ_HEAD */ 1 << EMPM__READ_BODY | 1 << EMPM__HANDLE |
                        1 << EMPM__WRITE | 1 << EMPM__KEEPALIVE,
        /* READ_BODY */ 1 << EMPM__HANDLE | 1 << EMPM__WRITE,
        /* HANDLE    */ 1 << EMPM__SUSPENDED | 1 << EMPM__WRITE,
        /* SUSPENDED */ 1 << EMPM__HANDLE,
        /* WRITE     */ 1 << EMPM__READ_HEAD | 1 << EMPM__KEEPALIVE |
                        1 << EMPM__LINGER,
        /* KEEPALIVE */ 1 << EMPM__READ_HEAD,
        /* LINGER    */ 0,
        /* CLOSED    */ 0
    };
    return to == EMPM__CLOSED || (table[from] >> to & 1);
}

#ifndef EMPM__ON_TRANSITION        /* the tests listen here */
#  define EMPM__ON_TRANSITION(from, to) (void)0
#endif

/* letter: the scoreboard shows it of a worker that runs a connection. */
#define EMPM__STATE_WAITS(name, letter, column, label, key) { letter, #name },
#define EMPM__STATE_RUNS(name, letter) { letter, #name },
static const struct { char letter, name[11]; } empm__states[EMPM__STATES] = {
    EMPM__STATE_LIST(EMPM__STATE_WAITS, EMPM__STATE_RUNS)
};
#undef EMPM__STATE_WAITS
#undef EMPM__STATE_RUNS

/* The one place that sets c->state. */
static void empm__conn_enter(empm__worker *w, empm__conn *c,
                             enum empm__state to)
{
    EMPM__ON_TRANSITION((int)c->state, (int)to);
#ifdef EMPM__CHECKS
    if (empm__http1_fault(w, c, to) != NULL) {
        empm__worker_log(w, EMPM_LOG_CRIT, 5006, "from %s to %s: %s",
                         empm__states[c->state].name, empm__states[to].name,
                         empm__http1_fault(w, c, to));
        abort();
    }
#endif
    if (!empm__conn_transition_ok((int)c->state, (int)to)) {
        empm__worker_log(w, EMPM_LOG_CRIT, 5006, "no way from %s to %s",
                         empm__states[c->state].name, empm__states[to].name);
        to = EMPM__CLOSED;
    }
    c->state = (uint8_t)to;
    empm__store(&w->score->status, (uint32_t)empm__states[to].letter);
}

/* The connection's end, as far as a worker goes: the listener frees the
 * record. */
static void empm__conn_retire(empm__worker *w, empm__conn *c)
{
    empm__engine *e = w->engine;
    const uint32_t i = w->index;
    empm__protocol_of(c)->retire(w, c);
    empm__conn_next_serial(c);           /* all tickets are stale from here */
    empm__conn_session_drop(c);
    if (!(c->flags & EMPM__F_CLOSED))
        empm__conn_close(c);
    empm__bump(&w->score->parked[EMPM__CLOSED], 1u);
    __atomic_fetch_or(&c->word, (uint32_t)EMPM__RETIRED, __ATOMIC_ACQ_REL);
    empm__poller_post(&e->poller, i);
    /* nobody waits for this record, unless accepting is paused or the server is
     * stopping: otherwise the listener finds it when it wakes anyway */
    empm__fence();
    if (empm__load(&e->want_retired) || empm__load(&e->stopping))
        empm__poller_wake(&e->poller);
}

/* Gives the connection to the listener; the one place that does. 0: what it
 * waits for has happened, go round again. 1: it must not be touched any
 * more. */
static int empm__conn_release(empm__worker *w, empm__conn *c,
                              const empm__wait *wait)
{
    empm__engine *e = w->engine;
    const uint32_t i = w->index, deadline = wait->deadline_ms;
    uint32_t *parked = &w->score->parked[c->state];
    empm__store(&c->deadline_ms, deadline);
    empm__bump(parked, 1u);
    if (!empm__conn_give(c, wait->want)) {
        empm__bump(parked, (uint32_t)-1);
        return 0;
    }
    /* Not ours any more, but a hint does no harm. While we had it, its place
     * moved to at most a horizon from then: that is too late if less is
     * left. The clock is read now, not before: see `time` in the model. (Two
     * horizons left when we last looked are one at least, or we stood still
     * for longer.) */
    if (!EMPM__EPOLL ||
        (deadline != EMPM__NEVER &&
         empm__time_until(deadline, w->now_ms) < 2 * (int32_t)e->horizon_ms &&
         empm__time_until(deadline, empm__now_ms()) <
         (int32_t)e->horizon_ms) ||
        ((wait->want & EMPM__IDLE) && EMPM__HANDS_OVER(e))) {
        empm__poller_post(&e->poller, i);
        empm__poller_wake(&e->poller);
    }
    return 1;
}

/* Runs the connection until it is closed or has to wait. It is ours on entry
 * and never on return: nothing may touch `c` after this call.
 *
 * A step returns the state to go to. Returning its own state means "I must
 * wait": it has met EAGAIN or a short read without hang-up; `wait` says for
 * what and until when, or that the turn is over. */
static void empm__conn_run(empm__worker *w, uint32_t index)
{
    empm__engine *e = w->engine;
    empm__conn *c = empm__slab_conn(&e->slab, index);
    const empm__protocol *protocol = empm__protocol_of(c);
    w->index = index;
    empm__turn_begin(w);
    empm__store(&w->score->status, (uint32_t)empm__states[c->state].letter);
    if (c->io != NULL)
        protocol->taken(w, c);
    c->flags &= (uint8_t)~(EMPM__F_DRAINED | EMPM__F_MOVED);
    if (c->flags & EMPM__F_CLOSED)
        empm__conn_enter(w, c, protocol->cut(c));
    for (;;) {
        enum empm__state next;
        empm__wait wait = { 0, EMPM__NEVER, 0 };
        if (c->state == EMPM__CLOSED) {
            empm__conn_retire(w, c);
            return;
        }
        next = protocol->step[c->state](w, c, &wait);
        if (next == EMPM__CLOSED ||
            (next == (enum empm__state)c->state && empm__load(&e->abort)))
            next = protocol->cut(c);
        if (next != (enum empm__state)c->state) {
            empm__conn_enter(w, c, next);
        } else if (wait.turn_over) {
            if (empm__queue_length(&e->queue) > 0 ||
                empm__load(&e->queue.gate_closed) ||
                empm__load(&e->queue.listening) == EMPM__NOBODY) {
                empm__queue_push(&e->queue, index);
                return;
            }
            empm__turn_begin(w);
        } else if (empm__conn_release(w, c, &wait)) {
            return;
        } else {
            c->flags &= (uint8_t)~EMPM__F_DRAINED;
        }
    }
}

/* The queue's gate may open: the listener accepts again. */
static void empm__worker_open_gate(void *arg)
{
    empm__poller_order(&((empm__engine *)arg)->poller, EMPM__ORDER_GATE);
}

static void empm__listener_run(void *arg);

/* A handler has ended its thread, which takes worker and connection along:
 * where there is a parent, that is a crash. */
static void empm__worker_lost(void *arg)
{
    empm__worker *w = (empm__worker *)arg;
    empm__engine_log(w->engine, EMPM_LOG_CRIT, 5002, "a handler has ended its "
                     "thread (pthread_exit, pthread_cancel): %s",
                     EMPM__HAS_PARENT(w->s) ? "the child ends"
                                          : "a worker is lost");
    if (EMPM__HAS_PARENT(w->s))
        _exit(1);
}

/* Takes jobs from the queue until the engine ends. Between two jobs the worker
 * may be the listener: empm__queue_pop() calls it and returns when the role is
 * given back. */
static void empm__worker_loop(empm__worker *w)
{
    uint32_t i;
    pthread_cleanup_push(empm__worker_lost, w);
    while ((i = empm__queue_pop(&w->engine->queue, w->number,
                                empm__listener_run, empm__worker_open_gate,
                                w->engine)) != EMPM__NIL) {
        if (i == EMPM__CHORE) {
            empm__store(&w->turn_began, empm__time_after(empm__now_ms(), 0));
            /* a disk may hold us: no time for others */
            empm__wings_chore(w->engine);
            empm__store(&w->turn_began, EMPM__NEVER);
            continue;
        }
        empm__conn_run(w, i);
        empm__store(&w->turn_began, EMPM__NEVER);
        empm__store(&w->score->status, (uint32_t)'_');
    }
    pthread_cleanup_pop(0);
}

/* A worker's thread. The engine's start waits until all of them have called
 * their start hook. */
static void *empm__worker_main(void *arg)
{
    empm__worker *w = (empm__worker *)arg;
    const empm_config *cfg = w->cfg;
    int r = 0;
    if (cfg->on_thread_start != NULL && !w->engine->admin)
        r = cfg->on_thread_start(w->s, &w->thread_data, cfg->user);
    if (r != 0)
        empm__engine_log(w->engine, EMPM_LOG_ERROR, 5007, "on_thread_start has "
                         "returned %d: the child gives up", r);
    pthread_mutex_lock(&w->engine->done_lock);
    w->engine->begun++;
    w->engine->sick += r != 0;
    pthread_cond_broadcast(&w->engine->done_cond);
    pthread_mutex_unlock(&w->engine->done_lock);
    empm__store(&w->score->status, (uint32_t)'_');
    empm__worker_loop(w);
    if (cfg->on_thread_stop != NULL && !w->engine->admin && r == 0)
        cfg->on_thread_stop(w->s, w->thread_data, cfg->user);
    empm__store(&w->score->status, (uint32_t)'.');
    empm__pages_free(w->pages);
    EMPM_FREE(w->scratch);
    w->pages = NULL;
    w->scratch = NULL;
    return NULL;
}

/* ---------------------------------------------------------------------------
 * >>engine -- the threads of one process, and what they share
 *
 * An engine is ThreadsPerChild workers, the standby and all that they share; a
 * process that serves has one, or, without a parent, a second one for the admin
 * endpoints. Its life is init, start, wait and free, in this order.
 *
 * RLIMIT_NOFILE is shared out here: some descriptors are for handlers and the
 * engine itself, a third of the rest for files, the others for connections.
 * ------------------------------------------------------------------------- */

/* Returns the horizon (>>wheel): half of the shortest wait that the settings
 * allow, so that a worker's clock may be a little behind the listener's; from
 * 32 ms, as the wheel's slots are coarse, to 1 s. */
static uint32_t empm__engine_horizon(const empm_config *cfg)
{
    const int waits[] = { cfg->timeout_ms, cfg->keep_alive_timeout_ms,
                          cfg->header_timeout_ms, cfg->body_timeout_ms,
                          cfg->linger_timeout_ms, cfg->linger_short_ms };
    int h = 2000;
    size_t i;
    for (i = 0; i < EMPM__COUNT(waits); i++)
        if (waits[i] > 0 && waits[i] < h)
            h = waits[i];
    return (uint32_t)(h / 2 > 32 ? h / 2 : 32);
}

/* Returns how many descriptors a child needs for itself, and for handlers: two
 * for each worker. */
static int64_t empm__engine_descriptors_own(const empm_config *cfg)
{
    return 32 + EMPM_MAX_LISTEN + 2 * (int64_t)cfg->threads_per_child;
}

/* Returns how many descriptors are for connections and files: what else
 * RLIMIT_NOFILE allows, but half of it where it is very low. */
static int64_t empm__engine_descriptors(const empm_config *cfg)
{
    struct rlimit r;
    const int64_t own = empm__engine_descriptors_own(cfg);
    int64_t most = 1024;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0)
        most = r.rlim_cur > 1000000 ? 1000000 : (int64_t)r.rlim_cur;
    return most > own * 2 ? most - own : most / 2;
}

/* Returns MaxOpenFiles as it comes out: a third of those, or what is set, up to
 * half. */
static uint32_t empm__engine_file_limit(const empm_config *cfg)
{
    const int64_t all = empm__engine_descriptors(cfg);
    int64_t most = all / 3;
    if (cfg->max_open_files > 0)
        most = cfg->max_open_files < all / 2 ? cfg->max_open_files : all / 2;
    return most > 2 ? (uint32_t)most : 2;
}

/* Returns MaxOpenConnections as it comes out: the rest, or what is set. */
static uint32_t empm__engine_connection_limit(const empm_config *cfg)
{
    int64_t most = empm__engine_descriptors(cfg) - empm__engine_file_limit(cfg);
    if (cfg->max_open_connections > 0 && cfg->max_open_connections < most)
        most = cfg->max_open_connections;
    return most > 1 ? (uint32_t)most : 1;
}

/* After the end of all threads, or where init() has given up: what was not made
 * is not there. */
static void empm__engine_free(empm__engine *e)
{
    const empm__wing *const *wing;
    if (e->workers != NULL && e->poller.slab != NULL)
        empm__poller_free(&e->poller);
    if (e->slab.chunks != NULL)
        empm__slab_free(&e->slab);
    empm__counts_free(&e->counts);
    EMPM__EACH_WING(wing, engine_free)
        (*wing)->engine_free(e);
    empm__pages_free(e->pool.free);
    e->pool.free = NULL;
    EMPM_FREE(e->workers);
    EMPM_FREE(e->sleepers);
    e->workers = NULL;
    e->sleepers = NULL;
    pthread_mutex_destroy(&e->queue.lock);
    pthread_mutex_destroy(&e->pool.lock);
    pthread_mutex_destroy(&e->done_lock);
    pthread_cond_destroy(&e->done_cond);
}

/* Workers and where they sleep; their counts go on where the slot's last tenant
 * left them. Returns EMPM_OK or EMPM_ENOMEM. */
static int empm__engine_workers_init(empm__engine *e)
{
    const size_t n = (size_t)e->nworkers;
    size_t i;
    e->sleepers = (empm__sleeper *)EMPM_MALLOC(n * sizeof *e->sleepers);
    e->workers = (empm__worker *)EMPM_MALLOC(n * sizeof *e->workers);
    if (e->sleepers == NULL || e->workers == NULL)
        return EMPM_ENOMEM;
    memset(e->workers, 0, n * sizeof *e->workers);
    for (i = 0; i < n; i++) {
        empm__worker *w = &e->workers[i];
        w->engine = e;
        w->s = e->s;
        w->cfg = e->cfg;
        w->number = (uint32_t)i;
        w->date_s = -1;
        w->score = empm__score_worker_at(&e->s->score, e->slot, (int)i);
        empm__store(&w->score->accesses_before,
                    empm__load(&w->score->accesses));
        empm__store(&w->score->status, (uint32_t)'S');
    }
    return EMPM_OK;
}

/* A condition whose timed waits no change of the date disturbs. */
static void empm__engine_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
#if !defined(__APPLE__)
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
#endif
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

/* Everything up to the first thread. Returns EMPM_OK, EMPM_ENOMEM, or EMPM_ESYS
 * with errno; empm__engine_free() ends what has been made by then. */
static int empm__engine_init(empm__engine *e, empm_server *s, int slot,
                             int admin)
{
    const empm_config *cfg = s->cfg;
    const empm__wing *const *wing;
    int r;
    memset(e, 0, sizeof *e);
    e->s = s;
    e->cfg = cfg;
    e->slot = slot;
    e->nworkers = admin ? 1 : cfg->threads_per_child;
    e->admin = admin;
    e->routes = admin ? &s->admin_routes : &s->routes;
    e->done_fd = -1;
    e->score = empm__score_at(&s->score, slot);
    /* what the slot's last tenant left: gauges go, totals stay */
    empm__score_gauges(&s->score, slot);
    /* until it is decided that this child serves: EMPM__ORDER_ACCEPT */
    e->paused = EMPM__PAUSE_NEW;
    empm__store(&e->score->paused, e->paused);
    e->accepted_before = empm__load(&e->score->accepted);
    e->horizon_ms = empm__engine_horizon(cfg);
    e->linger_end_at_ms = EMPM__NEVER;
    e->drain_ms = cfg->graceful_shutdown_timeout_ms;
    e->stop_at_ms = e->retry_at_ms = EMPM__NEVER;
    e->give_at_ms = e->sweep_at_ms = EMPM__NEVER;
    e->most = empm__engine_connection_limit(cfg);
    e->shares = EMPM__HAS_PARENT(s) && !admin && s->exchange.fd[0] >= 0;
    e->pool.most = cfg->max_mem_free == 0
                        ? SIZE_MAX : (size_t)(cfg->max_mem_free /
                                              EMPM_PAGE_BYTES);
    e->pool.files_most = empm__engine_file_limit(cfg);
    pthread_mutex_init(&e->pool.lock, NULL);
    e->lines_due_at_ms = EMPM__NEVER;
    e->pid = (long)getpid();
    pthread_mutex_init(&e->done_lock, NULL);
    empm__engine_cond_init(&e->done_cond);
    empm__wheel_init(&e->wheel, empm__now_ms());
    if (empm__engine_workers_init(e) < 0 ||
        empm__slab_init(&e->slab, e->most + EMPM__MOVE_MOST,
                        (uint32_t)getpid() * 2654435761u) < 0 ||
        (cfg->max_connections_per_peer > 0 && !admin &&
         empm__counts_init(&e->counts, e->slab.limit) < 0))
        return EMPM_ENOMEM;
    empm__queue_init(&e->queue, &e->slab, e->sleepers, (uint32_t)e->nworkers,
                     empm__processor_count() / (uint32_t)cfg->start_servers,
                     e->score);
    r = empm__poller_init(&e->poller, &e->slab);
    if (r == EMPM_OK && EMPM__SHARES(e) &&
        empm__poller_bell(&e->poller, s->exchange.bell[0]) < 0)
        r = EMPM_ESYS;
    EMPM__EACH_WING(wing, engine_new)
        if (r == EMPM_OK)
            r = (*wing)->engine_new(e);
    return r;
}

/* Starts the threads; on failure none runs. Under empm_start() they block what
 * is the program's: all signals but faults and what debuggers and profilers
 * send to a thread. Under empm_run() none: the main thread hears them, and
 * programs that handlers start would inherit what is blocked. */
static int empm__engine_start(empm__engine *e)
{
    static const int own[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT,
                               SIGTRAP, SIGSYS, SIGPROF };
    const empm_config *cfg = e->cfg;
    pthread_attr_t attr;
    sigset_t all, old;
    int i, r = pthread_attr_init(&attr);
    const int has_attr = r == 0;
    if (has_attr && cfg->thread_stack_size > 0 &&
        pthread_attr_setstacksize(&attr, (size_t)cfg->thread_stack_size) != 0)
        empm__log(cfg, EMPM_LOG_WARN, 2436, "ThreadStackSize of %d is not "
                  "possible here: using the system's", cfg->thread_stack_size);
    sigfillset(&all);
    for (i = 0; i < (int)EMPM__COUNT(own); i++)
        sigdelset(&all, own[i]);
    if (e->s->owns_signals)
        pthread_sigmask(SIG_SETMASK, NULL, &all);    /* as it is */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    /* now, not later: MaxConnectionsPerChild may stop it before we are done */
    empm__store(&e->score->stopping, 0u);
    for (i = 0; i < e->nworkers && r == 0; i++) {
        r = pthread_create(&e->workers[i].thread, &attr, empm__worker_main,
                           &e->workers[i]);
        e->started += r == 0;
    }
    /* nobody listens before all of them have run their start hooks: a child
     * that gives up has accepted nothing */
    pthread_mutex_lock(&e->done_lock);
    while (e->begun < e->started)
        pthread_cond_wait(&e->done_cond, &e->done_lock);
    pthread_mutex_unlock(&e->done_lock);
    if (r == 0 && e->sick == 0)
        r = pthread_create(&e->standby, &attr, empm__listener_standby_main,
                           e);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (has_attr)
        pthread_attr_destroy(&attr);
    if (r == 0 && e->sick == 0) {
        empm__store(&e->score->healthy, 1u);
        return EMPM_OK;
    }
    if (r != 0)
        empm__log(cfg, EMPM_LOG_ERROR, 5011, "cannot start %d threads: %s",
                  e->nworkers + 1, strerror(r));
    /* those that run wait for a first job: they end instead */
    empm__queue_close(&e->queue);
    for (i = 0; i < e->started; i++)
        pthread_join(e->workers[i].thread, NULL);
    return EMPM_ESYS;
}

/* Waits for the engine's end, at most timeout_ms (-1: for ever). Returns
 * EMPM_OK, or EMPM_ETIMEDOUT; it may be called again then. */
static int empm__engine_wait(empm__engine *e, int timeout_ms)
{
    struct timespec until;
    int r = 0, done;
    clock_gettime(
#if !defined(__APPLE__)
        CLOCK_MONOTONIC,
#else
        CLOCK_REALTIME,
#endif
        &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&e->done_lock);
    while (!e->done && r == 0)       /* a wake-up may have no reason */
        r = timeout_ms < 0 ? pthread_cond_wait(&e->done_cond, &e->done_lock)
                           : pthread_cond_timedwait(&e->done_cond,
                                                    &e->done_lock, &until);
    done = e->done;
    pthread_mutex_unlock(&e->done_lock);
    if (!done)
        return EMPM_ETIMEDOUT;
    if (!e->joined) {
        e->joined = 1;
        pthread_join(e->standby, NULL);
        empm__store(&e->score->healthy, 0u);
    }
    return EMPM_OK;
}

EMPM_API int empm_resume(empm_server *s, empm_ticket ticket)
{
    empm__engine *e = &s->engine;
    const uint32_t i = (uint32_t)ticket, serial = (uint32_t)(ticket >> 32);
    /* a ticket may be any number: what it names must have been made */
    if (serial == 0 || i >= empm__load_acq(&e->slab.made))
        return EMPM_EGONE;
    switch (empm__conn_resume(empm__slab_conn(&e->slab, i), serial)) {
    case 0:
        return EMPM_EGONE;
    case 2:                          /* it waits: the listener has to take it */
        empm__poller_post(&e->poller, i);
        empm__poller_wake(&e->poller);
    }
    return EMPM_OK;
}

/* ---------------------------------------------------------------------------
 * >>endpoints -- listen strings, and sockets that are inherited
 *
 * A Listen is taken apart once, into what socket it means and what is spoken on
 * it. A socket that is there already is found by that meaning, not by the text:
 * one of the server before a reload, or one that a service manager or the old
 * program of an upgrade has passed.
 *
 *   [address:]port   TCP; "*" or nothing: all addresses; [::1]:80 in brackets
 *   unix:path        with mode=, user= and group= of its file
 *   fd:number        it listens already
 *   systemd:name     of a service manager's; several may have one name
 *   ... proxy        connections begin with a PROXY header
 *   ... admin        the status only, by an engine of its own
 * ------------------------------------------------------------------------- */

enum empm__endpoint_kind { EMPM__ENDPOINT_TCP, EMPM__ENDPOINT_UNIX,
                           EMPM__ENDPOINT_FD, EMPM__ENDPOINT_SYSTEMD };

typedef struct empm__endpoint_spec { /* a listen string, taken apart */
    enum empm__endpoint_kind kind;
    char   host[256];                /* or path, or name; "": all addresses */
    char   port[8];
    int    fd;
    int    v6only, admin, proxy;
    long   mode;                     /* of a unix socket, -1: the umask's */
    char   user[64], group[64];     /* of its file; "": the server's */
} empm__endpoint_spec;

/* Is the word o[0..n) `name` and a value that fits? Then `to` gets the value.
 * Returns 1 if it is. */
static int empm__endpoint_word(const char *o, size_t n, const char *name,
                               char to[64])
{
    const size_t skip = strlen(name);
    if (n <= skip || n - skip >= 64 || memcmp(o, name, skip) != 0)
        return 0;
    memcpy(to, o + skip, n - skip);
    to[n - skip] = '\0';
    return 1;
}

/* [address:]port, which stands in l->host. Returns NULL or what is wrong. */
static const char *empm__endpoint_parse_tcp(empm__endpoint_spec *l)
{
    char *colon = strrchr(l->host, ':');
    int64_t port;
    if (colon != NULL && strchr(colon, ']') != NULL)
        return "wants a port";
    if (snprintf(l->port, sizeof l->port, "%.7s",
                 colon != NULL ? colon + 1 : l->host) > 5)
        return "wants a port from 0 to 65535";
    port = empm__parse_u63(l->port, strlen(l->port));
    if (port < 0 || port > 65535)
        return "wants a port from 0 to 65535";
    snprintf(l->port, sizeof l->port, "%d", (int)port);
    if (colon == NULL)
        colon = l->host;
    *colon = '\0';
    if (l->host[0] == '[') {
        if (colon[-1] != ']')
            return "wants [address]:port";
        colon[-1] = '\0';
        memmove(l->host, l->host + 1, strlen(l->host));
    } else if (strchr(l->host, ':') != NULL)
        return "wants brackets around an IPv6 address";
    if (strcmp(l->host, "*") == 0)
        l->host[0] = '\0';
    return NULL;
}

/* The n bytes at `o` are a word behind the address. Returns NULL or what is
 * wrong with it. */
static const char *empm__endpoint_parse_word(empm__endpoint_spec *l,
                                             const char *o, size_t n)
{
    const int is_unix = l->kind == EMPM__ENDPOINT_UNIX;
    char *end;
    if (l->kind == EMPM__ENDPOINT_TCP && n == 6 && memcmp(o, "v6only", 6) == 0)
        l->v6only = 1;
    else if (empm__text_same(o, n, "http", 4))
        ;                            /* Apache's name for what is spoken */
    else if (empm__text_same(o, n, "https", 5))
        return "there is no TLS yet: put a proxy that has it in front of a "
               "Listen \"127.0.0.1:8080 proxy\"";
    else if (n == 5 && memcmp(o, "admin", 5) == 0)
        l->admin = 1;
    else if (n == 5 && memcmp(o, "proxy", 5) == 0)
        l->proxy = 1;
    else if (is_unix && n > 5 && memcmp(o, "mode=", 5) == 0) {
        l->mode = strtol(o + 5, &end, 8);
        if (end != o + n || l->mode < 0 || l->mode > 0777)
            return "wants mode= as up to three octal digits";
    } else if (!is_unix || (!empm__endpoint_word(o, n, "user=", l->user) &&
                            !empm__endpoint_word(o, n, "group=", l->group)))
        return "takes http, v6only, proxy, admin or (unix:) mode=, user= or "
               "group= and no other word";
    return NULL;
}

/* Takes `text` apart. Returns NULL or what is wrong with it. */
static const char *empm__endpoint_parse(empm__endpoint_spec *l,
                                        const char *text)
{
    size_t n = strcspn(text, " \t");
    const char *o = text + n, *why = NULL;
    int64_t v;
    memset(l, 0, sizeof *l);
    l->mode = -1;
    if (n >= sizeof l->host || n == 0)
        return "is no address";
    memcpy(l->host, text, n);
    if (strncmp(text, "unix:", 5) == 0) {
        l->kind = EMPM__ENDPOINT_UNIX;
        memmove(l->host, l->host + 5, n - 4);
        if (n == 5)
            return "wants a path";
    } else if (strncmp(text, "fd:", 3) == 0) {
        l->kind = EMPM__ENDPOINT_FD;
        v = empm__parse_u63(text + 3, n - 3);
        if (v < 0 || v > INT_MAX)
            return "wants the number of a descriptor";
        l->fd = (int)v;
    } else if (strncmp(text, "systemd:", 8) == 0) {
        l->kind = EMPM__ENDPOINT_SYSTEMD;
        memmove(l->host, l->host + 8, n - 7);
        if (n == 8)
            return "wants the name of a socket";
    } else {
        l->kind = EMPM__ENDPOINT_TCP;
        why = empm__endpoint_parse_tcp(l);
    }
    while (why == NULL && *(o += strspn(o, " \t")) != '\0') {
        n = strcspn(o, " \t");
        why = empm__endpoint_parse_word(l, o, n);
        o += n;
    }
    return why;
}

/* Do both mean the same socket, whatever their options? */
static int empm__endpoint_same(const empm__endpoint_spec *a,
                               const empm__endpoint_spec *b)
{
    return a->kind == b->kind && a->fd == b->fd && a->v6only == b->v6only &&
           strcmp(a->host, b->host) == 0 && strcmp(a->port, b->port) == 0;
}

/* All addresses of a port: of IPv4 only, or, unless v6only, of both. */
static int empm__endpoint_any(const empm__endpoint_spec *l, int both)
{
    if (l->kind != EMPM__ENDPOINT_TCP || l->v6only || strcmp(l->port, "0") == 0)
        return 0;
    return both ? l->host[0] == '\0' || strcmp(l->host, "::") == 0
                : strcmp(l->host, "0.0.0.0") == 0;
}

/* Returns the Listen that has one socket for IPv6 and IPv4, and so makes `l`
 * needless (bind() would fail); -1: none. */
static int empm__endpoint_covered(const empm_config *cfg,
                                  const empm__endpoint_spec *l)
{
    empm__endpoint_spec other;
    int k;
    for (k = 0; empm__endpoint_any(l, 0) && k < EMPM_MAX_LISTEN &&
                cfg->listen[k] != NULL; k++)
        if (empm__endpoint_parse(&other, cfg->listen[k]) == NULL &&
            empm__endpoint_any(&other, 1) && strcmp(l->port, other.port) == 0)
            return k;
    return -1;
}

/* --- inherited sockets ---------------------------------------------------- */

/* Listening sockets that another program has opened for this one, in the way of
 * systemd: descriptors from 3 on, with names between colons. An upgrade passes
 * ours on with their listen strings as names, where ':' and '%' are escaped. */
typedef struct empm__inherited {
    const struct empm_server *old;   /* or those of this server; or NULL */
    int         count;
    const char *names;
    unsigned char taken[1024];       /* a mark for each; more are not seen */
} empm__inherited;

EMPM__ASSERT_STATIC(EMPM_MAX_LISTEN <= sizeof ((empm__inherited *)0)->taken,
                    too_many_listeners);

#define EMPM__TEXT_OF(n) #n
#define EMPM__NUMBER_TEXT(n) EMPM__TEXT_OF(n)
#define EMPM__TOO_MANY \
    "more than EMPM_MAX_LISTEN sockets, " EMPM__NUMBER_TEXT(EMPM_MAX_LISTEN)

#define EMPM__HERITAGE_FD 3

/* Reads what the environment offers to this process, and to no other:
 * LISTEN_PID says to which, since a program that a handler starts inherits it,
 * too. */
static void empm__inherited_env(empm__inherited *h, empm__report *rep)
{
    const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
    int64_t count;
    memset(h, 0, sizeof *h);
    if (pid == NULL || n == NULL || strtol(pid, NULL, 10) != (long)getpid())
        return;
    count = empm__parse_u63(n, strlen(n));
    if (count > (int64_t)sizeof h->taken) {
        empm__report_say(rep, EMPM_LOG_WARN, 5108, "LISTEN_FDS of %s: only the "
                         "first %d sockets are looked at", n,
                         (int)sizeof h->taken);
        count = sizeof h->taken;
    }
    h->count = count < 0 ? 0 : (int)count;
    h->names = getenv("LISTEN_FDNAMES");
}

/* Copies the name of the i-th into to[0..n), decoded as an upgrade encodes it.
 * Returns 1 if it is `plain` as it stands, as a service manager writes it. */
static int empm__inherited_name(const empm__inherited *h, int i, char *to,
                                size_t n, const char *plain)
{
    const char *p = h->names != NULL ? h->names : "";
    size_t len;
    while (i-- > 0) {
        p += strcspn(p, ":");
        p += *p == ':';
    }
    len = strcspn(p, ":");
    if (empm__text_decode(to, p, empm__min(len, n - 1), 0) < 0)
        to[0] = '\0';
    return strncmp(p, plain, len) == 0 && plain[len] == '\0';
}

/* Returns the port that a socket is bound to, 0 if it has none. */
static int empm__endpoint_port(int fd)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    memset(&a, 0, sizeof a);
    if (getsockname(fd, (struct sockaddr *)&a, &n) < 0)
        return 0;
    if (a.ss_family == AF_INET)
        return ntohs(((struct sockaddr_in *)(void *)&a)->sin_port);
    if (a.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)(void *)&a)->sin6_port);
    return 0;
}

/* ---------------------------------------------------------------------------
 * >>endpoint-unix -- sockets that have a name in the file system
 *
 * A unix socket gets its rights and listens under a name beside its own, and is
 * then linked to that: no client meets it half made, and of two servers that
 * start at once only one gets the name. It takes the place of a stale file
 * only, which is one that refuses connections.
 * ------------------------------------------------------------------------- */

/* Returns 0, or -1 with errno if the path is too long. */
static int empm__endpoint_unix_address(struct sockaddr_un *a, const char *path)
{
    const size_t n = strlen(path);
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    if (n >= sizeof a->sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(a->sun_path, path, n);
    return 0;
}

/* A name beside `path` that no other process and no other socket of this one
 * takes; `path` loses its end where both are too long. Returns 0, or -1. */
static int empm__endpoint_unix_beside(struct sockaddr_un *a, const char *path,
                                      int fd, const char *mark)
{
    const char *slash = strrchr(path, '/');
    const size_t folder = slash != NULL ? (size_t)(slash + 1 - path) : 0;
    char end[48];
    const int k = snprintf(end, sizeof end, ".%ld-%d%s", (long)getpid(), fd,
                           mark);
    const size_t n = empm__min(strlen(path), sizeof a->sun_path - 1 -
                               (size_t)k);
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    if (n < folder) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(a->sun_path, path, n);
    memcpy(a->sun_path + n, end, (size_t)k);
    return 0;
}

/* Is `path` a socket file that nobody listens on, left over from a crash? The
 * question does not wait: a server whose backlog is full is alive. Returns 1,
 * or 0 with errno, EADDRINUSE as a rule. */
static int empm__endpoint_unix_stale(const char *path)
{
    struct sockaddr_un a;
    struct stat st;
    int fd, stale;
    if (empm__endpoint_unix_address(&a, path) < 0 || lstat(path, &st) < 0 ||
        (fd = socket(AF_UNIX, SOCK_STREAM, 0)) < 0)
        return 0;
    stale = S_ISSOCK(st.st_mode) && empm__fd_flags(fd, 1) == 0 &&
            connect(fd, (struct sockaddr *)&a, sizeof a) < 0 &&
            errno == ECONNREFUSED;
    close(fd);
    errno = EADDRINUSE;
    return stale;
}

/* Gives the file of a unix socket its owner, group and mode. A user who may
 * write to its folder can put something else in its place, for root to open up:
 * a link is not followed, and what is no socket, or has another name elsewhere,
 * is left alone. Returns 0, or -1 with errno. */
static int empm__endpoint_unix_rights(const char *path,
                                      const empm__rights *want)
{
    struct stat st;
    int r;
#ifdef EMPM__O_PATH
    char self[48];
    const int fd = open(path, EMPM__O_PATH | O_NOFOLLOW | O_CLOEXEC);
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    r = fd < 0 ? -1 : fstat(fd, &st);
    path = self;
#else
    r = lstat(path, &st);
#endif
    if (r == 0 && (!S_ISSOCK(st.st_mode) || st.st_nlink != 1)) {
        errno = EPERM;
        r = -1;
    }
    if (r == 0 && ((want->uid != (uid_t)-1 && want->uid != st.st_uid) ||
                   (want->gid != (gid_t)-1 && want->gid != st.st_gid)))
        r = chown(path, want->uid, want->gid);
    if (r == 0 && want->mode >= 0 &&
        (st.st_mode & 07777) != (mode_t)want->mode)
        r = chmod(path, (mode_t)want->mode);
#ifdef EMPM__O_PATH
    if (fd >= 0)
        empm__quiet_close(fd);
#endif
    return r;
}

/* Gives the socket file `made` the name `path`, unless somebody serves
 * there: link(), not rename(), so that of two servers that start at once
 * only one can. What is stale is moved `aside` first and asked again: it may
 * be new by now. */
static int empm__endpoint_unix_show(const char *made, const char *aside,
                                    const char *path)
{
    int tries;
    /* another server that starts may be quicker each time: not for ever */
    for (tries = 0; tries < 3; tries++) {
        if (link(made, path) == 0)
            return unlink(made);
        if (errno != EEXIST)             /* a file system without links */
            return rename(made, path);
        if (!empm__endpoint_unix_stale(path) ||
            (rename(path, aside) < 0 && errno != ENOENT))
            return -1;
        if (!empm__endpoint_unix_stale(aside) && link(aside, path) < 0)
            break;
        unlink(aside);
    }
    errno = EADDRINUSE;
    return -1;
}

/* Makes a unix socket, which gets its rights and listens before it has its
 * name: no client can meet it half made. l->path: what has to be removed at the
 * end. Returns the descriptor, or -1 with errno. */
static int empm__endpoint_unix(empm__endpoint *l,
                               const empm__endpoint_spec *spec,
                               const empm__rights *rights, int backlog)
{
    struct sockaddr_un a, aside;
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        return -1;
#if defined(__linux__)
    if (rights->mode >= 0)         /* bind() makes the file so, but for umask */
        fchmod(fd, (mode_t)rights->mode);
#endif
    /* the name itself first: it may be too long, and nothing is made then */
    if (empm__endpoint_unix_address(&aside, spec->host) == 0 &&
        empm__endpoint_unix_beside(&aside, spec->host, fd, "~") == 0 &&
        empm__endpoint_unix_beside(&a, spec->host, fd, "") == 0) {
        unlink(a.sun_path);
        if (bind(fd, (struct sockaddr *)&a, sizeof a) == 0) {
            if (empm__endpoint_unix_rights(a.sun_path, rights) == 0 &&
                listen(fd, backlog) == 0 &&
                empm__endpoint_unix_show(a.sun_path, aside.sun_path,
                                         spec->host) == 0) {
                snprintf(l->path, sizeof l->path, "%.107s", spec->host);
                return fd;
            }
            empm__quiet_unlink(a.sun_path);
        }
    }
    empm__quiet_close(fd);
    return -1;
}

/* ---------------------------------------------------------------------------
 * >>endpoint-sockets -- from a listen string to sockets that listen
 *
 * A Listen is what is there already, or is made; a name means all its
 * addresses, with one port. All of this is done once, before there is a child,
 * with the rights of the user that starts the server. A message says what an
 * operator may do about an error.
 * ------------------------------------------------------------------------- */

/* What accepted sockets inherit; 0 leaves the system's choice. */
static void empm__endpoint_buffers(const empm_config *cfg, int fd)
{
    if (cfg->send_buffer_size > 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &cfg->send_buffer_size,
                   sizeof cfg->send_buffer_size);
    if (cfg->receive_buffer_size > 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &cfg->receive_buffer_size,
                   sizeof cfg->receive_buffer_size);
}

/* Looks up all addresses of the host and the port. Returns 0, or the error of
 * getaddrinfo(). */
static int empm__endpoint_resolve(const empm__endpoint_spec *spec,
                                  struct addrinfo **list)
{
    struct addrinfo hints;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
    return getaddrinfo(spec->host[0] ? spec->host : NULL, spec->port, &hints,
                       list);
}

/* Makes a socket that is bound to one of them; `port`, unless 0, instead of its
 * own. SO_REUSEADDR: connections of the server before may still linger. Returns
 * the descriptor, or -1 with errno. */
static int empm__endpoint_bind(const empm_config *cfg, const struct addrinfo *a,
                               int v6only, int port)
{
    struct sockaddr_storage at;
    const int on = 1, off = 0;
    const int fd = socket(a->ai_family, SOCK_STREAM, 0);
    if (fd < 0)
        return -1;
    memcpy(&at, a->ai_addr, empm__min(a->ai_addrlen, sizeof at));
    if (port != 0 && a->ai_family == AF_INET)
        ((struct sockaddr_in *)(void *)&at)->sin_port = htons((uint16_t)port);
    if (port != 0 && a->ai_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)&at)->sin6_port = htons((uint16_t)port);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, v6only ? &on : &off,
                   sizeof on);
    /* accepted sockets inherit these on Linux: two calls less for each */
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    empm__endpoint_buffers(cfg, fd);
    if (bind(fd, (struct sockaddr *)&at, a->ai_addrlen) == 0)
        return fd;
    empm__quiet_close(fd);
    return -1;
}

/* Has the list had this address before? Some files of hosts name one twice, and
 * the second bind() would fail. */
static int empm__endpoint_again(const struct addrinfo *list,
                                const struct addrinfo *a)
{
    for (; list != a; list = list->ai_next)
        if (list->ai_addrlen == a->ai_addrlen &&
            memcmp(list->ai_addr, a->ai_addr, a->ai_addrlen) == 0)
            return 1;
    return 0;
}

/* Does `fd` listen? Returns 0 if not, with errno if that is not known. */
static int empm__endpoint_is_listening(int fd)
{
    int is = 0;
    socklen_t len = sizeof is;
    errno = 0;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is, &len) == 0 && is;
}

/* Adds one of s->endpoints: the descriptor is the server's from here on. */
static void empm__endpoint_add(empm_server *s, const empm__endpoint_spec *spec,
                               const char *text, int fd)
{
    empm__endpoint *l = &s->endpoints[s->nendpoints++];
    memset(l, 0, sizeof *l);
    l->text = text;
    l->fd = fd;
    l->admin = spec->admin;
    l->proxy = spec->proxy;
    l->session = &empm__plain_session;
    l->port = empm__endpoint_port(fd);
}

/* Returns a descriptor for what `spec` means, from those that are there: a
 * duplicate of ours, or one of the environment's; each is given once. `port`:
 * it must have that one; -1: any. Returns -1 if there is none, or none left. */
static int empm__inherited_find(empm__inherited *h,
                                const empm__endpoint_spec *spec, int port)
{
    /* at a reload those of the server before are all there is */
    const int n = h->old != NULL ? h->old->nendpoints : h->count;
    int i, fd;
    for (i = 0; i < n; i++) {
        empm__endpoint_spec other;
        char name[300];
        const char *text = name;
        int plain = 0;
        if (h->taken[i])
            continue;
        if (h->old != NULL)
            text = h->old->endpoints[i].text;
        else
            plain = empm__inherited_name(h, i, name, sizeof name, spec->host);
        if (spec->kind == EMPM__ENDPOINT_SYSTEMD && h->old == NULL) {
            /* a service manager has names of its own, no listen strings */
            if (!plain && strcmp(name, spec->host) != 0)
                continue;
        } else if (empm__endpoint_parse(&other, text) != NULL ||
                   !empm__endpoint_same(spec, &other))
            continue;
        fd = h->old != NULL ? h->old->endpoints[i].fd : EMPM__HERITAGE_FD + i;
        if (!empm__endpoint_is_listening(fd) ||
            (port >= 0 && empm__endpoint_port(fd) != port))
            continue;
        h->taken[i] = 1;
        return h->old != NULL ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : fd;
    }
    return -1;
}

/* Returns what an operator may do about `error`, as the end of a message. */
static const char *empm__endpoint_advice(const empm__endpoint_spec *spec,
                                         int error, int reload)
{
    switch (error) {
    case EADDRINUSE:
        return reload ? ": where it overlaps the old Listen, a reload cannot "
                        "do it: stop and start"
                      : ": stop the program that has it, or take another port, "
                        "such as -p 8081";
    case EACCES: case EPERM:
        return spec->kind == EMPM__ENDPOINT_UNIX
                   ? ": take a folder that you can write; user= wants root"
                   : ": for a port below 1024 start as root, or take one "
                     "above, such as -p 8080";
    case EADDRNOTAVAIL:
        return ": no address of this machine: leave it out to have all of them";
    case EAFNOSUPPORT:
        return ": this machine has no such addresses";
    case ENOENT:
        return ": make its folder first";
    default:
        return "";
    }
}

/* Listens at every address of a host, as Apache does, and all with one port;
 * without a host at one IPv6 socket for both, or at IPv4 where there is none. A
 * name may have addresses that this machine has not, such as ::1 without IPv6:
 * one that can be had is enough. Returns 0, or -1 with errno or *why. */
static int empm__endpoint_tcp(empm_server *s, const empm__endpoint_spec *spec,
                              const char *text, const char **why)
{
    struct addrinfo *list = NULL, *a;
    const int named = spec->host[0] != '\0', first = s->nendpoints;
    const int r = empm__endpoint_resolve(spec, &list);
    int pass, fd = -1, saved = 0, fatal = r != 0;
    if (r != 0)
        *why = gai_strerror(r);
    /* one pass over the names of a host, or two over all addresses */
    for (pass = 0; pass < 2 - named && !fatal && s->nendpoints == first; pass++)
        for (a = list; a != NULL && !fatal; a = a->ai_next) {
            const int made = s->nendpoints - first;
            /* by name: each once. Without one: IPv6 in the first pass, which
             * has both, and IPv4 in the second, if that was in vain */
            if (named ? empm__endpoint_again(list, a)
                      : made > 0 || (a->ai_family == AF_INET6) != (pass == 0))
                continue;
            if (s->nendpoints == EMPM_MAX_LISTEN) {
                *why = EMPM__TOO_MANY;
                fatal = 1;
                break;
            }
            fd = empm__endpoint_bind(s->cfg, a,
                                     spec->v6only ||
                                       (named && list->ai_next != NULL),
                                     made > 0 ? s->endpoints[first].port : 0);
            if (fd >= 0 && empm__fd_flags(fd, 1) == 0 &&
                listen(fd, s->cfg->listen_backlog) == 0) {
                empm__endpoint_add(s, spec, text, fd);
                continue;
            }
            saved = errno;
            if (fd >= 0)
                close(fd);
            fatal = named && saved != EADDRNOTAVAIL && saved != EAFNOSUPPORT;
        }
    if (list != NULL)
        freeaddrinfo(list);
    errno = saved;                   /* of the last one that could not be had */
    return fatal || s->nendpoints == first ? -1 : 0;
}

/* Takes over what is open already. A name of systemd's may stand for several
 * sockets, and a host's for all that have the port of the first: nobody is
 * asked for its addresses again. */
static void empm__endpoint_inherit(empm_server *s,
                                   const empm__endpoint_spec *spec,
                                   const char *text,
                                   const empm__rights *rights,
                                   empm__inherited *heritage)
{
    const int first = s->nendpoints, is_tcp = spec->kind == EMPM__ENDPOINT_TCP;
    while (s->nendpoints < EMPM_MAX_LISTEN &&
           (s->nendpoints == first || is_tcp ||
            spec->kind == EMPM__ENDPOINT_SYSTEMD)) {
        const int fd = empm__inherited_find(heritage, spec,
                                            is_tcp && s->nendpoints > first
                                              ? s->endpoints[first].port : -1);
        empm__endpoint *l = &s->endpoints[s->nendpoints];
        if (fd < 0 || empm__fd_flags(fd, 1) < 0)
            return;
        empm__endpoint_add(s, spec, text, fd);
        l->rights = *rights;
        if (spec->kind == EMPM__ENDPOINT_UNIX && heritage->old == NULL)
            snprintf(l->path, sizeof l->path, "%.107s", spec->host);
    }
}

/* A unix socket, made, or a descriptor that is said to listen. Returns 0, or -1
 * with errno or *why. */
static int empm__endpoint_one(empm_server *s, const empm__endpoint_spec *spec,
                              const char *text, const empm__rights *rights,
                              const char **why)
{
    empm__endpoint made;
    int fd = spec->fd, r;
    memset(&made, 0, sizeof made);
    if (spec->kind == EMPM__ENDPOINT_UNIX)
        fd = empm__endpoint_unix(&made, spec, rights, s->cfg->listen_backlog);
    else if (!empm__endpoint_is_listening(fd)) {
        if (errno == 0 || errno == EBADF || errno == ENOTSOCK)
            *why = "is not a listening socket";
        return -1;
    }
    r = fd < 0 ? -1 : empm__fd_flags(fd, 1);
    if (fd >= 0) {
        empm__endpoint *l = &s->endpoints[s->nendpoints];
        empm__endpoint_add(s, spec, text, fd);
        l->rights = *rights;
        memcpy(l->path, made.path, sizeof l->path);
    }
    return r;
}

/* Opens one listen string, or takes over what is open. Says what is wrong and
 * returns an error; what is open by then is the server's. */
static int empm__endpoint_open(empm_server *s, const char *text,
                               const empm__rights *rights,
                               empm__inherited *heritage, empm__report *rep)
{
    const int first = s->nendpoints;
    empm__endpoint_spec spec;
    const char *why = empm__endpoint_parse(&spec, text);
    int r = -1, k, error;
    if (why != NULL) {
        empm__report_say(rep, EMPM_LOG_ERROR, 5108, "Listen %s: %s", text, why);
        return EMPM_EINVAL;
    }
    if ((k = empm__endpoint_covered(s->cfg, &spec)) >= 0) {
        empm__report_say(rep, EMPM_LOG_INFO, 5113, "Listen %s: Listen %s "
                         "serves IPv4, too", text, s->cfg->listen[k]);
        return EMPM_OK;
    }
    empm__endpoint_inherit(s, &spec, text, rights, heritage);
    if (s->nendpoints > first)
        return EMPM_OK;
    if (s->nendpoints == EMPM_MAX_LISTEN)
        why = EMPM__TOO_MANY;
    else if (spec.kind == EMPM__ENDPOINT_SYSTEMD)
        why = "no socket of that name has been passed";
    else if (spec.kind == EMPM__ENDPOINT_TCP)
        r = empm__endpoint_tcp(s, &spec, text, &why);
    else
        r = empm__endpoint_one(s, &spec, text, rights, &why);
    if (r == 0)
        return EMPM_OK;
    error = why == NULL ? errno : 0;
    empm__report_say(rep, EMPM_LOG_ERROR, 72, "Listen %s: %s%s", text,
                     why != NULL ? why : strerror(error),
                     empm__endpoint_advice(&spec, error,
                                           heritage->old != NULL));
    return EMPM_ESYS;
}

/* ---------------------------------------------------------------------------
 * >>limits -- what the settings need of the system
 *
 * Memory, descriptors and threads are added up before the first thread starts.
 * Where the system allows less, that is a warning and no error: not all that
 * the settings allow is ever used at once. Folders, routes and listen strings
 * are checked here, too, as -t and empm_check() want it: nothing is opened.
 * ------------------------------------------------------------------------- */

/* Does SpoolDirectory have its default? Then no operator has asked for it, and
 * its absence is no error. */
static int empm__check_spool_default(const empm_config *cfg)
{
    return strcmp(cfg->spool_directory,
                  empm__directive_preset("SpoolDirectory")) == 0;
}

/* The part of the check that needs more than numbers: paths, routes, endpoints,
 * and what wings have to say. */
static void empm__check_rest(const empm_config *cfg, empm__report *rep)
{
    empm__chars chars;
    empm__routes routes;
    struct stat st;
    char path[1200];
    const empm__wing *const *wing;
    const char *spool;
    size_t i, k;
    empm__chars_init(&chars);
    if (cfg->routes == NULL)
        empm__report_say(rep, EMPM_LOG_ERROR, 5105, "no routes");
    if (empm__routes_init(&routes, cfg->routes, &chars, rep) != EMPM_ENOMEM)
        empm__routes_free(&routes);      /* only what it says was wanted */
    spool = empm__config_path(cfg, cfg->spool_directory, path, sizeof path);
    errno = ENOTDIR;
    if (stat(spool, &st) < 0 || !S_ISDIR(st.st_mode))
        empm__report_say(rep, empm__check_spool_default(cfg) ? EMPM_LOG_WARN
                                                             : EMPM_LOG_ERROR,
                         5107,
                         "SpoolDirectory %s: %s: make it, or name another: "
                         "-c \"SpoolDirectory DIR\"%s", cfg->spool_directory,
                         strerror(errno), empm__check_spool_default(cfg)
                                              ? ": long bodies will be refused"
                                              : "");
    else if (access(spool, W_OK | X_OK) < 0)
        empm__report_say(rep, EMPM_LOG_WARN, 5004, "SpoolDirectory %s: %s: "
                         "long bodies will be refused", cfg->spool_directory,
                         strerror(errno));
    if (cfg->error_log != NULL && empm__log_facility(cfg->error_log) == -1)
        empm__report_say(rep, EMPM_LOG_ERROR, 5402, "ErrorLog %s: is no file, "
                         "|program, stderr or syslog:facility", cfg->error_log);
    EMPM__EACH_WING(wing, check)
        (*wing)->check(cfg, &chars, rep);
    for (i = 0; i < EMPM_MAX_LISTEN && cfg->listen[i] != NULL; i++) {
        empm__endpoint_spec spec, other;
        const char *why = empm__endpoint_parse(&spec, cfg->listen[i]);
        if (why != NULL)
            empm__report_say(rep, EMPM_LOG_ERROR, 5108, "Listen %s: %s",
                             cfg->listen[i], why);
        /* port 0 is another one each time */
        for (k = 0; why == NULL && k < i; k++)
            if (empm__endpoint_parse(&other, cfg->listen[k]) == NULL &&
                empm__endpoint_same(&spec, &other) &&
                strcmp(spec.port, "0") != 0)
                empm__report_say(rep, EMPM_LOG_ERROR, 5109, "Listen %s is "
                                 "given twice", cfg->listen[i]);
    }
}

/* Returns the first number in a file of the system's, -1 if there is none: a
 * limit of "max" is no limit. */
static int64_t empm__check_number_in(const char *path)
{
    char text[32];
    empm__text_of_file(path, text, sizeof text);
    return empm__parse_u63(text, strspn(text, "0123456789"));
}

/* Returns how many children there can be at most, drained ones aside. */
static int empm__config_children_limit(const empm_config *cfg)
{
    return cfg->processes == 0 ? 1
                               : cfg->max_request_workers /
                                     cfg->threads_per_child;
}

/* Returns the bytes that the stacks of all threads may take: of address space,
 * first of all; most of it is never touched. */
static double empm__memory_stacks(const empm_config *cfg)
{
    struct rlimit r;
    double stack = cfg->thread_stack_size;
    if (cfg->thread_stack_size == 0)
        stack = getrlimit(RLIMIT_STACK, &r) == 0 && r.rlim_cur != RLIM_INFINITY
                    ? (double)r.rlim_cur : 8 << 20;
    return (double)empm__config_children_limit(cfg) * (cfg->threads_per_child +
                                                       1) *
           stack;
}

/* The memory of all children in bytes, by what it is for; at worst, but for the
 * last line, which is what a busy server comes to. */
#define EMPM__STACK_USED 32768       /* what a thread seldom exceeds */

typedef struct empm__memory {
    double connections;              /* each with its longest head and answer */
    double bodies;                   /* MaxBodyMemory */
    double buffers;                  /* of workers, and those that are idle */
    double stacks, store;
    double likely;                   /* every worker runs an ordinary request,
                                        the other connections are idle */
} empm__memory;

/* Adds up: every child is there, and every connection has a request under
 * way. */
static empm__memory empm__memory_estimate(const empm_config *cfg)
{
    const double children = empm__config_children_limit(cfg);
    const double threads = children * (cfg->threads_per_child + 1);
    const double idle = children * empm__engine_connection_limit(cfg) *
                        (double)(sizeof(empm__conn) + sizeof(empm__peer));
    empm__memory m;
    m.connections = idle + children * empm__engine_connection_limit(cfg) *
                               (double)(EMPM_PAGE_BYTES + EMPM_RESPONSE_BUFFER +
                                        cfg->limit_request_head);
    m.bodies = children * (double)cfg->max_body_memory;
    m.buffers = children * ((double)cfg->max_mem_free +
                            (double)cfg->threads_per_child *
                                (EMPM__SCRATCH +
                                 EMPM__PAGE_CACHE * EMPM_PAGE_BYTES));
    m.stacks = empm__memory_stacks(cfg);
    m.store = (double)cfg->shared_store_size;
    m.likely = idle + m.buffers + m.store +
               threads * (EMPM_PAGE_BYTES + EMPM__STACK_USED);
    return m;
}

EMPM_API int64_t empm_memory_estimate(const empm_config *cfg)
{
    const empm__memory m = empm__memory_estimate(cfg);
    const double all = m.connections + m.bodies + m.buffers + m.stacks +
                       m.store;
    return all < 9e18 ? (int64_t)all : INT64_MAX;
}

/* What comes out of the settings, on one line: numbers that no single directive
 * tells. */
static void empm__check_settings_line(const empm_config *cfg, char *to,
                                      size_t n)
{
    const empm__memory m = empm__memory_estimate(cfg);
    const double mib = 1 << 20;
    char keep[64] = "off";
    if (cfg->keep_alive && cfg->keep_alive_timeout_ms > 0)
        snprintf(keep, sizeof keep, "%d ms", cfg->keep_alive_timeout_ms);
    snprintf(to, n, "%d to %d children of %d workers, %u connections and %u "
             "files each; Timeout %d ms, KeepAlive %s; worst-case memory %.0f "
             "MiB: connections %.0f, bodies %.0f, buffers %.0f, stacks %.0f, "
             "store %.0f; likely when all workers are busy %.0f MiB; spooled "
             "on disk at most %.0f MiB",
             cfg->processes == 0 ? 1 : cfg->start_servers,
             empm__config_children_limit(cfg), cfg->threads_per_child,
             (unsigned)empm__engine_connection_limit(cfg),
             (unsigned)empm__engine_file_limit(cfg), cfg->timeout_ms, keep,
             (double)empm_memory_estimate(cfg) / mib, m.connections / mib,
             m.bodies / mib, m.buffers / mib, m.stacks / mib, m.store / mib,
             m.likely / mib,
             empm__config_children_limit(cfg) *
             ((double)cfg->max_spool_bytes / mib));
}

/* Says how the descriptors are shared out, if that is less than what is set,
 * and what RLIMIT_NOFILE would do. */
static void empm__check_descriptors(const empm_config *cfg, empm__report *rep)
{
    const uint32_t connections = empm__engine_connection_limit(cfg);
    const uint32_t files = empm__engine_file_limit(cfg);
    const int64_t own = empm__engine_descriptors_own(cfg);
    const int64_t c = cfg->max_open_connections > 0 ? cfg->max_open_connections
                                                    : 1;
    const int64_t f = cfg->max_open_files;
    /* the limits above, turned round: a third of all is for files, or what is
     * set, which may be half */
    int64_t need = f == 0 ? c + c / 2 + 1 : f > c ? 2 * f : c + f;
    struct rlimit r;
    if (need < own + 1)
        need = own + 1;              /* as empm__engine_descriptors() has it */
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur != RLIM_INFINITY &&
        (c > connections || f > files || (int64_t)r.rlim_cur <= 2 * own))
        empm__report_say(rep, EMPM_LOG_WARN, 5130, "RLIMIT_NOFILE of %llu is "
                         "too low%s: a child takes %u connections and %u "
                         "files; ulimit -n %lld or LimitNOFILE=%lld would do",
                         (unsigned long long)r.rlim_cur,
                         c > connections ? " for MaxOpenConnections"
                         : f > files ? " for MaxOpenFiles" : " for "
                         "ThreadsPerChild",
                         (unsigned)connections, (unsigned)files,
                         (long long)(own + need), (long long)(own + need));
}

/* Do the system's limits allow what the settings ask for? None of this is known
 * to be fatal, so it is said and not refused. */
static void empm__check_system(const empm_config *cfg, empm__report *rep)
{
    const long pages = sysconf(_SC_PHYS_PAGES);
    const int64_t threads = (int64_t)empm__config_children_limit(cfg) *
                            (cfg->threads_per_child + 2);
    int64_t memory = pages > 0 ? (int64_t)pages * sysconf(_SC_PAGESIZE) : -1;
    int64_t limit = empm__check_number_in("/sys/fs/cgroup/memory.max");
    struct rlimit r;
    if (limit > 0 && (memory < 0 || limit < memory))
        memory = limit;              /* a container has less than its machine */
    if (memory > 0 && empm__memory_stacks(cfg) > (double)memory)
        empm__report_say(rep, EMPM_LOG_WARN, 5131, "the stacks of %lld threads "
                         "may take %lld MiB, there are %lld: lower "
                         "ThreadStackSize or MaxRequestWorkers",
                         (long long)threads,
                         (long long)(empm__memory_stacks(cfg) / (1 << 20)),
                         (long long)(memory >> 20));
    empm__check_descriptors(cfg, rep);
    limit = empm__check_number_in("/proc/sys/net/core/somaxconn");
    if (limit > 0 && limit < cfg->listen_backlog)
        empm__report_say(rep, EMPM_LOG_WARN, 5132, "ListenBacklog of %d is "
                         "above net.core.somaxconn of %lld, which holds",
                         cfg->listen_backlog, (long long)limit);
    limit = empm__check_number_in("/sys/fs/cgroup/pids.max");
    if (limit > 0 && limit < threads)
        empm__report_say(rep, EMPM_LOG_WARN, 5133, "%lld threads are more than "
                         "pids.max of this cgroup, %lld", (long long)threads,
                         (long long)limit);
#ifdef RLIMIT_NPROC
    if (geteuid() != 0 && getrlimit(RLIMIT_NPROC, &r) == 0 &&
        r.rlim_cur != RLIM_INFINITY && (int64_t)r.rlim_cur < threads)
        empm__report_say(rep, EMPM_LOG_WARN, 5133, "%lld threads are more than "
                         "RLIMIT_NPROC of %llu", (long long)threads,
                         (unsigned long long)r.rlim_cur);
#endif
}

/* ---------------------------------------------------------------------------
 * >>users -- users, groups and rights, looked up once
 *
 * Only root can become another user, and only then are User and Group used. The
 * owner of a unix socket's file is another thing, which the Listen says. Names
 * are looked up before there is a child: in a forked process a lock of the C
 * library may be held by a thread that is not there.
 * ------------------------------------------------------------------------- */

/* Returns the number of "#number", or -1 if it is a name, or no id of this
 * system. */
static int64_t empm__identity_parse(const char *id)
{
    const int64_t n = id[0] != '#' ? -1
                                   : empm__parse_u63(id + 1, strlen(id + 1));
    return n < UINT32_MAX ? n : -1;    /* that one is "no id" */
}

/* Looks up a user: `id` is a name or "#number", which need not have a name;
 * *gid gets the user's group. Returns EMPM_OK, or EMPM_EINVAL with errno; 0:
 * there is no such user. */
static int empm__identity_user(const char *id, uid_t *uid, gid_t *gid)
{
    const int64_t n = empm__identity_parse(id);
    const struct passwd *p;
    errno = 0;
    p = n >= 0 ? getpwuid((uid_t)n) : getpwnam(id);
    if (n < 0 && p == NULL)
        return EMPM_EINVAL;
    *uid = p != NULL ? p->pw_uid : (uid_t)n;
    *gid = p != NULL ? p->pw_gid : (gid_t)n;
    return EMPM_OK;
}

/* Looks up a group. Returns as above. */
static int empm__identity_group(const char *id, gid_t *gid)
{
    const int64_t n = empm__identity_parse(id);
    const struct group *g;
    errno = 0;
    g = n >= 0 ? NULL : getgrnam(id);
    if (n < 0 && g == NULL)
        return EMPM_EINVAL;
    *gid = n >= 0 ? (gid_t)n : g->gr_gid;
    return EMPM_OK;
}

/* Looks up User, Group and the groups of that user, if root starts the server:
 * nobody else can become another. Says what is wrong. Returns EMPM_OK,
 * EMPM_ESYS or EMPM_ENOMEM. */
static int empm__identity_find(empm_server *s, empm__report *rep)
{
    const empm_config *cfg = s->cfg;
    int room = 16, n = 0, r = -1;
    if (cfg->user_name == NULL || geteuid() != 0)
        return EMPM_OK;
    if (empm__identity_user(cfg->user_name, &s->uid, &s->gid) < 0 ||
        (cfg->group_name != NULL &&
         empm__identity_group(cfg->group_name, &s->gid) < 0)) {
        empm__report_say(rep, EMPM_LOG_ERROR, 5035, "User %s or its Group is "
                         "not found%s%s", cfg->user_name, errno != 0 ? ": "
                                                                     : "",
                         errno != 0 ? strerror(errno) : "");
        return EMPM_ESYS;
    }
    /* a number has no groups but its own; else until there is room for all */
    while (cfg->user_name[0] != '#' && r < 0 && room < 65536) {
        gid_t *more;
        n = room *= 2;
        more = (gid_t *)EMPM_REALLOC(s->groups, (size_t)room * sizeof *more);
        if (more == NULL)
            return EMPM_ENOMEM;
        s->groups = more;
        r = getgrouplist(cfg->user_name, s->gid, s->groups, &n);
    }
    s->ngroups = n < room ? n : room;
    return EMPM_OK;
}

/* Looks up which rights the file of a Listen shall have; -1 is as it comes.
 * Says what is unknown. Returns EMPM_OK or EMPM_EINVAL. */
static int empm__identity_rights(const char *text, empm__rights *want,
                                 empm__report *rep)
{
    empm__endpoint_spec spec;
    const char *bad = NULL;
    gid_t own;
    want->mode = -1;
    want->uid = (uid_t)-1;
    want->gid = (gid_t)-1;
    if (empm__endpoint_parse(&spec, text) != NULL)
        return EMPM_OK;              /* another check says what is wrong */
    want->mode = spec.mode;
    if (spec.user[0] != '\0' &&
        empm__identity_user(spec.user, &want->uid, &own) < 0)
        bad = spec.user;
    if (spec.group[0] != '\0' && empm__identity_group(spec.group,
                                                      &want->gid) < 0)
        bad = spec.group;
    if (bad == NULL)
        return EMPM_OK;
    empm__report_say(rep, EMPM_LOG_ERROR, 5108, "Listen %s: there is no %s %s",
                     text, bad == spec.user ? "user" : "group", bad);
    return EMPM_EINVAL;
}

/* A process that has a directory outside of ChrootDir open is not held by it:
 * `..` leads from there to the root of all. So each directory that stays open
 * must lie inside, by its real path. */
static void empm__check_chroot(const empm_config *cfg, const char *directive,
                               const char *dir, empm__report *rep)
{
    char path[1200];
    char *top = realpath(empm__config_path(cfg, cfg->chroot_dir, path,
                                           sizeof path),
                         NULL);
    char *real = realpath(dir, NULL);
    const size_t n = top != NULL ? strlen(top) : 0;
    struct stat st;
    if (top != NULL && real != NULL && strcmp(top, "/") != 0 &&
        stat(top, &st) == 0 && S_ISDIR(st.st_mode) &&
        (strncmp(real, top, n) != 0 || (real[n] != '/' && real[n] != '\0')))
        empm__report_say(rep, EMPM_LOG_ERROR, 5134, "ChrootDir %s: %s %s is "
                         "outside: there is a way out through it: take one "
                         "inside", cfg->chroot_dir, directive, dir);
    free(top);
    free(real);
}

/* Checks users, groups and folders, most of which only empm_run() uses. They
 * are looked up once more when they are used: this is what -t can tell. */
static void empm__check_names(const empm_config *cfg, empm__report *rep)
{
    const char *dirs[2][2];
    char path[1200];
    struct stat st;
    uid_t uid = 1;
    gid_t gid;
    int i;
    dirs[0][0] = "ChrootDir";
    dirs[0][1] = cfg->chroot_dir;
    dirs[1][0] = "CoreDumpDirectory";
    dirs[1][1] = cfg->core_dump_directory;
    for (i = 0; i < 2; i++) {
        errno = ENOTDIR;             /* what is said where stat() works */
        if (dirs[i][1] != NULL &&
            (stat(empm__config_path(cfg, dirs[i][1], path, sizeof path),
                  &st) < 0 ||
             !S_ISDIR(st.st_mode)))
            empm__report_say(rep, EMPM_LOG_ERROR, 5134, "%s %s: %s", dirs[i][0],
                             dirs[i][1], strerror(errno));
    }
    for (i = 0; i < EMPM_MAX_LISTEN && cfg->listen[i] != NULL; i++) {
        empm__rights rights;
        empm__identity_rights(cfg->listen[i], &rights, rep);
    }
    if (cfg->user_name != NULL &&
        empm__identity_user(cfg->user_name, &uid, &gid) < 0)
        empm__report_say(rep, EMPM_LOG_ERROR, 543, "bad user name %s%s%s",
                         cfg->user_name, errno != 0 ? ": " : "",
                         errno != 0 ? strerror(errno) : "");
    if (cfg->group_name != NULL && empm__identity_group(cfg->group_name,
                                                        &gid) < 0)
        empm__report_say(rep, EMPM_LOG_ERROR, 544, "bad group name %s%s%s",
                         cfg->group_name, errno != 0 ? ": " : "",
                         errno != 0 ? strerror(errno) : "");
    if (cfg->group_name != NULL && cfg->user_name == NULL)
        empm__report_say(rep, EMPM_LOG_ERROR, 544, "Group without User");
    if (cfg->chroot_dir != NULL) {   /* all directories that stay open */
        empm__check_chroot(cfg, "SpoolDirectory",
                           empm__config_path(cfg, cfg->spool_directory, path,
                                             sizeof path), rep);
        for (i = 0; cfg->routes != NULL &&
             cfg->routes[i].kind != EMPM__ROUTE_END;
             i++)
            if (cfg->routes[i].kind == EMPM__ROUTE_FILES)
                empm__check_chroot(cfg, cfg->routes[i].root != NULL
                                            ? "EMPM_FILES" : "DocumentRoot",
                                   cfg->routes[i].root != NULL
                                       ? cfg->routes[i].root
                                       : empm__config_path(cfg,
                                                           cfg->document_root,
                                                           path, sizeof path),
                                   rep);
    }
    if (cfg->chroot_dir != NULL && (cfg->user_name == NULL || uid == 0))
        empm__report_say(rep, EMPM_LOG_ERROR, 5134, "ChrootDir %s: root walks "
                         "out of it",
                         cfg->user_name == NULL ? "without User" : "with User "
                         "root");
}

/* The whole check. `old`: what runs, if this is to follow it; or NULL. Returns
 * EMPM_OK, or the error of the first thing that is wrong; all has been said. */
static int empm__check_all(empm_config *cfg, const empm_config *old,
                           empm__report *rep)
{
    rep->errors = 0;
    rep->result = EMPM_OK;
    empm__config_check_numbers(cfg, old, rep);
    empm__check_rest(cfg, rep);
    empm__check_names(cfg, rep);
    if (rep->errors == 0)
        empm__check_system(cfg, rep);
    return rep->result;
}

EMPM_API int empm_check(empm_config *cfg,
                        void (*say)(enum empm_log_level, const char *, void *),
                        void *user)
{
    empm__report rep;
    rep.say = say;
    rep.user = user;
    empm__check_all(cfg, NULL, &rep);
    return rep.errors;
}

/* ---------------------------------------------------------------------------
 * >>logs -- ErrorLog, and logs that have been moved away
 *
 * Logs are opened anew without a restart: the new file takes the descriptor of
 * the old one, in all processes, so a write() that is under way meets the one
 * or the other.
 * ------------------------------------------------------------------------- */

/* What empm_start() finds wrong goes to the log: there is no terminal. */
static void empm__server_report_to_log(enum empm_log_level level,
                                       const char *line, void *user)
{
    const empm_config *cfg = (const empm_config *)user;
    if (empm__log_wanted(cfg, level))
        empm__log_line(cfg, level, -1, line);
}

static int empm__logs_same_file(int a, int b)
{
    struct stat x, y;
    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

/* Is stderr the ErrorLog? */
static int empm__logs_is_stderr(const empm_config *cfg)
{
    return cfg->error_log == NULL || strcmp(cfg->error_log, "stderr") == 0;
}

/* Opens the ErrorLog; messages go there from now on. A value that names none is
 * refused later, by the check. Returns EMPM_OK, or EMPM_ESYS, which is said. */
static int empm__logs_open(empm_config *cfg, empm__report *rep)
{
    const char *name = cfg->error_log;
    char path[1200];
    int to = 0, facility;
    if (empm__logs_is_stderr(cfg))
        to = (to = empm__log_std(2)) > 0 ? to : 0;
    else if ((facility = empm__log_facility(name)) == -1)
        ;
    else if (facility >= 0) {
        openlog(empm__log_tag(name), LOG_PID | LOG_NDELAY, facility);
        to = ~facility;
    } else {
        /* as with Apache, nobody hears that program: it cannot log to itself */
        const int null = *name == '|' ? open("/dev/null", O_WRONLY | O_CLOEXEC)
                                      : -1;
        to = *name == '|' ? empm__log_pipe_start(name, null)
                          : empm__log_file(empm__config_path(cfg, name, path,
                                                             sizeof path));
        if (null >= 0)
            close(null);
        if (to < 0) {
            empm__report_say(rep, EMPM_LOG_ERROR, 91,
                             "cannot %s ErrorLog %s: %s",
                             *name == '|' ? "start" : "open", name,
                             strerror(errno));
            return EMPM_ESYS;
        }
    }
    tzset();                         /* before a chroot hides its files */
    cfg->log_target = to;
    if (to > 0 && cfg->log_echo)     /* it may be there already */
        cfg->log_echo = !empm__logs_same_file(to, 2);
    return EMPM_OK;
}

/* Messages go to stderr again, or to syslog under the name of the library. */
static void empm__logs_close(empm_config *cfg)
{
    if (cfg->log == empm__log_stderr && cfg->log_target > 0)
        close(cfg->log_target);
    if (cfg->log == empm__log_stderr && cfg->log_target < 0)
        openlog("eventmpm", LOG_PID | LOG_NDELAY, ~cfg->log_target);
    cfg->log_target = 0;
}

/* --- logs that have been moved away --------------------------------------- */

enum { EMPM__LOGS = EMPM_MAX_LIST + 1 };  /* of a server */

/* Descriptors, and those that shall be in their place. Two generations may have
 * logs; what a child gets is the same list, in other numbers: it has to find
 * out which of its own are the same files. */
typedef struct empm__logs_swap {
    int n;                             /* pairs */
    int fd[2 * 2 * EMPM__LOGS];        /* from, to, from, to, ... */
} empm__logs_swap;

EMPM__ASSERT_STATIC(sizeof ((empm__logs_swap *)0)->fd <=
                        EMPM__FDS_MOST * sizeof(int),
                    the_logs_are_one_message);

/* Opens the log `name` once more; `from` is its descriptor so far. Returns
 * EMPM_OK, or EMPM_ESYS, which is said: the old file stays in use. */
static int empm__logs_swap_add(const empm_server *s, empm__logs_swap *w,
                               int code,
                               const char *directive, const char *name,
                               int from)
{
    char path[1200];
    const int to = empm__log_file(empm__config_path(s->cfg, name, path,
                                                    sizeof path));
    if (to < 0) {
        empm__log(s->cfg, EMPM_LOG_ERROR, code, "cannot open %s %s anew: %s: "
                  "the old file stays in use", directive, name,
                  strerror(errno));
        return EMPM_ESYS;
    }
    w->fd[2 * w->n] = from;
    w->fd[2 * w->n++ + 1] = to;
    return EMPM_OK;
}

/* Opens all logs of a server anew, as many as can be. Returns EMPM_OK, or
 * EMPM_ESYS if one could not. */
static int empm__logs_swap_open(const empm_server *s, empm__logs_swap *w)
{
    const empm__wing *const *wing;
    int r = EMPM_OK;
    EMPM__EACH_WING(wing, reopen)
        if ((*wing)->reopen(s, w) < 0)
            r = EMPM_ESYS;
    if (s->cfg->log == empm__log_stderr && s->cfg->log_target > 0 &&
        !empm__logs_is_stderr(s->cfg) && *s->cfg->error_log != '|' &&
        empm__logs_swap_add(s, w, 91, "ErrorLog", s->cfg->error_log,
                            s->cfg->log_target) < 0)
        r = EMPM_ESYS;
    return r;
}

/* If `fd` is the file `is`, it becomes what `to` is. A write() that is under
 * way meets one or the other. */
static void empm__logs_swap_one(int fd, const struct stat *is, int to)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_dev != is->st_dev ||
        st.st_ino != is->st_ino || dup2(to, fd) < 0)
        return;
    if (fd > 2)
        empm__fd_flags(fd, 0);
}

/* Carries it out in the logs of `s`, and in stderr if that is one of them. */
static void empm__logs_swap_do(empm_server *s, const empm__logs_swap *w)
{
    struct stat is;
    int i;
    for (i = 0; i < w->n; i++) {
        const int to = w->fd[2 * i + 1];
        const empm__wing *const *wing;
        if (fstat(w->fd[2 * i], &is) < 0)
            continue;
        EMPM__EACH_WING(wing, reopened)
            (*wing)->reopened(s, &is, to);
        if (s->cfg->log == empm__log_stderr && s->cfg->log_target > 0)
            empm__logs_swap_one(s->cfg->log_target, &is, to);
        empm__logs_swap_one(2, &is, to);
    }
}

/* `all`: both of each pair; else only what was opened for it. */
static void empm__logs_swap_close(empm__logs_swap *w, int all)
{
    for (; w->n > 0; w->n--) {
        close(w->fd[2 * w->n - 1]);
        if (all)
            close(w->fd[2 * w->n - 2]);
    }
}

EMPM_API int empm_reopen_logs(empm_server *s)
{
    empm__logs_swap w;
    int r;
    w.n = 0;
    r = empm__logs_swap_open(s, &w);
    empm__logs_swap_do(s, &w);
    empm__logs_swap_close(&w, 0);
    if (r == EMPM_OK)                /* else it has said what was not */
        empm__log(s->cfg, EMPM_LOG_NOTICE, 5045, "the logs are opened anew");
    return r;
}

/* ---------------------------------------------------------------------------
 * >>server -- what is made before the first thread or process, and its end
 *
 * A server is sockets, routes, the scoreboard and what the wings add; a reload
 * makes a second one beside the first, on the same scoreboard. An engine serves
 * with it in each process. It is made in this order:
 *
 *   log        so that all the rest can say what is wrong
 *   check      nothing is touched for settings that cannot be
 *   users, routes, what processes share, the spool folder, wings
 *   endpoints  last: a client that can connect finds all of the others
 * ------------------------------------------------------------------------- */

/* Removes the files of sockets, if they are ours. */
static void empm__server_sockets_unlink(const empm_server *s)
{
    int k;
    for (k = 0; k < s->nendpoints && s->owner == getpid(); k++)
        if (s->endpoints[k].path[0] != '\0')
            unlink(s->endpoints[k].path);
}

/* The end of a server, or of what there is of it. What it shares with the one
 * before it is not its own. */
static void empm__server_free(empm_server *s)
{
    const empm__wing *const *wing;
    int k;
    for (k = 0; k < s->nendpoints; k++)
        if (s->endpoints[k].fd >= 0)
            close(s->endpoints[k].fd);
    empm__server_sockets_unlink(s);
    if (s->spool_dir >= 0)
        close(s->spool_dir);
    EMPM__EACH_WING(wing, server_free)
        (*wing)->server_free(s);
    empm__logs_close(s->cfg);
    if (s->lends_log)
        s->cfg->log = NULL;
    empm__routes_free(&s->routes);
    empm__routes_free(&s->admin_routes);
    EMPM_FREE(s->groups);
    if (!s->borrows) {
        empm__exchange_free(&s->exchange);
        empm__score_free(&s->score);
    }
    EMPM_FREE(s);
}

/* What all processes share: the scoreboard and the exchange. They are made once
 * and outlive each reload. Returns EMPM_OK, or an error that has been said, but
 * for EMPM_ENOMEM. */
static int empm__server_share(empm_server *s, int shared,
                              const empm_server *old, empm__report *rep)
{
    const empm_config *cfg = s->cfg;
    empm__score_server *at;
    int r;
    if (old != NULL) {
        s->score = old->score;
        s->exchange = old->exchange;
        s->borrows = 1;
        s->generation = old->generation + 1;
        return EMPM_OK;
    }
    /* two generations, each with an admin child */
    r = empm__score_init(&s->score,
                         shared ? cfg->server_limit * EMPM_GENERATIONS + 2 : 2,
                         shared ? cfg->thread_limit : cfg->threads_per_child,
                         shared);
    if (r < 0)
        return r;
    if (empm__exchange_inherit(&s->exchange) && !shared)
        empm__exchange_free(&s->exchange);
    if (shared && !s->exchange.inherited &&
        (r = empm__exchange_new(&s->exchange)) < 0) {
        empm__report_say(rep, EMPM_LOG_ERROR, 5046, "no sockets between "
                         "children: %s", strerror(errno));
        return r;
    }
    at = empm__score_server_at(&s->score);
    at->started_us = empm__now_us();
    at->started_s = at->restarted_s = (int64_t)time(NULL);
    return EMPM_OK;
}

/* Where bodies and answers go that are too large for memory. Without the
 * default folder there is none, and they are refused. */
static int empm__server_spool_open(empm_server *s, empm__report *rep)
{
    const empm_config *cfg = s->cfg;
    char path[1200];
    s->spool_dir = open(empm__config_path(cfg, cfg->spool_directory, path,
                                          sizeof path),
                        O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->spool_dir >= 0 || (empm__check_spool_default(cfg) &&
                              (errno == ENOENT || errno == ENOTDIR)))
        return EMPM_OK;
    empm__report_say(rep, EMPM_LOG_ERROR, 5107, "SpoolDirectory %s: %s",
                     cfg->spool_directory, strerror(errno));
    return EMPM_ESYS;
}

/* Opens all endpoints, or takes them over. What is passed to us and nobody
 * accepts from must not listen: it is closed. */
static int empm__server_listen(empm_server *s, int shared,
                               const empm_server *old, empm__report *rep)
{
    empm_config *cfg = s->cfg;
    empm__inherited heritage;
    int i, r;
    empm__inherited_env(&heritage, rep);
    heritage.old = old;
    if (old == NULL && heritage.count > 0)
        s->owner = 0;                /* what has a name may be the old one's */
    if (cfg->listen[0] == NULL)
        cfg->listen[0] = empm__directive_preset("Listen");
    for (i = 0; i < EMPM_MAX_LISTEN && cfg->listen[i] != NULL; i++) {
        empm__rights rights;
        r = empm__identity_rights(cfg->listen[i], &rights, rep);
        if (r == EMPM_OK)
            r = empm__endpoint_open(s, cfg->listen[i], &rights, &heritage, rep);
        if (r < 0)
            return r;
    }
    for (i = 0; old == NULL && shared && i < heritage.count; i++) {
        int k, used = 0;
        for (k = 0; k < s->nendpoints; k++)
            used |= s->endpoints[k].fd == EMPM__HERITAGE_FD + i;
        if (!used && empm__endpoint_is_listening(EMPM__HERITAGE_FD + i))
            close(EMPM__HERITAGE_FD + i);
    }
    return EMPM_OK;
}

/* Everything up to the first thread. `shared`: children will be forked. `old`:
 * the server whose sockets and scoreboard the new one shares, or NULL. Opens
 * the ErrorLog, unless that has been done; on failure it is closed. */
static int empm__server_new(empm_config *cfg, int shared,
                            const empm_server *old, empm__report *rep,
                            empm_server **out)
{
    const empm__wing *const *wing;
    empm_server *s = NULL;
    int r = EMPM_OK;
    *out = NULL;
    if (cfg->log == empm__log_stderr && cfg->log_target == 0)
        r = empm__logs_open(cfg, rep);
    if (r == EMPM_OK)
        r = empm__check_all(cfg, old != NULL ? old->cfg : NULL, rep);
    if (r == EMPM_OK && (s = (empm_server *)EMPM_MALLOC(sizeof *s)) == NULL) {
        r = EMPM_ENOMEM;
        empm__report_say(rep, EMPM_LOG_ERROR, 5104, "no memory");
    }
    if (s == NULL) {
        empm__logs_close(cfg);
        return r;
    }
    /* from here on empm__server_free() undoes what there is */
    memset(s, 0, sizeof *s);
    s->cfg = cfg;
    s->parent_fd = s->spool_dir = -1;
    empm__exchange_none(&s->exchange);
    s->owner = getpid();
    empm__chars_init(&s->chars);
    if ((r = empm__identity_find(s, rep)) < 0 ||
        (r = empm__routes_init(&s->routes, cfg->routes, &s->chars, rep)) < 0 ||
        (r = empm__server_share(s, shared, old, rep)) < 0 ||
        (r = empm__server_spool_open(s, rep)) < 0)
        goto done;
    EMPM__EACH_WING(wing, server_new)
        if ((r = (*wing)->server_new(s, old, rep)) < 0)
            goto done;
    r = empm__server_listen(s, shared, old, rep);
done:
    if (r == EMPM_ENOMEM)
        empm__report_say(rep, EMPM_LOG_ERROR, 5104, "no memory");
    if (r < 0)
        empm__server_free(s);
    else
        *out = s;
    return r;
}

EMPM_API int empm_port(const empm_server *s, int i)
{
    return i >= 0 && i < s->nendpoints ? s->endpoints[i].port : -1;
}

/* Is there an endpoint for the status alone? Then it has an engine of its own,
 * which answers when all workers are stuck. */
static int empm__server_has_admin(const empm_server *s)
{
    int k, n = 0;
    for (k = 0; k < s->nendpoints; k++)
        n += s->endpoints[k].admin;
    return n > 0;
}

/* Makes an engine in scoreboard slot `slot` and starts its threads, with the
 * hook of the child between the two: it runs when nothing has been accepted.
 * Returns EMPM_OK, or an error that has been said: then nothing is left of
 * it. */
static int empm__server_engine_new(empm_server *s, empm__engine *e, int slot,
                                   int admin)
{
    empm__score_slot *at = empm__score_slot_at(&s->score, slot);
    const empm_config *cfg = s->cfg;
    int r, rc = 0;
    if (!EMPM__HAS_PARENT(s)) {          /* else the parent has done it */
        empm__store(&at->admin, (uint32_t)admin);
        empm__store(&at->used, 1u);
        empm__store(&at->pid, (uint32_t)getpid());
    }
    r = empm__engine_init(e, s, slot, admin);
    if (r < 0)
        empm__log(cfg, EMPM_LOG_ERROR, 5011, "no %s for %d threads and %u "
                  "connections: %s: lower ThreadsPerChild or "
                  "MaxOpenConnections",
                  r == EMPM_ENOMEM ? "memory" : "epoll or eventfd",
                  cfg->threads_per_child,
                  (unsigned)empm__engine_connection_limit(cfg),
                  strerror(errno));
    if (r == EMPM_OK && !admin && cfg->on_child_start != NULL)
        rc = cfg->on_child_start(s, cfg->user);
    if (rc != 0) {
        empm__log(cfg, EMPM_LOG_ERROR, 5007, "on_child_start has returned %d: "
                  "the child gives up", rc);
        r = EMPM_ESYS;
    } else if (r == EMPM_OK) {
        r = empm__engine_start(e);
        if (r < 0 && !admin && cfg->on_child_stop != NULL)
            cfg->on_child_stop(s, cfg->user);
    }
    if (r < 0)
        empm__engine_free(e);
    return r;
}

/* Starts the engine of this process, in scoreboard slot `slot`. Without a
 * parent there is a second one for the admin endpoints: started first, as it
 * may fail and the other one must then not have served. */
static int empm__server_engines_start(empm_server *s, int slot, int admin)
{
    int r;
    if (!EMPM__HAS_PARENT(s) && empm__server_has_admin(s)) {
        s->admin = (empm__engine *)EMPM_MALLOC(sizeof *s->admin);
        if (s->admin == NULL)
            return EMPM_ENOMEM;
        if ((r = empm__server_engine_new(s, s->admin, slot + 1, 1)) < 0) {
            EMPM_FREE(s->admin);
            s->admin = NULL;
            return r;
        }
    }
    r = empm__server_engine_new(s, &s->engine, slot, admin);
    s->engine_ready = r == EMPM_OK;
    if (r < 0 && s->admin != NULL) {
        empm__poller_order(&s->admin->poller, EMPM__ORDER_STOP);
        empm__engine_wait(s->admin, -1);
        empm__engine_free(s->admin);
        EMPM_FREE(s->admin);
        s->admin = NULL;
    }
    return r;
}

/* After their end, which empm_wait() has seen: no thread of theirs runs. */
static void empm__server_engines_free(empm_server *s)
{
    if (s->engine_ready)
        empm__engine_free(&s->engine);
    if (s->admin != NULL)
        empm__engine_free(s->admin);
    EMPM_FREE(s->admin);
    s->admin = NULL;
    s->engine_ready = 0;
}

/* The start is over: messages go to the log alone, and no more to the terminal,
 * too. */
static void empm__server_log_serves(empm_config *cfg)
{
    empm__store(&cfg->log_echo, 0);
    empm__log(cfg, EMPM_LOG_NOTICE, 489, "eventmpm/%s configured -- resuming "
              "normal operations", EMPM_VERSION);
}

EMPM_API int empm_start(empm_config *cfg, empm_server **out)
{
    empm_server *s;
    empm__report rep;
    const int lends = cfg->log == NULL && cfg->error_log != NULL;
    int r;
    *out = NULL;
    if (lends)                       /* ErrorLog without a function: ours */
        cfg->log = empm__log_stderr;
    memset(&rep, 0, sizeof rep);
    rep.say = empm__server_report_to_log;
    rep.user = cfg;
    r = empm__server_new(cfg, 0, NULL, &rep, &s);
    if (r == EMPM_OK && (r = empm__server_engines_start(s, 0, 0)) < 0)
        empm__server_free(s);
    if (r < 0) {
        cfg->log = lends ? NULL : cfg->log;
        return r;
    }
    s->lends_log = lends;
    s->owner = getpid();
    empm__server_log_serves(cfg);
    *out = s;
    return EMPM_OK;
}

EMPM_API void empm_stop(empm_server *s)
{
    empm__poller_order(&s->engine.poller, EMPM__ORDER_STOP);
}

EMPM_API void empm_stop_graceful(empm_server *s)
{
    empm__poller_order(&s->engine.poller, EMPM__ORDER_GRACEFUL);
}

EMPM_API int empm_draining(const empm_server *s)
{
    return empm__load(&s->engine.stopping) != 0;
}

EMPM_API int empm_wait(empm_server *s, int timeout_ms)
{
    const int joined = s->engine.joined;
    const uint64_t began = empm__now_us();
    int r = empm__engine_wait(&s->engine, timeout_ms);
    if (r == EMPM_OK && !joined && !s->engine.admin &&
        s->cfg->on_child_stop != NULL)
        s->cfg->on_child_stop(s, s->cfg->user);
    /* the admin engine last: it shows how the end goes */
    if (r == EMPM_OK && s->admin != NULL) {
        const uint64_t ms = (empm__now_us() - began) / 1000u;
        empm__poller_order(&s->admin->poller, EMPM__ORDER_STOP);
        if (timeout_ms > 0)          /* one patience for both */
            timeout_ms -= (int)empm__min((size_t)ms, (size_t)timeout_ms);
        r = empm__engine_wait(s->admin, timeout_ms);
    }
    return r;
}

EMPM_API void empm_free(empm_server *s)
{
    if (s == NULL)
        return;
    if (s->engine_ready) {
        if (!s->engine.joined || s->admin != NULL) {
            empm_stop(s);
            empm_wait(s, -1);
        }
        empm__server_engines_free(s);
    }
    empm__server_free(s);
}

/* ===========================================================================
 * Here ends the core: what a build without any part has. What follows is wings,
 * each of which the core knows by its row in >>wings alone, and then programs:
 * signals, children, a command line.
 * ========================================================================= */

#ifndef EVENTMPM_NO_CONFIG_FILES

/* ---------------------------------------------------------------------------
 * >>config-files -- files of directives in Apache's syntax
 *
 * A line is joined with those that continue it, its ${NAME} are put in, and its
 * directive is set as one of -c is. A message names file and line, and reading
 * goes on, so that one run says all that is wrong. Includes and defined names
 * are bounded: a file that includes itself comes to an end.
 * ------------------------------------------------------------------------- */

#define EMPM__CONFIG_LINE 8192         /* bytes, with the lines that go on */
#define EMPM__CONFIG_DEPTH 16          /* Include within Include */
#define EMPM__CONFIG_SECTIONS 32       /* <Section> within <Section> */
#define EMPM__CONFIG_DEFINES 64        /* names at a time */
#define EMPM__APACHE { 2, 4, 66 }      /* whose directives these are */

typedef struct empm__defines {         /* of Define and -D, in the arena */
    const char *text[EMPM__CONFIG_DEFINES];    /* "NAME" or "NAME=value" */
} empm__defines;

typedef struct empm__loader {
    empm_config  *cfg;
    empm__report *rep;
    empm__defines *defines;
    uint64_t      lists;               /* those that this file has begun */
    int           depth, stop;         /* stop: includes go round in circles */
    const char   *path;                /* where we are */
    long          line;
} empm__loader;

static void empm__loader_file(empm__loader *l, const char *path);

/* One line of text: reads on after '\'. 0: the end; -1: it is too long, or has
 * a NUL. *line: the last one that was begun. */
static int empm__loader_line(FILE *f, char *text, long *line)
{
    size_t n = 0;
    int c = 0, r = 1, begins = 1;
    while (r > 0) {
        c = getc(f);
        *line += begins && c != EOF;
        begins = c == '\n';
        if (c == '\n' || c == EOF) {
            n -= n > 0 && text[n - 1] == '\r';
            if (n == 0 || text[n - 1] != '\\')
                break;
            n--;
            if (c == EOF)
                break;
        } else if (c == '\0' || n + 1 == EMPM__CONFIG_LINE)
            r = -1;
        else
            text[n++] = (char)c;
    }
    text[n] = '\0';
    return r < 0 ? r : c != EOF || n > 0;
}

/* Which of the texts begins with this name? -1: none. */
static int empm__define_find(const empm__defines *d, const char *name)
{
    const size_t n = strlen(name);
    int i;
    for (i = 0; i < EMPM__CONFIG_DEFINES; i++)
        if (d->text[i] != NULL && strncmp(d->text[i], name, n) == 0 &&
            (d->text[i][n] == '\0' || d->text[i][n] == '='))
            return i;
    return -1;
}

/* Keeps "NAME" or "NAME=value"; a former value of NAME goes. Returns NULL, or
 * the reason of a refusal. */
static const char *empm__define(empm_config *cfg, empm__defines *d,
                                const char *text)
{
    char name[128];
    const size_t n = strcspn(text, "=");
    int i;
    if (n == 0 || n >= sizeof name)
        return "wants a name of at most 127 bytes";
    memcpy(name, text, n);
    name[n] = '\0';
    i = empm__define_find(d, name);
    if (i < 0)
        for (i = 0; i < EMPM__CONFIG_DEFINES && d->text[i] != NULL; i++)
            ;
    if (i == EMPM__CONFIG_DEFINES)
        return "is one name too many: 64 can be defined";
    d->text[i] = empm__config_keep(cfg, text);
    return d->text[i] != NULL ? NULL : empm__no_memory;
}

/* Define NAME [value], UnDefine NAME. */
static void empm__load_define(empm__loader *l, const char *args, int undefine)
{
    char text[128 + EMPM__CONFIG_LINE];
    const char *rest = args, *why = NULL;
    int i = empm__text_word(&rest, text, 128), more = 0;
    if (i == 1 && !undefine) {
        const size_t n = strlen(text);
        more = empm__text_word(&rest, text + n + 1, sizeof text - n - 1);
        if (more == 1)
            text[n] = '=';
    }
    if (i != 1 || more < 0 || rest[strspn(rest, " \t")] != '\0')
        why = undefine ? "takes a name" : "takes a name and perhaps a value";
    else if (!undefine)
        why = empm__define(l->cfg, l->defines, text);
    else if ((i = empm__define_find(l->defines, text)) >= 0)
        l->defines->text[i] = NULL;
    if (why == empm__no_memory)
        l->rep->result = EMPM_ENOMEM;
    if (why != NULL)
        empm__report_say(l->rep, EMPM_LOG_ERROR, 5123, "%s:%ld: %s %s: %s",
                         l->path,
                         l->line, undefine ? "UnDefine" : "Define", args, why);
}

/* Replaces each ${NAME} by its value from Define or the environment. A name
 * that has none stays as it stands. Returns 0, or -1: the line is too long. */
static int empm__loader_expand(empm__loader *l, const char *from, char *to)
{
    size_t n = 0;
    while (*from != '\0') {
        const char *end = strncmp(from, "${", 2) == 0 ? strchr(from, '}')
                                                      : NULL;
        const char *value = NULL;
        char name[128];
        int i;
        if (end != NULL && (size_t)(end - from) - 2 < sizeof name) {
            memcpy(name, from + 2, (size_t)(end - from) - 2);
            name[end - from - 2] = '\0';
            i = empm__define_find(l->defines, name);
            if (i >= 0 && l->defines->text[i][strlen(name)] == '=')
                value = l->defines->text[i] + strlen(name) + 1;
            else
                value = getenv(name);
            if (value == NULL)
                empm__report_say(l->rep, EMPM_LOG_WARN, 111, "%s:%ld: ${%s} is "
                                 "not set: Define it, or put it into the "
                                 "environment", l->path, l->line, name);
        }
        if (n + (value != NULL ? strlen(value) : 1) >= EMPM__CONFIG_LINE)
            return -1;
        if (value != NULL) {
            memcpy(to + n, value, strlen(value));
            n += strlen(value);
            from = end + 1;
        } else
            to[n++] = *from++;
    }
    to[n] = '\0';
    return 0;
}

static int empm__loader_by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void empm__loader_path(empm__loader *l, const char *path);

/* Reads all files of a folder and of the folders inside, in the order of the
 * bytes of their names. Names that begin with a dot count, too. */
static void empm__loader_folder(empm__loader *l, const char *path)
{
    DIR *dir = opendir(path);
    char **names = NULL, file[1300];
    size_t n = 0, i;
    struct dirent *e;
    if (dir == NULL)
        empm__report_say(l->rep, EMPM_LOG_ERROR, 5120, "%s: %s", path,
                         strerror(errno));
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        const size_t len = strlen(e->d_name) + 1;
        char **more;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        more = (char **)EMPM_REALLOC(names, (n + 1) * sizeof *names);
        names = more != NULL ? more : names;
        if (more == NULL || (names[n] = (char *)EMPM_MALLOC(len)) == NULL) {
            l->rep->result = EMPM_ENOMEM;
            l->stop = 1;
            break;
        }
        memcpy(names[n++], e->d_name, len);
    }
    if (dir != NULL)
        closedir(dir);
    if (n > 1)
        qsort(names, n, sizeof *names, empm__loader_by_name);
    for (i = 0; i < n; i++) {
        if (!l->stop &&
            snprintf(file, sizeof file, "%s/%s", path, names[i]) <
                (int)sizeof file)
            empm__loader_path(l, file);
        EMPM_FREE(names[i]);
    }
    EMPM_FREE(names);
}

/* A file or a folder. */
static void empm__loader_path(empm__loader *l, const char *path)
{
    const empm__loader here = *l;
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
        empm__loader_file(l, path);
    else if (l->depth == EMPM__CONFIG_DEPTH) {
        empm__report_say(l->rep, EMPM_LOG_ERROR, 5120, "%s: folders are nested "
                         "more than %d deep", path, EMPM__CONFIG_DEPTH);
        l->stop = 1;
    } else {
        l->depth++;
        empm__loader_folder(l, path);
    }
    l->depth = here.depth;
    l->path = here.path;
    l->line = here.line;
}

/* Include: reads a file, a folder, or the files that match a pattern, in the
 * order of their names. */
static void empm__loader_include(empm__loader *l, const char *args,
                                 int optional)
{
    char word[1024], path[1200];
    const char *pattern;
    struct stat st;
    glob_t found;
    size_t i;
    int r;
    if (empm__text_word(&args, word, sizeof word) != 1 || *args != '\0') {
        empm__report_say(l->rep, EMPM_LOG_ERROR, 5120, "%s:%ld: Include takes "
                         "one file, folder or pattern", l->path, l->line);
        return;
    }
    pattern = empm__config_path(l->cfg, word, path, sizeof path);
    if (stat(pattern, &st) == 0) {
        empm__loader_path(l, pattern);
        return;
    }
    r = glob(pattern, GLOB_NOSORT, NULL, &found);
    if (r != 0) {
        if (!optional || r != GLOB_NOMATCH)
            empm__report_say(l->rep, EMPM_LOG_ERROR, 5120, "%s:%ld: Include "
                             "%s: %s%s",
                             l->path, l->line, word, r == GLOB_NOMATCH
                          ? "there is no such file" : "it cannot be read",
                             word[0] != '/' && l->cfg->server_root == NULL
                          ? ": say ServerRoot before it, the folder that it "
                            "is in" : "");
        return;
    }
    qsort(found.gl_pathv, found.gl_pathc, sizeof *found.gl_pathv,
          empm__loader_by_name);
    for (i = 0; i < found.gl_pathc && !l->stop; i++)
        empm__loader_path(l, found.gl_pathv[i]);
    globfree(&found);
}

static void empm__loader_directive(empm__loader *l, const char *name,
                                   const char *value)
{
    char where[1024];
    if (empm__text_equal(name, "Include") ||
        empm__text_equal(name, "IncludeOptional")) {
        empm__loader_include(l, value, name[7] != '\0');
        return;
    }
    if (empm__text_equal(name, "Define") ||
        empm__text_equal(name, "UnDefine")) {
        empm__load_define(l, value, empm__ascii_lower(name[0]) == 'u');
        return;
    }
    snprintf(where, sizeof where, "%.960s:%ld: ", l->path, l->line);
    empm__directive_set(l->cfg, where, name, value, &l->lists, l->rep);
}

/* ---------------------------------------------------------------------------
 * >>config-sections -- <If...>, and the loop over the lines of a file
 *
 * A section holds or not when it is opened; one that does not is only searched
 * for where sections begin and end. One that is not known is left out and
 * said, as its directives may be meant for a part of the server only.
 * ------------------------------------------------------------------------- */

/* Has this server the module that <IfModule> names, "x_module" or "mod_x.c"? */
static int empm__loader_has_module(const char *name)
{
    const size_t n = strlen(name), end = sizeof "_module" - 1;
    const char *ours;
    char file[40];
    int k;
    for (k = 0; (ours = empm__wings_module(k, file)) != NULL; k++)
        if (strcmp(name, file) == 0 || strcmp(name, ours) == 0 ||
            (n == strlen(ours) + end &&
             strcmp(name + n - end, "_module") == 0 &&
             strncmp(name, ours, n - end) == 0))
            return 1;
    return 0;
}

/* <IfVersion [operator] 2.4.1>: 1 or 0; -1: it makes no sense. */
static int empm__loader_version_is(const char *s)
{
    static const int ours[] = EMPM__APACHE;
    const size_t n = strspn(s, "<=>");
    const char *v = s + n + strspn(s + n, " \t");
    const char first = *s;
    const int same = n == 0 || s[n - 1] == '=';
    int i, order = 0;
    if (n > 2 || (n == 2 && s[1] != '='))
        return -1;
    for (i = 0; i < 3; i++) {
        const size_t digits = strspn(v, "0123456789");
        const int64_t want = *v != '\0' || i == 0 ? empm__parse_u63(v, digits)
                                                  : 0;
        if (want < 0)
            return -1;
        if (order == 0)
            order = ours[i] < want ? -1 : ours[i] > want;
        v += digits;
        v += *v == '.' && i < 2 && empm__ascii_is_digit((unsigned char)v[1]);
    }
    if (*v != '\0')
        return -1;
    return order == 0 ? same : order < 0 ? first == '<' : first == '>';
}

/* Does the condition of a section hold? 1 or 0; -1: it makes no sense, -2: this
 * is no section with a condition. */
static int empm__loader_holds(const empm__loader *l, const char *name,
                              const char *arg)
{
    char path[1200];
    const int no = *arg == '!';
    int is;
    arg += no;
    if (!empm__text_begins(name, "<If"))
        return -2;
    if (empm__text_equal(name + 3, "Module"))
        is = empm__loader_has_module(arg);
    else if (empm__text_equal(name + 3, "Define"))
        is = empm__define_find(l->defines, arg) >= 0;
    else if (empm__text_equal(name + 3, "File"))
        is = access(empm__config_path(l->cfg, arg, path, sizeof path),
                    F_OK) == 0;
    else if (empm__text_equal(name + 3, "Version"))
        is = empm__loader_version_is(arg);
    else
        return -2;
    return *arg == '\0' || is < 0 ? -1 : is ^ no;
}

typedef struct empm__sections {        /* of one file, those that are open */
    int  open, skip;                   /* skip: the first that is left out; 0 */
    char name[EMPM__CONFIG_SECTIONS][24];
} empm__sections;

/* "</Name>" closes the last section of that name. Sections that are open inside
 * it end with it, and are complained of. */
static void empm__loader_section_close(empm__loader *l, empm__sections *o,
                                       const char *name)
{
    const size_t n = strcspn(name + 2, ">");
    int i = o->open;
    while (i > 0 && !empm__text_same(o->name[i - 1] + 1,
                                     strlen(o->name[i - 1]) - 1,
                                     name + 2, empm__min(n, 22)))
        i--;
    if (i == 0 && o->skip == 0)
        empm__report_say(l->rep, EMPM_LOG_ERROR, 5125, "%s:%ld: %s without "
                         "<%.*s>", l->path, l->line, name, (int)n, name + 2);
    if (i == 0)
        return;
    if (i < o->open && o->skip == 0)
        empm__report_say(l->rep, EMPM_LOG_ERROR, 5125, "%s:%ld: %s before %s> "
                         "is closed", l->path, l->line, name,
                         o->name[o->open - 1]);
    o->open = i - 1;
    if (o->skip > o->open)
        o->skip = 0;
}

/* "<Name argument>". A section that is not known is left out, as if all that it
 * holds were unknown, too. */
static void empm__loader_section_open(empm__loader *l, empm__sections *o,
                                      char *name, char *arg)
{
    char *last = *arg != '\0' ? arg : name;
    size_t n = strlen(last);
    const char *instead;
    int holds = 0;
    if (last[n - 1] == '>')
        n--;
    else if (o->skip == 0) {
        empm__report_say(l->rep, EMPM_LOG_ERROR, 5125, "%s:%ld: %s wants a > "
                         "at its end", l->path, l->line, name);
        return;
    }
    last[empm__text_trimmed(last, n)] = '\0';
    if (o->open == EMPM__CONFIG_SECTIONS) {
        empm__report_say(l->rep, EMPM_LOG_ERROR, 5125, "%s:%ld: %s> is the "
                         "%dth section within others", l->path, l->line, name,
                         o->open + 1);
        l->stop = 1;
        return;
    }
    if (o->skip == 0) {
        holds = empm__loader_holds(l, name, arg);
        instead = holds == -2 ? empm__directive_instead_of(name) : NULL;
        if (holds == -1) {
            empm__report_say(l->rep, EMPM_LOG_ERROR, 5125, "%s:%ld: %s %s> is "
                             "no condition", l->path, l->line, name, arg);
            if (*arg == '\0')
                return;
        } else if (instead != NULL)
            empm__report_say(l->rep, EMPM_LOG_ERROR, 5126, "%s:%ld: %s> is "
                             "Apache's and not here: %s (what is inside is "
                             "left out)", l->path, l->line, name, instead);
        else if (holds == -2)
            empm__report_say(l->rep, EMPM_LOG_ERROR, 5125, "%s:%ld: section "
                             "%s> is not known here", l->path, l->line, name);
    }
    snprintf(o->name[o->open++], sizeof o->name[0], "%.23s", name);
    if (o->skip == 0 && holds != 1)
        o->skip = o->open;
}

/* All of one file into the config, with its sections. */
static void empm__loader_text(empm__loader *l, FILE *f, char *raw, char *text)
{
    empm__sections o;
    int r, first = 1;
    memset(&o, 0, sizeof o);
    while (!l->stop && (r = empm__loader_line(f, raw, &l->line)) != 0) {
        /* editors of Windows mark UTF-8 so */
        const int mark = first && strncmp(raw, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
        char *p = raw + mark + strspn(raw + mark, " \t");
        char name[64];
        size_t n;
        first = 0;
        if (r > 0 && *p == '#')
            continue;
        if (r < 0 || (o.skip == 0 && empm__loader_expand(l, p, text) < 0)) {
            empm__report_say(l->rep, EMPM_LOG_ERROR, 5124, "%s:%ld: a line of "
                             "more than %d bytes, or with a NUL", l->path,
                             l->line, EMPM__CONFIG_LINE - 1);
            return;
        }
        p = o.skip == 0 ? text + strspn(text, " \t") : p;
        p[empm__text_trimmed(p, strlen(p))] = '\0';
        if (*p == '\0')
            continue;
        n = strcspn(p, " \t");
        snprintf(name, sizeof name, "%.*s", (int)empm__min(n, 63), p);
        p += n + strspn(p + n, " \t");
        if (strncmp(name, "</", 2) == 0)
            empm__loader_section_close(l, &o, name);
        else if (name[0] == '<')
            empm__loader_section_open(l, &o, name, p);
        else if (o.skip == 0)
            empm__loader_directive(l, name, p);
    }
    if (o.open > 0 && !l->stop)
        empm__report_say(l->rep, EMPM_LOG_ERROR, 5125, "%s:%ld: %s> is never "
                         "closed", l->path, l->line, o.name[o.open - 1]);
}

static void empm__loader_file(empm__loader *l, const char *path)
{
    FILE *f = NULL;
    char *text = (char *)EMPM_MALLOC(2 * EMPM__CONFIG_LINE);
    if (text == NULL) {
        l->rep->result = EMPM_ENOMEM;
        empm__report_say(l->rep, EMPM_LOG_ERROR, 5104, "%s: no memory", path);
    } else if (l->depth == EMPM__CONFIG_DEPTH) {
        empm__report_say(l->rep, EMPM_LOG_ERROR, 5120, "%s:%ld: Include is "
                         "nested more than %d deep", l->path, l->line,
                         EMPM__CONFIG_DEPTH);
        l->stop = 1;
    } else if ((f = fopen(path, "re")) == NULL)
        empm__report_say(l->rep, EMPM_LOG_ERROR, 5120, "%s: %s", path,
                         strerror(errno));
    if (f != NULL) {
        l->path = path;
        l->line = 0;
        l->depth++;
        empm__loader_text(l, f, text, text + EMPM__CONFIG_LINE);
        if (ferror(f))
            empm__report_say(l->rep, EMPM_LOG_ERROR, 5120, "%s: %s", path,
                             strerror(errno));
        l->depth--;
        fclose(f);
    }
    EMPM_FREE(text);
}

static void empm__config_load_with(empm_config *cfg, empm__defines *defines,
                                   const char *path, empm__report *rep)
{
    empm__loader l;
    memset(&l, 0, sizeof l);
    l.cfg = cfg;
    l.rep = rep;
    l.defines = defines;
    l.path = path;
    empm__loader_file(&l, path);
}

static void empm__config_load(empm_config *cfg, const char *path,
                              empm__report *rep)
{
    empm__defines defines;
    memset(&defines, 0, sizeof defines);
    empm__config_load_with(cfg, &defines, path, rep);
}

EMPM_API int empm_load(empm_config *cfg, const char *path, char *err, size_t n)
{
    empm__first first;
    empm__report rep;
    empm__report_first_init(&rep, &first, err, n);
    empm__config_load(cfg, path, &rep);
    return rep.result;
}

#endif /* EVENTMPM_NO_CONFIG_FILES */

/* ---------------------------------------------------------------------------
 * >>proxy -- the client behind a proxy, and which proxies are believed
 *
 * A PROXY header is the first thing on a connection, before TLS and HTTP; it
 * names the peer. A field such as X-Forwarded-For is part of a request, and any
 * client may send one: each proxy appends the address that it has seen. So the
 * field is read from the right, as long as the address that wrote an element is
 * in RemoteIPTrustedProxy.
 *
 *   v1   PROXY TCP4 192.0.2.1 198.51.100.7 4711 80 CRLF
 *   v2   signature | 2, command | family, protocol | length | addresses | TLVs
 *        12          1            1                  2        12, 36 or 216
 *
 * source    HAProxy, "The PROXY protocol", versions 1 and 2
 * ------------------------------------------------------------------------- */

#ifndef EVENTMPM_NO_PROXY

typedef struct empm__net {
    uint8_t family, bits;
    uint8_t addr[16];
} empm__net;

typedef struct empm__nets {
    empm__net *list;
    size_t     n;
} empm__nets;

/* An address and nothing else; `family` 0: either. 0: it is none, and *p is as
 * it was. */
static int empm__proxy_address_parse(empm__peer *p, int family, const char *s,
                                     size_t n)
{
    char text[INET6_ADDRSTRLEN];
    unsigned char addr[16];
    if (n >= sizeof text)
        return 0;
    memcpy(text, s, n);
    text[n] = '\0';
    if (family != EMPM__PEER_IPV6 && inet_pton(AF_INET, text, addr) == 1)
        family = EMPM__PEER_IPV4;
    else if (family != EMPM__PEER_IPV4 && inet_pton(AF_INET6, text, addr) == 1)
        family = EMPM__PEER_IPV6;
    else
        return 0;
    empm__peer_set(p, family, addr, 0);
    return 1;
}

/* "192.0.2.0/24", or an address, which is a network of one. */
static int empm__proxy_net_parse(empm__net *net, const char *s, size_t n)
{
    const char *slash = (const char *)memchr(s, '/', n);
    const size_t len = slash != NULL ? (size_t)(slash - s) : n;
    empm__peer p, mask;
    int64_t bits, all, i;
    if (!empm__proxy_address_parse(&p, 0, s, len))
        return 0;
    all = p.family == EMPM__PEER_IPV4 ? 32 : 128;
    bits = slash != NULL ? empm__parse_u63(slash + 1, n - len - 1) : all;
    if (slash != NULL && p.family == EMPM__PEER_IPV4 &&
        empm__proxy_address_parse(&mask, 0, slash + 1, n - len - 1) &&
        mask.family == EMPM__PEER_IPV4) {      /* 10.0.0.0/255.0.0.0 */
        for (bits = 0; bits < 32 && mask.addr[bits / 8] >> (7 - bits % 8) & 1;)
            bits++;
        for (i = bits; i < 32; i++)
            if (mask.addr[i / 8] >> (7 - i % 8) & 1)
                return 0;
    }
    if (slash != NULL && p.family == EMPM__PEER_IPV4 &&
        memchr(s, ':', len) != NULL)
        bits -= 96;                      /* it was written inside IPv6 */
    if (bits < 0 || bits > all)
        return 0;
    net->family = p.family;
    net->bits = (uint8_t)bits;
    memcpy(net->addr, p.addr, sizeof net->addr);
    return 1;
}

static void empm__proxy_nets_free(empm__nets *t)
{
    EMPM_FREE(t->list);
    t->list = NULL;
}

/* All of RemoteIPTrustedProxy. */
static int empm__proxy_nets_init(empm__nets *t, const empm_config *cfg,
                                 empm__report *rep)
{
    size_t most = 0, n;
    int i;
    memset(t, 0, sizeof *t);
    for (i = 0; i < EMPM_MAX_LIST && cfg->remote_ip_trusted_proxy[i]; i++)
        most += strlen(cfg->remote_ip_trusted_proxy[i]) / 2 + 1;
    if (most == 0)
        return EMPM_OK;
    t->list = (empm__net *)EMPM_MALLOC(most * sizeof *t->list);
    if (t->list == NULL)
        return EMPM_ENOMEM;
    for (i = 0; i < EMPM_MAX_LIST && cfg->remote_ip_trusted_proxy[i]; i++) {
        const char *s = cfg->remote_ip_trusted_proxy[i];
        for (; *(s += strspn(s, " \t,")) != '\0'; s += n) {
            n = strcspn(s, " \t,");
            if (empm__proxy_net_parse(&t->list[t->n], s, n))
                t->n++;
            else
                empm__report_say(rep, EMPM_LOG_ERROR, 5301,
                                 "RemoteIPTrustedProxy %.*s: neither an "
                                 "address nor a network such as 10.0.0.0/8",
                                 (int)empm__min(n, 100), s);
        }
    }
    return EMPM_OK;
}

/* A proxy that speaks for a client without naming it lends it no trust. */
static int empm__proxy_trusts(const empm__nets *t, const empm__peer *p)
{
    size_t i;
    if (p->proxied == EMPM__PROXIED_NAMELESS)
        return 0;
    for (i = 0; i < t->n; i++) {
        const empm__net *net = &t->list[i];
        const int whole = net->bits / 8, rest = net->bits % 8;
        if (net->family == p->family &&
            memcmp(net->addr, p->addr, (size_t)whole) == 0 &&
            (rest == 0 ||
             (net->addr[whole] ^ p->addr[whole]) >> (8 - rest) == 0))
            return 1;
    }
    return p->family == EMPM__PEER_UNIX;
}

/* An address in a field: also "192.0.2.1:80", "[2001:db8::1]", "[...]:80". */
static int empm__proxy_node_parse(empm__peer *p, const char *s, size_t n)
{
    const int bracket = n > 0 && *s == '[';
    const char *end = (const char *)memchr(s, bracket ? ']' : ':', n);
    const char *port = end != NULL ? end + bracket : s + n;
    const size_t left = (size_t)(s + n - port);
    int64_t v = 0;
    if (bracket && end == NULL)
        return 0;
    if (!bracket && left > 0 && memchr(port + 1, ':', left - 1) != NULL)
        return empm__proxy_address_parse(p, EMPM__PEER_IPV6, s, n);
    if (left > 0)
        v = *port == ':' ? empm__parse_u63(port + 1, left - 1) : -1;
    if (v < 0 || v > 65535)
        return 0;
    return empm__proxy_address_parse(p, bracket ? EMPM__PEER_IPV6
                                                : EMPM__PEER_IPV4,
                                     s + bracket, (size_t)(port - s) -
                                             2 * (size_t)bracket);
}

/* Reads one field's value from right to left: while *p is trusted, it becomes
 * the address that *p has appended. Returns 0: *p is the client; 1: the field
 * before this one may go on. */
static int empm__proxy_follow(const empm__nets *t, empm__peer *p, const char *s)
{
    const char *item;
    size_t left = strlen(s), n;
    while (empm__list_last(s, &left, &item, &n))
        if (!empm__proxy_trusts(t, p) || !empm__proxy_node_parse(p, item, n))
            return 0;
    return 1;
}

/* "TCP4 192.0.2.1 198.51.100.7 4711 80", or TCP6, or UNKNOWN and whatever. */
static int empm__proxy_parse_line(empm__peer *p, const char *s, size_t n)
{
    const char *at[5], *end = s + n;
    size_t len[5];
    int64_t port = 0;
    empm__peer to;
    int i, family;
    for (i = 0; i < 5; i++) {
        const char *sp = s != NULL ? (const char *)memchr(s, ' ',
                                                          (size_t)(end - s))
                                   : NULL;
        at[i] = s;
        len[i] = s == NULL ? 0 : (size_t)((sp != NULL ? sp : end) - s);
        s = sp != NULL ? sp + 1 : NULL;
    }
    if (len[0] == 7 && memcmp(at[0], "UNKNOWN", 7) == 0) {
        p->proxied = EMPM__PROXIED_NAMELESS;
        return 1;
    }
    if (len[0] != 4 || s != NULL || at[4] == NULL ||
        (memcmp(at[0], "TCP4", 4) != 0 && memcmp(at[0], "TCP6", 4) != 0))
        return 0;
    for (i = 4; i >= 3; i--) {           /* the client's is the last */
        port = empm__parse_u63(at[i], len[i]);
        if (port < 0 || port > 65535 || (len[i] > 1 && *at[i] == '0'))
            return 0;
    }
    family = at[0][3] - '0';
    if (!empm__proxy_address_parse(&to, family, at[2], len[2]) ||
        !empm__proxy_address_parse(p, family, at[1], len[1]))
        return 0;
    p->port = (uint16_t)port;
    p->proxied = EMPM__PROXIED;
    return 1;
}

/* Looks at the n bytes that a connection begins with. > 0: a header of so many
 * bytes, maybe more than n (the rest tells nothing and is to be skipped), and
 * *p is the peer, or as it was if the header names none; 0: more is needed,
 * but never than 232; -1: this is no PROXY header. */
static int32_t empm__proxy_parse(empm__peer *p, const char *s, size_t n)
{
    static const char line[] = "PROXY ";
    static const char signature[] = "\r\n\r\n\0\r\nQUIT\n";
    static const unsigned need[] = { 0, 12, 36, 216 };   /* by family */
    const unsigned char *u = (const unsigned char *)s;
    unsigned family, protocol, len;
    size_t i;
    if (n == 0)
        return 0;
    if (*s == 'P') {
        if (memcmp(s, line, empm__min(n, 6)) != 0)
            return -1;
        for (i = 6; i < n && i < 106 && s[i] != '\r'; i++)
            if (u[i] < ' ')
                return -1;
        if (i + 1 >= n && i < 106)
            return 0;
        return i < 106 && s[i + 1] == '\n' && empm__proxy_parse_line(p, s + 6,
                                                                     i - 6)
                   ? (int32_t)i + 2 : -1;
    }
    if (memcmp(s, signature, empm__min(n, 12)) != 0 ||
        (n > 12 && (u[12] & 0xfe) != 0x20))
        return -1;
    if (n < 16)
        return 0;
    family = u[13] >> 4;
    protocol = u[13] & 15;
    len = (unsigned)u[14] << 8 | u[15];
    if (u[12] == 0x20)                   /* LOCAL: it speaks for itself */
        return (int32_t)(16 + len);
    if (family > 3 || protocol > 2 || len < need[family])
        return -1;
    if (n < 16 + need[family])
        return 0;
    p->proxied = EMPM__PROXIED_NAMELESS;
    if (family == 0 || protocol == 0)    /* it does not know */
        return (int32_t)(16 + len);
    if (family == 3) {                   /* on its machine, not on ours */
        empm__peer_set(p, EMPM__PEER_UNIX, NULL, 0);
        p->proxied = EMPM__PROXIED_NAMELESS;
    } else {
        const unsigned char *port = u + 16 + (family == 1 ? 8 : 32);
        empm__peer_set(p, family == 1 ? EMPM__PEER_IPV4 : EMPM__PEER_IPV6,
                       s + 16, (unsigned)port[0] << 8 | port[1]);
        p->proxied = EMPM__PROXIED;
    }
    return (int32_t)(16 + len);
}

/* --- the wing ------------------------------------------------------------- */

/* Logs the address of the proxy itself, and closes. */
static enum empm__state empm__reading_proxy_refuse(empm__worker *w,
                                                   empm_request *req,
                                                   int code, const char *why)
{
    empm__bump(&w->score->proxy_refused, 1u);
    empm__slab_peer(&w->engine->slab, w->index)->family = EMPM__PEER_UNASKED;
    empm__request_log(req, EMPM_LOG_WARN, code, "on Listen %s: %s; closed",
                      w->s->endpoints[req->c->endpoint].text, why);
    return EMPM__CLOSED;
}

/* Reads the PROXY header, by the deadline that was set at accept. Bytes behind
 * it stay in `in`, for the next reader: TLS, or the head. */
static enum empm__state empm__proxy_read(empm__worker *w, empm__conn *c,
                                         empm__wait *wait)
{
    const uint32_t deadline = empm__load(&c->deadline_ms);
    const empm__nets *trusted = w->s->trusted;
    empm_request *req = empm__request_of(c);
    ssize_t n = EMPM__WANTS_IN;
    if (req == NULL && (req = empm__request_borrow(w, c)) == NULL)
        return EMPM__CLOSED;
    for (;;) {
        if (req->body_left == 0 && req->io.in_end > 0) {
            if (trusted->n > 0 && !empm__proxy_trusts(trusted,
                                                      empm__request_peer(req)))
                return empm__reading_proxy_refuse(w, req, 5305,
                                                  "not in "
                                                  "RemoteIPTrustedProxy");
            req->body_left = empm__proxy_parse(
                empm__slab_peer(&w->engine->slab, w->index), req->io.in,
                                               req->io.in_end);
            if (req->body_left < 0)
                return empm__reading_proxy_refuse(w, req, 5304, "no PROXY "
                                                  "header");
        }
        if (req->body_left > 0) {        /* of the header; TLVs are skipped */
            req->io.in_start = (uint32_t)empm__min((size_t)req->body_left,
                                                req->io.in_end);
            req->body_left -= req->io.in_start;
            if (req->body_left == 0) {
                empm__request_clear(req);
                return EMPM__READ_HEAD;
            }
            req->io.in_start = req->io.in_end = 0;
        }
        if (c->flags & EMPM__F_DRAINED)
            break;
        n = empm__step_recv(w, c, req->io.in + req->io.in_end,
                            req->io.in_cap - req->io.in_end);
        if (n == EMPM__WANTS_IN || n == EMPM__WANTS_OUT)
            break;
        if (n <= 0)
            return req->io.in_end > 0 || req->body_left > 0
                       ? empm__reading_proxy_refuse(w, req, 5304, "half a "
                                                    "PROXY header")
                       : EMPM__CLOSED;
        req->io.in_end += (uint32_t)n;
    }
    if (empm__step_wait(w, c, wait, n, deadline) < 0)
        return EMPM__CLOSED;
    if (req->io.in_end == 0 && req->body_left == 0) {       /* not a byte yet */
        empm__request_flight_end(w, c);
        if (empm__time_is_late(deadline, empm__step_clock(w)) ||
            empm__step_closes_idle(w))
            return EMPM__CLOSED;
        wait->want |= EMPM__IDLE;
    } else if (empm__time_is_late(deadline, empm__step_clock(w))) {
        empm__bump(&w->score->timeouts, 1u);
        return empm__reading_proxy_refuse(w, req, 5304, "the PROXY header is "
                                          "late");
    }
    return EMPM__HANDSHAKE;
}

/* The client as RemoteIPHeader names it: *p is the peer, and becomes that. */
static void empm__proxy_find_client(empm_request *req, empm__peer *p)
{
    const char *name = req->w->cfg->remote_ip_header;
    uint32_t i = req->head.nfields;
    while (i-- > 0) {
        const empm__field *f = &req->head.fields[i];
        if (empm__text_same(req->text + f->name, f->name_len, name,
                            strlen(name)) &&
            !empm__proxy_follow(req->w->s->trusted, p, req->text + f->value))
            break;
    }
}

static void empm__proxy_check(const empm_config *cfg, const empm__chars *chars,
                              empm__report *rep)
{
    const char *header = cfg->remote_ip_header;
    empm__nets nets;
    if (empm__proxy_nets_init(&nets, cfg, rep) == EMPM_OK)
        empm__proxy_nets_free(&nets);
    if (header != NULL && (*header == '\0' ||
                           !empm__chars_all(chars, header, strlen(header),
                                            EMPM__TCHAR)))
        empm__report_say(rep, EMPM_LOG_ERROR, 5302, "RemoteIPHeader %s is not "
                         "the name of a field", header);
}

static void empm__proxy_server_free(empm_server *s)
{
    if (s->trusted != NULL)
        empm__proxy_nets_free(s->trusted);
    EMPM_FREE(s->trusted);
}

static int empm__proxy_server_new(empm_server *s, const empm_server *old,
                            empm__report *rep)
{
    int r;
    (void)old;
    s->trusted = (empm__nets *)EMPM_MALLOC(sizeof *s->trusted);
    if (s->trusted == NULL)
        return EMPM_ENOMEM;
    memset(s->trusted, 0, sizeof *s->trusted);
    r = empm__proxy_nets_init(s->trusted, s->cfg, rep);
    s->read_proxy = empm__proxy_read;
    if (s->cfg->remote_ip_header != NULL)
        s->find_client = empm__proxy_find_client;
    return r;
}

static const empm__wing empm__proxy_wing = {
    empm__proxy_check, empm__proxy_server_new, empm__proxy_server_free,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, "remoteip"
};

#else

static void empm__proxy_check(const empm_config *cfg, const empm__chars *chars,
                              empm__report *rep)
{
    empm__endpoint_spec spec;
    int i;
    (void)chars;
    if (cfg->remote_ip_header != NULL ||
        cfg->remote_ip_trusted_proxy[0] != NULL)
        empm__report_say(rep, EMPM_LOG_ERROR, 5303, "RemoteIPHeader and "
                         "RemoteIPTrustedProxy: built without them");
    for (i = 0; i < EMPM_MAX_LISTEN && cfg->listen[i] != NULL; i++)
        if (empm__endpoint_parse(&spec, cfg->listen[i]) == NULL && spec.proxy)
            empm__report_say(rep, EMPM_LOG_ERROR, 5108, "Listen %s: proxy: "
                             "built without it", cfg->listen[i]);
}

static const empm__wing empm__proxy_wing = {
    empm__proxy_check,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
};

#endif /* EVENTMPM_NO_PROXY */

/* ---------------------------------------------------------------------------
 * >>store -- keys and values in memory that processes share
 *
 * The memory is cut into shards, each with a lock, a hash table and up to 255
 * slots. Hashes are keyed: clients choose keys.
 *
 *     heads[h]   7 -> 12 -> 0          0 is no slot
 *     free       3 ->  9 -> 0
 *
 * A process can be killed at any instruction while it holds a lock. So a write
 * fills a free slot, which no list has, and takes effect by storing one byte:
 *
 *     insert     the head becomes the new slot, whose next is the old head
 *     replace    the link to the old slot leads to the new one, its next copied
 *     remove     the link to the slot becomes its next
 *
 * Before that byte nothing has happened, after it all has: the lists of heads[]
 * are whole at every instant. Only the free list can be wrong after a death;
 * the next holder learns of it from the lock, and makes a new one of all slots
 * that those lists do not have. The last free slot is kept for replacing.
 *
 * A process dies between two instructions, and then those before it count and
 * those after it do not, however the processor has ordered its stores; so it is
 * only the compiler that has to keep them in order (empm__kv_link).
 *
 * runs on   any thread of any process
 * source    J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF"
 * ------------------------------------------------------------------------- */

#ifndef EVENTMPM_NO_STORE

/* Fills in n bytes that no client can guess. */
static void empm__random_fill(void *to, size_t n)
{
    const int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd >= 0 ? read(fd, to, n) : -1;
    size_t i;
    if (fd >= 0)
        close(fd);
    if (got == (ssize_t)n)
        return;
    for (i = 0; i < n; i++) {       /* better than a constant */
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        ((unsigned char *)to)[i] = (unsigned char)(t.tv_nsec >> i % 8 ^
                                                   getpid());
    }
}

/* A lock in memory that processes share. If its holder dies, the next caller
 * gets EMPM__ORPHANED, repairs the data and calls empm__shared_lock_mended().
 * Without robust mutexes every later caller times out. */
#define EMPM__ORPHANED 1
#if defined(__linux__) || defined(PTHREAD_MUTEX_ROBUST)
#  define EMPM__ROBUST 1
#else
#  define EMPM__ROBUST 0
#endif

static int empm__shared_lock_init(pthread_mutex_t *m)
{
    pthread_mutexattr_t a;
    int r = pthread_mutexattr_init(&a);
    if (r != 0)
        return EMPM_ESYS;
    r = pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
#if EMPM__ROBUST
    if (r == 0)
        r = pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
#endif
    if (r == 0)
        r = pthread_mutex_init(m, &a);
    pthread_mutexattr_destroy(&a);
    return r == 0 ? EMPM_OK : EMPM_ESYS;
}

/* EMPM_OK, EMPM__ORPHANED, or EMPM_ETIMEDOUT after a second. Tries and naps:
 * the clock of pthread_mutex_timedlock() can be set, and not all systems have
 * that call. */
static int empm__shared_lock(pthread_mutex_t *m)
{
    struct timespec rest = { 0, 1000 };
    uint64_t until = 0;
    int r, tries = 0;
    while ((r = pthread_mutex_trylock(m)) == EBUSY) {
        if (++tries < 64) {
            if (tries > 16)
                sched_yield();
            continue;
        }
        if (until == 0)
            until = empm__now_us() + 1000000u;
        else if (empm__now_us() > until)
            return EMPM_ETIMEDOUT;
        nanosleep(&rest, NULL);
        if (rest.tv_nsec < 1000000)
            rest.tv_nsec *= 2;
    }
    return r == 0 ? EMPM_OK : r == EOWNERDEAD ? EMPM__ORPHANED : EMPM_ESYS;
}

static void empm__shared_lock_mended(pthread_mutex_t *m)
{
#if EMPM__ROBUST
    pthread_mutex_consistent(m);
#else
    (void)m;
#endif
}

#define EMPM__KV_SLOTS 255             /* of a shard: a number is a byte */

typedef struct empm__kv_slot {
    uint64_t version;                  /* no other write has had it */
    uint64_t expires_ms;               /* there until that one is over, never
                                          early; 0: for ever */
    uint32_t hash;
    uint16_t key_len, len;
    uint8_t  next;
} empm__kv_slot;

typedef struct empm__kv_shard {
    pthread_mutex_t lock;              /* guards the shard: 50 ns, or 1 us to
                                          mend it or to choose a victim */
    uint64_t        version;           /* the last one given */
    uint8_t         heads[256], free;
    empm__kv_slot   slots[EMPM__KV_SLOTS + 1];   /* 0 ends a list */
} __attribute__((aligned(64))) empm__kv_shard;   /* then its keys and values */

typedef struct empm__kv {              /* fixed; the shards follow */
    uint64_t seed[2];
    size_t   shard_bytes;
    uint32_t shards, slots;            /* slots: of each shard */
    uint32_t room;                     /* for a key and its value */
} __attribute__((aligned(64))) empm__kv;

/* The least memory: two slots, one of which is the last free one. */
#define EMPM__KV_LEAST(room) \
    (sizeof(empm__kv) + sizeof(empm__kv_shard) + 64 + 2 * (size_t)(room))

EMPM__ASSERT_STATIC(EMPM_STORE_ITEM >= 64 && EMPM_STORE_ITEM <= 65535,
                    store_item_does_not_fit);

/* SipHash-2-4. */
#define EMPM__ROTATE(x, n) ((x) << (n) | (x) >> (64 - (n)))
static void empm__sip_rounds(uint64_t v[4], int n)
{
    for (; n > 0; n--) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = EMPM__ROTATE(v[1], 13) ^ v[0];
        v[3] = EMPM__ROTATE(v[3], 16) ^ v[2];
        v[0] = EMPM__ROTATE(v[0], 32) + v[3];
        v[2] += v[1];
        v[1] = EMPM__ROTATE(v[1], 17) ^ v[2];
        v[3] = EMPM__ROTATE(v[3], 21) ^ v[0];
        v[2] = EMPM__ROTATE(v[2], 32);
    }
}

static uint64_t empm__sip_hash(const uint64_t seed[2], const void *data,
                               size_t len)
{
    const unsigned char *p = (const unsigned char *)data;
    uint64_t v[4], word;
    size_t left = len, n, i;
    v[0] = seed[0] ^ UINT64_C(0x736f6d6570736575);
    v[1] = seed[1] ^ UINT64_C(0x646f72616e646f6d);
    v[2] = seed[0] ^ UINT64_C(0x6c7967656e657261);
    v[3] = seed[1] ^ UINT64_C(0x7465646279746573);
    do {
        n = empm__min(left, 8);
        word = n < 8 ? (uint64_t)len << 56 : 0;   /* the last, always there */
        for (i = 0; i < n; i++)
            word |= (uint64_t)p[i] << 8 * i;
        v[3] ^= word;
        empm__sip_rounds(v, 2);
        v[0] ^= word;
        p += n;
        left -= n;
    } while (n == 8);
    v[2] ^= 0xff;
    empm__sip_rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static empm__kv_shard *empm__kv_shard_at(empm__kv *kv, uint32_t i)
{
    return (empm__kv_shard *)(void *)((unsigned char *)(kv + 1) +
                                      i * kv->shard_bytes);
}

static unsigned char *empm__kv_data(const empm__kv *kv, empm__kv_shard *sh,
                                    uint8_t slot)
{
    return (unsigned char *)(sh + 1) + (size_t)(slot - 1) * kv->room;
}

/* Changes a list of heads[], after all stores above the call and before all
 * below it. */
static void empm__kv_link(uint8_t *link, uint8_t to)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    empm__store(link, to);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* `slot` is not in a chain any more. */
static void empm__kv_drop(empm__kv_shard *sh, uint8_t slot)
{
    sh->slots[slot].next = sh->free;
    sh->free = slot;
}

static void empm__kv_remove(empm__kv_shard *sh, uint8_t *link)
{
    const uint8_t slot = *link;
    empm__kv_link(link, sh->slots[slot].next);
    empm__kv_drop(sh, slot);
}

/* Brings a shard in order, a new one or one whose lock's holder has died. */
static void empm__kv_mend(const empm__kv *kv, empm__kv_shard *sh)
{
    uint8_t used[256];
    uint32_t i;
    memset(used, 0, sizeof used);
    for (i = 0; i < 256; i++) {
        uint8_t slot = sh->heads[i];
        for (; slot != 0; slot = sh->slots[slot].next)
            used[slot] = 1;
    }
    sh->free = 0;
    for (i = kv->slots; i > 0; i--)
        if (!used[i])
            empm__kv_drop(sh, (uint8_t)i);
    sh->version |= 0xffffffff;   /* half of it may be stored: past them all */
}

/* Makes room: the key that ends first has to go; a key without an end stays. */
static int empm__kv_evict(empm__kv_shard *sh)
{
    uint8_t *victim = NULL, *link;
    uint64_t first = UINT64_MAX;
    uint32_t i;
    for (i = 0; i < 256; i++)
        for (link = &sh->heads[i]; *link != 0; link = &sh->slots[*link].next) {
            const uint64_t end = sh->slots[*link].expires_ms;
            if (end != 0 && end < first) {
                first = end;
                victim = link;
            }
        }
    if (victim == NULL)
        return EMPM_EFULL;
    empm__kv_remove(sh, victim);
    return EMPM_OK;
}

/* A key's place. A good empm__kv_open() leaves the shard locked. */
typedef struct empm__kv_at {
    empm__kv       *kv;
    empm__kv_shard *sh;
    const void     *key;
    size_t          key_len;
    uint32_t        hash;
    uint8_t        *link;              /* to its slot, or its chain's end */
    empm__kv_slot  *slot;              /* NULL: absent, or it has expired */
    unsigned char  *value;
} empm__kv_at;

static int empm__kv_open(empm__kv_at *at, empm__kv *kv, const void *key,
                         size_t key_len, uint64_t now_ms)
{
    empm__kv_shard *sh;
    uint64_t hash;
    int r;
    if (kv == NULL)
        return EMPM_EMISUSE;
    if (key_len == 0 || key_len > kv->room)
        return EMPM_EINVAL;
    hash = empm__sip_hash(kv->seed, key, key_len);
    sh = empm__kv_shard_at(kv, (uint32_t)((hash >> 32) * kv->shards >> 32));
    if ((r = empm__shared_lock(&sh->lock)) < 0)
        return r;
    if (r == EMPM__ORPHANED) {
        empm__kv_mend(kv, sh);
        empm__shared_lock_mended(&sh->lock);
    }
    at->kv = kv;
    at->sh = sh;
    at->key = key;
    at->key_len = key_len;
    at->hash = (uint32_t)hash;
    at->slot = NULL;
    for (at->link = &sh->heads[hash & 255]; *at->link != 0;
         at->link = &sh->slots[*at->link].next) {
        empm__kv_slot *s = &sh->slots[*at->link];
        unsigned char *data = empm__kv_data(kv, sh, *at->link);
        if (s->hash != at->hash || s->key_len != key_len ||
            memcmp(data, key, key_len) != 0)
            continue;
        at->value = data + key_len;
        if (s->expires_ms == 0 || now_ms <= s->expires_ms)
            at->slot = s;
        break;
    }
    return EMPM_OK;
}

static int empm__kv_write(empm__kv_at *at, const void *value, size_t len,
                          uint64_t expires_ms)
{
    empm__kv_shard *sh = at->sh;
    uint8_t *link = at->link, old = *link, slot;
    empm__kv_slot *s;
    unsigned char *data;
    if (len > at->kv->room - at->key_len)
        return EMPM_EINVAL;
    if (old == 0) {
        if (sh->slots[sh->free].next == 0 && empm__kv_evict(sh) < 0)
            return EMPM_EFULL;
        link = &sh->heads[at->hash & 255];
    }
    slot = sh->free;
    s = &sh->slots[slot];
    sh->free = s->next;
    s->version = ++sh->version;
    s->expires_ms = expires_ms;
    s->hash = at->hash;
    s->key_len = (uint16_t)at->key_len;
    s->len = (uint16_t)len;
    s->next = old != 0 ? sh->slots[old].next : *link;
    data = empm__kv_data(at->kv, sh, slot);
    memcpy(data, at->key, at->key_len);
    if (len > 0)
        memcpy(data + at->key_len, value, len);
    empm__kv_link(link, slot);
    if (old != 0)
        empm__kv_drop(sh, old);
    return EMPM_OK;
}

static int empm__kv_get(empm__kv *kv, const void *key, size_t key_len,
                        void *value, size_t cap, size_t *len, uint64_t *version,
                        uint64_t now_ms)
{
    empm__kv_at at;
    int r = empm__kv_open(&at, kv, key, key_len, now_ms);
    if (r < 0)
        return r;
    if (at.slot == NULL) {
        r = EMPM_EGONE;
    } else {
        if (len != NULL)
            *len = at.slot->len;
        if (version != NULL)
            *version = at.slot->version;
        if (at.slot->len > cap)
            r = EMPM_EFULL;
        else if (at.slot->len > 0)
            memcpy(value, at.value, at.slot->len);
    }
    pthread_mutex_unlock(&at.sh->lock);
    return r;
}

/* if_version: NULL: whatever is there; 0: only if nothing is; or only that. */
static int empm__kv_put(empm__kv *kv, const void *key, size_t key_len,
                        const uint64_t *if_version, const void *value,
                        size_t len, int64_t ttl_ms, uint64_t now_ms)
{
    empm__kv_at at;
    const uint64_t expires_ms = ttl_ms == 0 ? 0 : now_ms + (uint64_t)ttl_ms;
    int r = ttl_ms < 0 ? EMPM_EINVAL
                       : empm__kv_open(&at, kv, key, key_len, now_ms);
    if (r < 0)
        return r;
    if (if_version != NULL &&
        *if_version != (at.slot != NULL ? at.slot->version : 0))
        r = EMPM_EGONE;
    else
        r = empm__kv_write(&at, value, len, expires_ms);
    pthread_mutex_unlock(&at.sh->lock);
    return r;
}

static int empm__kv_delete(empm__kv *kv, const void *key, size_t key_len,
                           uint64_t now_ms)
{
    empm__kv_at at;
    int r = empm__kv_open(&at, kv, key, key_len, now_ms);
    if (r < 0)
        return r;
    r = at.slot != NULL ? EMPM_OK : EMPM_EGONE;
    if (*at.link != 0)
        empm__kv_remove(at.sh, at.link);
    pthread_mutex_unlock(&at.sh->lock);
    return r;
}

static int empm__kv_add(empm__kv *kv, const void *key, size_t key_len,
                        int64_t delta, int64_t ttl_ms, int64_t *result,
                        uint64_t now_ms)
{
    empm__kv_at at;
    int64_t n = 0;
    uint64_t expires_ms = ttl_ms == 0 ? 0 : now_ms + (uint64_t)ttl_ms;
    int r = ttl_ms < 0 ? EMPM_EINVAL
                       : empm__kv_open(&at, kv, key, key_len, now_ms);
    if (r < 0)
        return r;
    if (at.slot != NULL && at.slot->len == sizeof n) {
        memcpy(&n, at.value, sizeof n);
        expires_ms = at.slot->expires_ms;
    } else if (at.slot != NULL) {
        r = EMPM_EINVAL;
    }
    if (delta > 0 ? n > INT64_MAX - delta : n < INT64_MIN - delta)
        r = EMPM_EINVAL;
    if (r == EMPM_OK) {
        n += delta;
        r = empm__kv_write(&at, &n, sizeof n, expires_ms);
    }
    if (r == EMPM_OK && result != NULL)
        *result = n;
    pthread_mutex_unlock(&at.sh->lock);
    return r;
}

/* A store for the processes to come, in `bytes`; `room` for each key with its
 * value, 64 to 65535. */
static int empm__kv_new(empm__kv **out, size_t bytes, uint32_t room)
{
    const size_t most = sizeof(empm__kv_shard) + EMPM__KV_SLOTS * (size_t)room;
    empm__kv *kv = (empm__kv *)mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                    MAP_ANONYMOUS | MAP_SHARED, -1, 0);
    uint32_t i;
    if ((void *)kv == MAP_FAILED)
        return EMPM_ENOMEM;
    empm__random_fill(kv->seed, sizeof kv->seed);
    kv->room = room;
    kv->shards = (uint32_t)((bytes - sizeof *kv + most - 1) / most);
    kv->shard_bytes = (bytes - sizeof *kv) / kv->shards & ~(size_t)63;
    kv->slots = (uint32_t)empm__min(
        (kv->shard_bytes - sizeof(empm__kv_shard)) / room, EMPM__KV_SLOTS);
    for (i = 0; i < kv->shards; i++) {
        empm__kv_shard *sh = empm__kv_shard_at(kv, i);
        if (empm__shared_lock_init(&sh->lock) < 0) {
            munmap(kv, bytes);
            return EMPM_ESYS;
        }
        empm__kv_mend(kv, sh);
    }
    *out = kv;
    return EMPM_OK;
}

/* `bytes` is the caller's own number: any child may have written to the
 * store. */
static void empm__kv_free(empm__kv *kv, size_t bytes)
{
    if (kv != NULL)
        munmap(kv, bytes);
}

/* --- the server's own ----------------------------------------------------- */

/* ---------------------------------------------------------------------------
 * >>store-calls -- the shared store, as a handler sees it
 *
 * Each call takes the lock of one shard for a few stores, and gives copies.
 * Where the store is not built, its settings are refused and the calls do not
 * exist.
 * ------------------------------------------------------------------------- */

static uint64_t empm__store_now_ms(void)
{
    return empm__now_us() / 1000u;
}

EMPM_API int empm_store_get(empm_server *s, const void *key, size_t key_len,
                            void *value, size_t cap, size_t *len,
                            uint64_t *version)
{
    return empm__kv_get(s->store, key, key_len, value, cap, len, version,
                        empm__store_now_ms());
}

EMPM_API int empm_store_put(empm_server *s, const void *key, size_t key_len,
                            const void *value, size_t len, int64_t ttl_ms)
{
    return empm__kv_put(s->store, key, key_len, NULL, value, len, ttl_ms,
                        empm__store_now_ms());
}

EMPM_API int empm_store_cas(empm_server *s, const void *key, size_t key_len,
                            uint64_t version, const void *value, size_t len,
                            int64_t ttl_ms)
{
    return empm__kv_put(s->store, key, key_len, &version, value, len, ttl_ms,
                        empm__store_now_ms());
}

EMPM_API int empm_store_delete(empm_server *s, const void *key, size_t key_len)
{
    return empm__kv_delete(s->store, key, key_len, empm__store_now_ms());
}

EMPM_API int empm_store_add(empm_server *s, const void *key, size_t key_len,
                            int64_t delta, int64_t ttl_ms, int64_t *result)
{
    return empm__kv_add(s->store, key, key_len, delta, ttl_ms, result,
                        empm__store_now_ms());
}

/* --- the wing ------------------------------------------------------------- */

static void empm__store_check(const empm_config *cfg, const empm__chars *chars,
                              empm__report *rep)
{
    (void)chars;
    if (cfg->shared_store_size > 0 &&
        ((uint64_t)cfg->shared_store_size < EMPM__KV_LEAST(EMPM_STORE_ITEM) ||
         (uint64_t)cfg->shared_store_size > SIZE_MAX / 2))
        empm__report_say(rep, EMPM_LOG_ERROR, 5500, "SharedStoreSize must be "
                         "from %lu to %lu, or 0 for none",
                         (unsigned long)EMPM__KV_LEAST(EMPM_STORE_ITEM),
                         (unsigned long)(SIZE_MAX / 2));
}

static int empm__store_server_new(empm_server *s, const empm_server *old,
                            empm__report *rep)
{
    int r = EMPM_OK;
    if (old != NULL)
        s->store = old->store;
    else if (s->cfg->shared_store_size > 0 &&
             (r = empm__kv_new(&s->store, (size_t)s->cfg->shared_store_size,
                               EMPM_STORE_ITEM)) < 0)
        empm__report_say(rep, EMPM_LOG_ERROR, 5502, "SharedStoreSize: no "
                         "memory of that size to share");
    return r;
}

static void empm__store_server_free(empm_server *s)
{
    if (!s->borrows)
        empm__kv_free(s->store, (size_t)s->cfg->shared_store_size);
}

static const empm__wing empm__store_wing = {
    empm__store_check, empm__store_server_new, empm__store_server_free,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
};

#else

static void empm__store_check(const empm_config *cfg, const empm__chars *chars,
                              empm__report *rep)
{
    (void)chars;
    if (cfg->shared_store_size > 0)
        empm__report_say(rep, EMPM_LOG_ERROR, 5501,
                         "SharedStoreSize: built without the store");
}

static const empm__wing empm__store_wing = {
    empm__store_check,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
};

#endif /* EVENTMPM_NO_STORE */

/* ---------------------------------------------------------------------------
 * >>access -- CustomLog: a line for each request
 *
 * A format is compiled into items at start; a request runs through them and
 * its line comes into being where it will be written from: a page that its
 * worker keeps for each log. Nothing is allocated or printed with printf(), and
 * no system call is made but one write() for a page of lines.
 *
 * A page is in its place (worker.lines), or a thread has taken it: its worker,
 * to add a line, or the collector. Taking is one atomic exchange, so no thread
 * ever waits for another one's write(): a worker that finds no page takes a new
 * one. A page is written when it is full, and all are half a second after the
 * first line: the listener is told that moment and makes it a chore for the
 * next free worker or for the standby. So a line does not wait for its own
 * worker, which may be asleep, in a handler or with a slow client. A crash
 * loses the lines of half a second; lines of different workers are not in
 * order.
 *
 * Text of clients is escaped as Apache does it (\n \t \" \\ \xhh), so that no
 * client can forge a line or drive a terminal.
 *
 * runs on   the worker that owns the connection; collecting, on any thread
 * source    mod_log_config, mod_logio
 * ------------------------------------------------------------------------- */

#ifndef EVENTMPM_NO_ACCESS_LOG

#ifndef EMPM__LINES_MS
#  define EMPM__LINES_MS 500
#endif
#define EMPM__ITEM_ROOM 64u          /* that any item fits in, cut if need be */
#define EMPM__ITEM_SPARE 24          /* ... of which text leaves so much */
#define EMPM__ITEM_STATUSES 8

typedef struct empm__item {
    const struct empm__letter *is;   /* NULL: text as it stands */
    uint8_t     unit;                /* the word in braces, counted from 1 */
    uint8_t     at_end;              /* %{end:...}t */
    uint8_t     negated, nonly;
    uint16_t    only[EMPM__ITEM_STATUSES];
    uint32_t    len;
    uint32_t    tail;                /* room that the items after it need */
    const char *text;                /* itself, or from the braces; or NULL */
} empm__item;

typedef struct empm__access_log {
    int         fd;
    int         owner;               /* closes fd; others share it */
    int         is_pipe;             /* takes PIPE_BUF bytes at once, or none */
    int         only_without;        /* env=!name */
    char        only[64];            /* env=name: with such a note; "": all */
    uint32_t    torn;                /* atomic: the file ends within a line */
    uint32_t    nitems, least;       /* least: room for the shortest line */
    empm__item *items;
    char        name[1024];
} empm__access_log;

typedef struct empm__access_logs {
    uint32_t         n;
    char             host[256];      /* %v */
    locale_t         c;              /* of %{...}t, whatever setlocale() says;
                                        0: there is no memory for it */
    empm__access_log of[EMPM_MAX_LIST];
} empm__access_logs;

/* ---------------------------------------------------------------------------
 * >>access-items -- how a line shows each fact of a request
 *
 * A compiled format is a list of items; each writes its part into the page
 * where the line grows. Text of clients is escaped, and cut with "..." where it
 * has no room. Numbers come from a copy of the request's facts, made once per
 * line, so a letter that is a number is only a row of the table.
 * ------------------------------------------------------------------------- */

typedef struct empm__facts {
    empm_request *req;
    const char   *in;                /* the head's offsets count from here */
    int           aborted;
    int           cut;               /* something had no room */
    int           known;             /* the request line made sense */
    int64_t       status;
    int64_t       sent, body, got;   /* bytes on the wire, of the body; taken */
    int64_t       moved;             /* sent and got */
    int64_t       took_us, nth;      /* nth: on its connection, from 0 */
    uint64_t      end_us;
} empm__facts;

/* Writes one item at `at`, which has room for EMPM__ITEM_ROOM bytes at least;
 * text may use all up to `end`. Returns where it ends. */
typedef char *empm__access_writer(empm__facts *f, const empm__item *it,
                                  char *at, const char *end);

/* Fills in the facts of a request that has ended. `aborted`: with its
 * connection. */
static void empm__access_facts(empm__facts *f, empm_request *req, int aborted)
{
    const int64_t whole = req->declared > req->written ? req->declared
                                                       : req->written;
    memset(f, 0, sizeof *f);
    f->req = req;
    f->in = req->text != NULL ? req->text : req->io.in;
    f->aborted = aborted;
    f->end_us = req->w->turn_us;
    /* nothing was sent: the client has gone before, or it is our fault */
    f->status = !empm__request_head_is_open(req) &&
                        req->refusal != EMPM__BY_END_OF_INPUT ? req->status
              : req->failed && req->failed != EMPM_ECLOSED ? 500 : 499;
    /* a pipelined answer that leaves with the next one counts as sent */
    f->sent = req->io.sent - req->sent_before +
              (aborted ? 0 : req->io.out_left);
    if (f->sent < 0)
        f->sent = 0;
    f->body = f->sent - (int64_t)req->head_out;
    if (f->body > whole)
        f->body = whole;
    if (f->body < 0 || req->framing == EMPM__BODILESS)
        f->body = 0;
    f->got = req->io.got - req->got_before -    /* the rest is the next one's */
             (req->ending != EMPM__STAYS
                  ? 0 : (int64_t)(req->io.in_end - req->io.in_start));
    f->moved = f->got + f->sent;
    f->known = req->head.spans[EMPM__PART_TARGET].len > 0;
    f->took_us = req->began_us != 0 ? (int64_t)(f->end_us - req->began_us) : 0;
    f->nth = req->c->requests;
}

/* Writes text of any length, escaped eight bytes at a time where none of them
 * needs it; NULL is "-". Text without room is cut and ends with "...". */
static char *empm__access_write(empm__facts *f, char *at, const char *end,
                                const char *s, size_t n)
{
    if (s == NULL)
        return EMPM__ADD(at, "-");
    while (n > 0) {
        const unsigned char ch = (unsigned char)*s;
        const char *named;
        uint64_t word;
        if (end - at < EMPM__ITEM_SPARE) {
            f->cut = 1;
            return EMPM__ADD(at, "...");
        }
        if (n >= sizeof word) {
            memcpy(&word, s, sizeof word);
            if (!((word & EMPM__EACH(0x80)) | EMPM__ANY_BELOW(word, 32) |
                  EMPM__ANY_IS(word, 127) | EMPM__ANY_IS(word, '"') |
                  EMPM__ANY_IS(word, '\\'))) {
                at = empm__text_append(at, s, sizeof word);
                s += sizeof word;
                n -= sizeof word;
                continue;
            }
        }
        if (ch >= 32 && ch < 127 && ch != '"' && ch != '\\')
            *at++ = (char)ch;
        else {
            static const char from[] = "\b\n\r\t\v\"\\", to[] = "bnrtv\"\\";
            *at++ = '\\';
            if (ch != 0 && (named = strchr(from, ch)) != NULL)
                *at++ = to[named - from];
            else {
                *at++ = 'x';
                *at++ = "0123456789abcdef"[ch >> 4];
                *at++ = "0123456789abcdef"[ch & 15];
            }
        }
        s++;
        n--;
    }
    return at;
}

static char *empm__access_write_string(empm__facts *f, char *at,
                                       const char *end, const char *s)
{
    return empm__access_write(f, at, end, s, s != NULL ? strlen(s) : 0);
}

/* A number below 0 has no meaning here and is shown as 0. */
static char *empm__access_write_number(char *at, int64_t v)
{
    return at + empm__format_u64(at, v > 0 ? (uint64_t)v : 0);
}

static char *empm__access_write_peer(char *at, const empm__peer *p)
{
    int i;
    if (p->family == EMPM__PEER_IPV4) {
        for (i = 0; i < 4; i++) {
            at += empm__format_u64(at, p->addr[i]);
            *at++ = '.';
        }
        return at - 1;
    }
    if (p->family == EMPM__PEER_IPV6 &&
        inet_ntop(AF_INET6, p->addr, at, EMPM__ITEM_ROOM) != NULL)
        return at + strlen(at);
    return EMPM__ADD(at, "-");
}

/* %A asks the kernel each time. */
static char *empm__access_write_local(empm__facts *f, const empm__item *it,
                                      char *at, const char *end)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    (void)it;
    (void)end;
    memset(&a, 0, sizeof a);
    if (getsockname(f->req->c->fd, (struct sockaddr *)&a, &n) == 0 &&
        (a.ss_family == AF_INET
             ? inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)&a)->sin_addr,
                         at, EMPM__ITEM_ROOM)
         : a.ss_family == AF_INET6
             ? inet_ntop(AF_INET6,
                         &((struct sockaddr_in6 *)(void *)&a)->sin6_addr, at,
                         EMPM__ITEM_ROOM)
             : NULL) != NULL)
        return at + strlen(at);
    return EMPM__ADD(at, "-");
}

/* The request line as it came; of a head that makes no sense its first line. */
static char *empm__access_write_line(empm__facts *f, const empm__item *it,
                                     char *at, const char *end)
{
    const empm__head *h = &f->req->head;
    const empm__span *method = &h->spans[EMPM__PART_METHOD];
    const empm__span *target = &h->spans[EMPM__PART_TARGET];
    (void)it;
    if (f->req->text == NULL) {
        const char *s = f->in + h->start, *lf;
        size_t n = f->req->io.in_end - h->start;
        lf = (const char *)memchr(s, '\n', n);
        n = lf != NULL ? (size_t)(lf - s) : n;
        n -= n > 0 && s[n - 1] == '\r';
        return empm__access_write(f, at, end, n > 0 ? s : NULL, n);
    }
    /* its first two words end with a NUL by now; "HTTP/1.x" is left */
    at = empm__access_write(f, at, end, f->in + method->at, method->len);
    *at++ = ' ';
    at = empm__access_write(f, at, end, f->in + target->at, target->len);
    *at++ = ' ';
    return empm__access_write(f, at, end, f->in + target->at + target->len + 1,
                              8);
}

/* Returns an instant of the monotonic clock as microseconds since 1970. The
 * distance of both clocks is measured once a second, not once a line. */
static int64_t empm__access_wall_us(empm__worker *w, uint64_t us)
{
    if (w->turn_us - w->wall_at_us >= 1000000u) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        w->wall_us = (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000 -
                     (int64_t)empm__now_us();
        w->wall_at_us = w->turn_us;
    }
    return w->wall_us + (int64_t)us;
}

static size_t empm__access_strftime(locale_t c, char *to, size_t n,
                                    const char *format, const struct tm *tm)
{
    return c != (locale_t)0 ? strftime_l(to, n, format, tm, c)
                            : strftime(to, n, format, tm);
}

/* %t in Apache's way, or as strftime() has it; made anew once a second. */
static char *empm__access_write_second(empm__worker *w, char *at,
                                       const char *format, int64_t second)
{
    empm__stamp *st = &w->stamp;
    if (st->len == 0 || st->second != second || st->format != format) {
        const time_t t = (time_t)second;
        struct tm here, utc;
        int ahead;
        localtime_r(&t, &here);
        gmtime_r(&t, &utc);
        ahead = here.tm_year != utc.tm_year ? here.tm_year - utc.tm_year
                                            : here.tm_yday - utc.tm_yday;
        ahead = (ahead * 24 + here.tm_hour - utc.tm_hour) * 60 + here.tm_min -
                utc.tm_min;
        st->second = second;
        st->format = format;
        st->len = format != NULL
            ? empm__access_strftime(w->s->access->c, st->text, sizeof st->text,
                                    format, &here)
            : (size_t)snprintf(st->text, sizeof st->text,
                               "[%02d/%.3s/%d:%02d:%02d:%02d %c%02d%02d]",
                               here.tm_mday, empm__months + here.tm_mon * 3,
                               here.tm_year + 1900, here.tm_hour, here.tm_min,
                               here.tm_sec, ahead < 0 ? '-' : '+',
                               abs(ahead) / 60, abs(ahead) % 60);
    }
    return empm__text_append(at, st->text, empm__min(st->len,
                                                     sizeof st->text - 1));
}

/* %t: when the first byte was seen, or {end:...} when the answer ended. */
static char *empm__access_write_time(empm__facts *f, const empm__item *it,
                                     char *at, const char *end)
{
    enum { SEC = 1, MSEC, USEC, MSEC_FRAC, USEC_FRAC };
    empm__worker *w = f->req->w;
    const int64_t us = empm__access_wall_us(w, it->at_end ||
                                            f->req->began_us == 0
                                            ? f->end_us : f->req->began_us);
    int64_t part = us % 1000000, tenth = 100000;
    (void)end;
    switch (it->unit) {
    case SEC:  return empm__access_write_number(at, us / 1000000);
    case MSEC: return empm__access_write_number(at, us / 1000);
    case USEC: return empm__access_write_number(at, us);
    case MSEC_FRAC: case USEC_FRAC:
        for (; tenth >= (it->unit == MSEC_FRAC ? 1000 : 1); tenth /= 10)
            *at++ = (char)('0' + part / tenth % 10);
        return at;
    }
    return empm__access_write_second(w, at, it->text, us / 1000000);
}

/* %{Field}o: of the response: a field that was set, or that every head has. */
static char *empm__access_write_field(empm__facts *f, const empm__item *it,
                                      char *at, const char *end)
{
    const empm_request *req = f->req;
    const char *name = it->text;
    const size_t n = strlen(name);
    char *next, *line = empm__response_field_line(req, req->fields, name, n,
                                                  &next);
    if (line != NULL)                /* without ": " and CRLF */
        return empm__access_write(f, at, end, line + n + 2,
                                  (size_t)(next - line) - n - 4);
    if (empm__text_equal(name, "Server") && *req->w->cfg->server_field != '\0')
        return empm__access_write_string(f, at, end, req->w->cfg->server_field);
    if (empm__text_equal(name, "Content-Type") && !req->has_type && f->body > 0)
        return EMPM__ADD(at, "text/plain; charset=utf-8");
    if (empm__text_equal(name, "Content-Length") &&
        req->framing != EMPM__BY_CHUNKS &&
        !empm__response_is_lengthless(req->status))
        return empm__access_write_number(at, req->declared >= 0 ? req->declared
                                                                : req->written);
    return EMPM__ADD(at, "-");
}

/* %v: the name of the server. */
static char *empm__access_write_name(empm__facts *f, const empm__item *it,
                                     char *at, const char *end)
{
    (void)it;
    return empm__access_write_string(f, at, end, f->req->w->s->access->host);
}

/* %V: the name by which the client calls it, without the port. */
static char *empm__access_write_host(empm__facts *f, const empm__item *it,
                                     char *at, const char *end)
{
    const empm__span *part = &f->req->head.spans[EMPM__PART_HOST];
    const char *host = f->in + part->at;
    size_t n = part->len;
    if (n == 0)
        return empm__access_write_name(f, it, at, end);
    while (n > 0 && empm__ascii_is_digit((unsigned char)host[n - 1]))
        n--;
    if (n > 0 && host[n - 1] == ':')
        n--;
    else
        n = part->len;
    return empm__access_write(f, at, end, host, n);
}

/* The file that a request of EMPM_FILES means, there or not. */
static char *empm__access_write_file(empm__facts *f, const empm__item *it,
                                     char *at, const char *end)
{
    const empm_request *req = f->req;
    const empm_config *cfg = req->w->cfg;
    const empm__route *r = req->route;
    const char *root;
    char path[1200];
    int i;
    (void)it;
    if (r == NULL || r->user->kind != EMPM__ROUTE_FILES)
        return EMPM__ADD(at, "-");
    root = r->user->root != NULL ? r->user->root
                                 : empm__config_path(cfg, cfg->document_root,
                                                     path, sizeof path);
    at = empm__access_write_string(f, at, end, root);
    for (i = r->nsegs - 1; i < req->path.n; i++) {
        at = empm__access_write(f, at, end, "/", 1);
        at = empm__access_write(f, at, end, req->path.seg[i], req->path.len[i]);
    }
    if (req->path.n > 0 && req->path.len[req->path.n - 1] == 0)
        at = empm__access_write_string(f, at, end, "index.html");
    return at;
}

/* %a, %h: the client, as far as it is believed; {c}: the other end of its
 * connection. */
static char *empm__access_write_client(empm__facts *f, const empm__item *it,
                                       char *at, const char *end)
{
    empm__peer p;
    (void)end;
    p = it->unit == 0 ? empm__request_client(f->req)
                      : *empm__request_peer(f->req);
    return empm__access_write_peer(at, &p);
}

/* %b: as %B, but - for none. */
static char *empm__access_write_bytes(empm__facts *f, const empm__item *it,
                                      char *at, const char *end)
{
    (void)it;
    (void)end;
    return f->body > 0 ? empm__access_write_number(at, f->body)
                       : EMPM__ADD(at, "-");
}

/* %T: the time that it took: {s}, {ms} or {us}. */
static char *empm__access_write_took(empm__facts *f, const empm__item *it,
                                     char *at, const char *end)
{
    static const int64_t per[] = { 1000000, 1000000, 1000, 1 };
    (void)end;
    return empm__access_write_number(at, f->took_us / per[it->unit]);
}

/* %X: how the connection is after the answer. */
static char *empm__access_write_end(empm__facts *f, const empm__item *it,
                                    char *at, const char *end)
{
    const empm_request *req = f->req;
    (void)it;
    (void)end;
    *at++ = f->aborted || req->refusal == EMPM__BY_END_OF_INPUT ? 'X'
            : req->ending != EMPM__STAYS ? '-' : '+';
    return at;
}

/* %p: {canonical} and {local}, the port of the listening socket; {remote}, the
 * client's. */
static char *empm__access_write_port(empm__facts *f, const empm__item *it,
                                     char *at, const char *end)
{
    enum { REMOTE = 3 };
    empm_request *req = f->req;
    (void)end;
    return empm__access_write_number(
        at, it->unit == REMOTE
                ? empm__request_peer(req)->port
                : req->w->s->endpoints[req->c->endpoint].port);
}

/* %P: {pid}, the process; {tid} and {hextid}, the number of the worker. */
static char *empm__access_write_pid(empm__facts *f, const empm__item *it,
                                    char *at, const char *end)
{
    enum { TID = 2 };
    const empm__worker *w = f->req->w;
    (void)end;
    return empm__access_write_number(at, it->unit >= TID ? (int64_t)w->number
                                                         : w->engine->pid);
}

/* %{Field}i: of the request. */
static char *empm__access_write_input(empm__facts *f, const empm__item *it,
                                      char *at, const char *end)
{
    return empm__access_write_string(
        f, at, end, empm__request_field_find(f->in, &f->req->head, it->text));
}

/* %R: the pattern of the route. */
static char *empm__access_write_route(empm__facts *f, const empm__item *it,
                                      char *at, const char *end)
{
    const empm__route *r = f->req->route;
    (void)it;
    return empm__access_write_string(f, at, end,
                                     r != NULL ? r->user->pattern : NULL);
}

/* %{name}n: of empm_note(). */
static char *empm__access_write_note(empm__facts *f, const empm__item *it,
                                     char *at, const char *end)
{
    return empm__access_write_string(f, at, end,
                                     empm__request_note(f->req, it->text));
}

/* %u: the note REMOTE_USER. */
static char *empm__access_write_user(empm__facts *f, const empm__item *it,
                                     char *at, const char *end)
{
    (void)it;
    return empm__access_write_string(
        f, at, end, empm__request_note(f->req, "REMOTE_USER"));
}

/* %{NAME}e: a note, or a variable of the environment. */
static char *empm__access_write_variable(empm__facts *f, const empm__item *it,
                                         char *at, const char *end)
{
    const char *s = empm__request_note(f->req, it->text);
    return empm__access_write_string(f, at, end,
                                     s != NULL ? s : getenv(it->text));
}

/* %{name}C: a cookie of the request. */
static char *empm__access_write_cookie(empm__facts *f, const empm__item *it,
                                       char *at, const char *end)
{
    empm_request *req = f->req;
    return empm__access_write_string(f, at, end, req->text != NULL
                                     ? empm_cookie(req, it->text) : NULL);
}

/* %m: the method. */
static char *empm__access_write_method(empm__facts *f, const empm__item *it,
                                       char *at, const char *end)
{
    const empm__span *part = &f->req->head.spans[EMPM__PART_METHOD];
    (void)it;
    return empm__access_write(f, at, end, f->known ? f->in + part->at : NULL,
                              part->len);
}

/* %U: the path as it was sent; Apache's is decoded. */
static char *empm__access_write_path(empm__facts *f, const empm__item *it,
                                     char *at, const char *end)
{
    const empm__span *part = &f->req->head.spans[EMPM__PART_PATH];
    (void)it;
    if (f->known && part->len == 0)
        return EMPM__ADD(at, "/");   /* "http://host" has none */
    return empm__access_write(f, at, end, f->known ? f->in + part->at : NULL,
                              part->len);
}

/* %q: the query with its question mark. */
static char *empm__access_write_query(empm__facts *f, const empm__item *it,
                                      char *at, const char *end)
{
    const empm__span *part = &f->req->head.spans[EMPM__PART_QUERY];
    (void)it;
    if (!f->known)
        return EMPM__ADD(at, "-");
    if (part->len > 0)
        *at++ = '?';
    return empm__access_write(f, at, end, f->in + part->at, part->len);
}

/* %H: the protocol. */
static char *empm__access_write_version(empm__facts *f, const empm__item *it,
                                        char *at, const char *end)
{
    (void)it;
    (void)end;
    if (!f->known)
        return EMPM__ADD(at, "-");
    return f->req->head.minor ? EMPM__ADD(at, "HTTP/1.1")
                              : EMPM__ADD(at, "HTTP/1.0");
}

/* %l, %L: identd and the log's id, which this server does not have. */
static char *empm__access_write_nothing(empm__facts *f, const empm__item *it,
                                        char *at, const char *end)
{
    (void)f;
    (void)it;
    (void)end;
    return EMPM__ADD(at, "-");
}

/* --- the letters ---------------------------------------------------------- */

enum empm__braces {
    EMPM__BRACES_WORD,               /* one of `words`, or none */
    EMPM__BRACES_NAME,               /* a name, which must be there */
    EMPM__BRACES_TIME                /* begin: or end:, then a word or a format
                                        of strftime() */
};

/* A row is all that is known of a letter: the words that its braces take, and
 * either a number of the facts or the function that writes it. A test
 * compares the rows with >>letters. */
typedef struct empm__letter {
    char                 letter;
    enum empm__braces    braces;
    const char          *words;      /* NULL: none */
    size_t               number;     /* in the facts, if `writer` is NULL */
    empm__access_writer *writer;
} empm__letter;

#define EMPM__LETTER_NUMBER(letter, field) \
    { letter, EMPM__BRACES_WORD, NULL, offsetof(empm__facts, field), NULL }
#define EMPM__LETTER(letter, braces, words, write) \
    { letter, EMPM__BRACES_##braces, words, 0, empm__access_write_##write }

static const empm__letter empm__letters[] = {
    EMPM__LETTER('a', WORD, "c", client),
    EMPM__LETTER('h', WORD, "c", client),
    EMPM__LETTER('A', WORD, NULL, local),
    EMPM__LETTER('b', WORD, NULL, bytes),
    EMPM__LETTER_NUMBER('B', body),
    EMPM__LETTER('C', NAME, NULL, cookie),
    EMPM__LETTER_NUMBER('D', took_us),
    EMPM__LETTER('e', NAME, NULL, variable),
    EMPM__LETTER('f', WORD, NULL, file),
    EMPM__LETTER('H', WORD, NULL, version),
    EMPM__LETTER('i', NAME, NULL, input),
    EMPM__LETTER_NUMBER('I', got),
    EMPM__LETTER_NUMBER('k', nth),
    EMPM__LETTER('l', WORD, NULL, nothing),
    EMPM__LETTER('L', WORD, NULL, nothing),
    EMPM__LETTER('m', WORD, NULL, method),
    EMPM__LETTER('n', NAME, NULL, note),
    EMPM__LETTER('o', NAME, NULL, field),
    EMPM__LETTER_NUMBER('O', sent),
    EMPM__LETTER('p', WORD, "canonical local remote", port),
    EMPM__LETTER('P', WORD, "pid tid hextid", pid),
    EMPM__LETTER('q', WORD, NULL, query),
    EMPM__LETTER('r', WORD, NULL, line),
    EMPM__LETTER('R', WORD, NULL, route),
    EMPM__LETTER_NUMBER('s', status),
    EMPM__LETTER_NUMBER('S', moved),
    EMPM__LETTER('t', TIME, "sec msec usec msec_frac usec_frac", time),
    EMPM__LETTER('T', WORD, "s ms us", took),
    EMPM__LETTER('u', WORD, NULL, user),
    EMPM__LETTER('U', WORD, NULL, path),
    EMPM__LETTER('v', WORD, NULL, name),
    EMPM__LETTER('V', WORD, NULL, host),
    EMPM__LETTER('X', WORD, NULL, end)
};

/* Runs one item. There is room for EMPM__ITEM_ROOM bytes at least. */
static char *empm__access_write_item(empm__facts *f, const empm__item *it,
                                     char *at, const char *end)
{
    int i, named = it->nonly == 0;
    if (it->is == NULL)
        return empm__text_append(at, it->text, it->len);
    for (i = 0; i < it->nonly; i++)
        named |= it->only[i] == f->status;
    if (it->nonly > 0 && named == it->negated)
        return EMPM__ADD(at, "-");
    if (it->is->writer == NULL)
        return empm__access_write_number(
            at, *(const int64_t *)(const void *)((const char *)f +
                                                 it->is->number));
    return it->is->writer(f, it, at, end);
}

/* ---------------------------------------------------------------------------
 * >>access-formats -- a format becomes a list of items
 *
 * A format is compiled once, at the start. A fault in it is reported with its
 * place and stops the start: a log without the figures that were asked for is
 * noticed when they are needed.
 * ------------------------------------------------------------------------- */

/* Looks for the text in braces among the words of its letter. Returns NULL, or
 * the reason of a refusal. */
static const char *empm__access_word_parse(empm__item *it)
{
    const int is_time = it->is->braces == EMPM__BRACES_TIME;
    const char *word = it->is->words;
    size_t n;
    int k;
    if (is_time && strncmp(it->text, "begin:", 6) == 0)
        it->text += 6;
    else if (is_time && strncmp(it->text, "end:", 4) == 0) {
        it->text += 4;
        it->at_end = 1;
    }
    for (k = 1; word != NULL && *word != '\0'; k++) {
        n = strcspn(word, " ");
        if (strlen(it->text) == n && memcmp(it->text, word, n) == 0)
            it->unit = (uint8_t)k;
        word += n + (word[n] == ' ');
    }
    if (is_time && *it->text == '\0')
        it->text = NULL;
    return it->unit != 0 || is_time ? NULL : "takes no such word in braces";
}

/* Reads one item after its '%': "!200,304{X}i". Returns NULL, or the reason of
 * a refusal. */
static const char *empm__access_item_parse(empm__item *it, const char **format,
                                           char **text)
{
    const char *p = *format;
    size_t i, n;
    for (;; p++)
        if (*p == '!')
            it->negated = 1;
        else if (empm__ascii_is_digit((unsigned char)*p)) {
            n = strspn(p, "0123456789");
            if (n != 3 || it->nonly == EMPM__ITEM_STATUSES)
                return "wants statuses of three digits, eight at most";
            it->only[it->nonly++] = (uint16_t)empm__parse_u63(p, n);
            p += n - 1;
        } else if (*p == '{') {
            n = strcspn(++p, "}");
            if (p[n] == '\0')
                return "has a brace that is not closed";
            it->text = (const char *)memcpy(*text, p, n);
            (*text)[n] = '\0';
            *text += n + 1;
            p += n;
        } else if (*p != '<' && *p != '>' && *p != ',')
            break;
    *format = p + 1;
    for (i = 0; i < EMPM__COUNT(empm__letters); i++)
        if (empm__letters[i].letter == *p)
            it->is = &empm__letters[i];
    if (it->is == NULL)
        return "is not known";
    if (it->is->braces == EMPM__BRACES_NAME)
        return it->text != NULL && *it->text != '\0' ? NULL : "wants a {name}";
    return it->text != NULL ? empm__access_word_parse(it) : NULL;
}

/* Compiles the format `f`. Returns NULL, or the reason why the item that begins
 * at *at is refused. */
static const char *empm__access_format_compile(empm__access_log *l,
                                               const char *f, size_t *at)
{
    const size_t most = strlen(f) + 1;
    const char *p = f, *why;
    empm__item *it;
    uint32_t tail = 1;               /* the newline */
    char *text;
    *at = 0;
    l->nitems = 0;
    l->items = (empm__item *)EMPM_MALLOC(most * (sizeof *it + 1));
    if (l->items == NULL)
        return "no memory";
    text = (char *)(l->items + most);
    while (*p != '\0') {
        it = &l->items[l->nitems++];
        memset(it, 0, sizeof *it);
        if (*p == '%' && p[1] != '%') {
            *at = (size_t)(p++ - f);
            if ((why = empm__access_item_parse(it, &p, &text)) != NULL)
                return why;
            continue;
        }
        it->text = text;
        while (*p != '\0' && (*p != '%' || p[1] == '%')) {
            if (*p == '%')
                p++;
            if (p[0] == '\\' && (p[1] == 't' || p[1] == 'n'))
                *text++ = *++p == 't' ? '\t' : '\n';
            else
                *text++ = *p;
            p++;
        }
        it->len = (uint32_t)(text - it->text);
    }
    *at = 0;
    for (it = l->items + l->nitems; it-- > l->items;) {
        it->tail = tail;
        tail += it->is == NULL ? it->len : EMPM__ITEM_ROOM;
    }
    l->least = tail;
    return tail <= EMPM__PAGE_ROOM / 2 ? NULL : "is too long";
}

/* ---------------------------------------------------------------------------
 * >>access-lines -- lines gather, and are written together
 *
 * A worker keeps one page for each log. A full page is written at once, the
 * others half a second after their first line, by a worker that is free or by
 * the standby; a pipe that is full loses lines, and never holds a request.
 * ------------------------------------------------------------------------- */

/* How much of n bytes goes into one write(): for a pipe, into which other
 * children write, too, as many whole lines as it takes without a gap. */
static size_t empm__access_lines_piece(const empm__access_log *l, const char *s,
                                       size_t n)
{
    size_t k = PIPE_BUF;
    if (!l->is_pipe || n <= PIPE_BUF)
        return n;
    while (k > 0 && s[k - 1] != '\n')
        k--;
    return k > 0 ? k : (size_t)((const char *)memchr(s, '\n', n) - s) + 1;
}

/* Writes a page of lines; it is empty then. No lock is held meanwhile, and what
 * a pipe has no room for is lost. */
static void empm__access_lines_save(empm__engine *e, empm__access_log *l,
                                    empm__page *p)
{
    const char *s = empm__page_data(p), *end = s + p->end;
    uint32_t lost = 0;
    p->end = 0;
    /* a full disk has taken half a line: the next must not become part of it */
    if (empm__load(&l->torn) && empm__log_put(l->fd, "\n", 1) == 1)
        empm__store(&l->torn, 0u);
    while (s < end) {
        const ssize_t r = empm__log_put(
            l->fd, s, empm__access_lines_piece(l, s, (size_t)(end - s)));
        if (r > 0)
            s += r;
        else if (r == 0 || errno != EINTR)
            break;
    }
    if (s == end)
        return;
    if (s > empm__page_data(p) && s[-1] != '\n')
        empm__store(&l->torn, 1u);
    empm__engine_log(e, EMPM_LOG_ERROR, 646, "CustomLog %s: %s; its lines are "
                     "lost (%u before these)", l->name,
                     empm__fd_would_block(errno) ? "its pipe is full"
                                                 : strerror(errno),
                     empm__load(&e->score->unlogged));
    for (; s < end; s++)
        lost += *s == '\n';
    __atomic_fetch_add(&e->score->unlogged, lost, __ATOMIC_RELAXED);
}

/* Writes the pages of all workers. A page goes back to its place, unless there
 * is a new one. */
static void empm__access_lines_collect(empm__engine *e)
{
    empm__access_logs *a = e->s->access;
    uint32_t k;
    int i;
    if (a == NULL)
        return;
    /* a disk that stands still shall have one of us, not one more each time */
    if (__atomic_exchange_n(&e->collecting, 1u, __ATOMIC_ACQ_REL)) {
        empm__store(&e->lines_due_at_ms,
                    empm__time_after(empm__now_ms(), EMPM__LINES_MS));
        return;
    }
    /* first: a line that comes later makes it due again */
    __atomic_store_n(&e->lines_due_at_ms, EMPM__NEVER, __ATOMIC_SEQ_CST);
    for (i = 0; i < e->nworkers; i++)
        for (k = 0; k < a->n; k++) {
            empm__page **place = &e->workers[i].lines[k], *none = NULL;
            empm__page *p = __atomic_exchange_n(place, none, __ATOMIC_SEQ_CST);
            if (p == NULL)
                continue;
            if (p->end > 0)
                empm__access_lines_save(e, &a->of[k], p);
            if (!__atomic_compare_exchange_n(place, &none, p, 0,
                                             __ATOMIC_ACQ_REL,
                                             __ATOMIC_RELAXED))
                EMPM_FREE(p);
        }
    empm__store_rel(&e->collecting, 0u);
}

/* The end: no worker runs any more. */
static void empm__access_lines_end(empm__engine *e)
{
    uint32_t k;
    int i;
    empm__access_lines_collect(e);
    for (i = 0; i < e->nworkers; i++)
        for (k = 0; k < EMPM_MAX_LIST; k++) {
            EMPM_FREE(e->workers[i].lines[k]);
            e->workers[i].lines[k] = NULL;
        }
}

/* The line of one log into the page, or not: 0, it does not fit. */
static int empm__access_line_write(empm__facts *f, const empm__access_log *l,
                                   empm__page *p)
{
    char *at = empm__page_data(p) + p->end;
    const char *end = empm__page_data(p) + EMPM__PAGE_ROOM;
    uint32_t i;
    f->cut = 0;
    if ((size_t)(end - at) < l->least)
        return 0;
    for (i = 0; i < l->nitems; i++)
        at = empm__access_write_item(f, &l->items[i], at,
                                     end - l->items[i].tail);
    *at++ = '\n';
    if (f->cut && p->end > 0)
        return 0;                    /* alone in a page there is more room */
    p->end = (uint32_t)(at - empm__page_data(p));
    return 1;
}

/* The request is over: its line into each log. `aborted`: too early. */
static void empm__access_log_request(empm_request *req, int aborted)
{
    empm__worker *w = req->w;
    empm__engine *e = w->engine;
    empm__access_logs *a = w->s->access;
    empm__facts f;
    uint32_t k, never = EMPM__NEVER;
    if (a == NULL || (empm__request_head_is_open(req) && req->text == NULL))
        return;                      /* none, or not even a request */
    empm__access_facts(&f, req, aborted);
    for (k = 0; k < a->n; k++) {
        empm__page *p;
        if (*a->of[k].only != '\0' &&
            a->of[k].only_without == (empm__request_note(req, a->of[k].only) !=
                                      NULL))
            continue;
        p = __atomic_exchange_n(&w->lines[k], (empm__page *)NULL,
                                __ATOMIC_ACQUIRE);
        if (p == NULL && (p = empm__page_borrow(w)) == NULL) {
            __atomic_fetch_add(&e->score->unlogged, 1u, __ATOMIC_RELAXED);
            empm__worker_log(w, EMPM_LOG_ERROR, 5403, "no memory for a line of "
                             "CustomLog %s", a->of[k].name);
            continue;
        }
        if (!empm__access_line_write(&f, &a->of[k], p)) {
            empm__access_lines_save(e, &a->of[k], p);
            empm__access_line_write(&f, &a->of[k], p);
        }
        /* a collector may have brought the old one back meanwhile */
        empm__page_return(w, __atomic_exchange_n(&w->lines[k], p,
                                                 __ATOMIC_SEQ_CST));
    }
    /* seq_cst, as in empm__access_lines_collect: it sees the page, or we see
     * NEVER */
    if (__atomic_load_n(&e->lines_due_at_ms, __ATOMIC_SEQ_CST) == EMPM__NEVER &&
        __atomic_compare_exchange_n(&e->lines_due_at_ms, &never,
                                    empm__time_after(empm__now_ms(),
                                                     EMPM__LINES_MS),
                                    0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        empm__poller_order(&e->poller, EMPM__ORDER_LOOK);
}

/* --- directives ----------------------------------------------------------- */

/* The format called `name`, or NULL: the last LogFormat of that name, or one of
 * those that Apache's own configuration has. */
static const char *empm__access_format_named(const empm_config *cfg,
                                             const char *name,
                                             char *buf, size_t n)
{
    static const char *const ours[][2] = {
        { "common", "%h %l %u %t \"%r\" %>s %b" },
        { "combined", "%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" "
                      "\"%{User-Agent}i\"" },
        { "combinedio", "%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" "
                        "\"%{User-Agent}i\" %I %O" },
        { "vhost_combined", "%v:%p %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" "
                            "\"%{User-Agent}i\"" },
        { "referer", "%{Referer}i -> %U" },
        { "agent", "%{User-Agent}i" }
    };
    char nickname[64];
    size_t i;
    for (i = EMPM_MAX_LIST; i-- > 0;) {
        const char *p = cfg->log_format[i];
        if (p != NULL && empm__text_word(&p, buf, n) == 1 &&
            empm__text_word(&p, nickname, sizeof nickname) == 1 &&
            strcmp(nickname, name) == 0)
            return buf;
    }
    for (i = 0; i < EMPM__COUNT(ours); i++)
        if (strcmp(ours[i][0], name) == 0)
            return ours[i][1];
    return NULL;
}

static int empm__access_format_say(empm__access_log *l, const char *directive,
                                   const char *format, empm__report *rep)
{
    size_t at;
    const char *why = empm__access_format_compile(l, format, &at);
    if (why == NULL)
        return EMPM_OK;
    if (l->items == NULL)
        rep->result = EMPM_ENOMEM;
    if (format[at] == '%' && l->items != NULL)
        empm__report_say(rep, EMPM_LOG_ERROR, 5401, "%s: \"%.12s\" at byte %u "
                         "of the format %s", directive, format + at,
                         (unsigned)at + 1, why);
    else
        empm__report_say(rep, EMPM_LOG_ERROR, 5401, "%s: the format %s",
                         directive, why);
    return rep->result;
}

/* Returns the reason why "|program" cannot be a log, or NULL. */
static const char *empm__access_pipe_why(const char *command)
{
#ifndef EVENTMPM_NO_FORK
    char room[1024], *argv[EMPM__PIPE_WORDS + 1];
    return empm__log_pipe_words(command, room, argv) > 0
               ? NULL : "names no program, or has a quote that is not closed";
#else
    (void)command;
    return "is a program: built without fork";
#endif
}

/* CustomLog file format [env=[!]name]: compiles the format; file goes to
 * `file`, the condition to `l`. */
static int empm__access_parse(const empm_config *cfg, const char *text,
                              empm__access_log *l, char *file, size_t n,
                              empm__report *rep)
{
    char word[1024], named[1024], only[80];
    const char *p = text, *format = word, *why = NULL;
    int has = 0;
    *l->only = '\0';
    if (empm__text_word(&p, file, n) != 1 ||
        empm__text_word(&p, word, sizeof word) != 1 ||
        (has = empm__text_word(&p, only, sizeof only)) < 0 ||
        p[strspn(p, " \t")] != '\0')
        why = "takes a file and a format, in quotes where there are spaces, "
              "and perhaps env=NAME or env=!NAME";
    else if (has > 0 && (strncmp(only, "env=", 4) != 0 ||
                         only[4 + (only[4] == '!')] == '\0' ||
                         strlen(only + 4) >= sizeof l->only))
        why = "has a condition that is not env=NAME or env=!NAME";
    else if (*file == '|' && (why = empm__access_pipe_why(file)) != NULL)
        ;
    else if (strchr(word, '%') == NULL &&
             (format = empm__access_format_named(cfg, word, named,
                                                 sizeof named)) ==
                 NULL)
        why = "there is no LogFormat of that name";
    if (why == NULL && has > 0) {
        l->only_without = only[4] == '!';
        strcpy(l->only, only + 4 + l->only_without);
    }
    if (why == NULL)
        return empm__access_format_say(l, "CustomLog", format, rep);
    empm__report_say(rep, EMPM_LOG_ERROR, 5400, "CustomLog %.300s: %s", text,
                     why);
    return EMPM_EINVAL;
}

static void empm__access_check(const empm_config *cfg, empm__report *rep)
{
    empm__access_log l;
    char word[1024], nickname[64];
    size_t i;
    for (i = 0; i < EMPM_MAX_LIST; i++) {
        const char *p = cfg->log_format[i];
        l.items = NULL;
        if (p != NULL && (empm__text_word(&p, word, sizeof word) != 1 ||
                          empm__text_word(&p, nickname, sizeof nickname) != 1 ||
                          p[strspn(p, " \t")] != '\0'))
            empm__report_say(rep, EMPM_LOG_ERROR, 5400, "LogFormat %.300s: "
                             "takes a format in quotes and a nickname",
                             cfg->log_format[i]);
        else if (p != NULL)
            empm__access_format_say(&l, "LogFormat", word, rep);
        EMPM_FREE(l.items);
        l.items = NULL;
        if (cfg->custom_log[i] != NULL)
            empm__access_parse(cfg, cfg->custom_log[i], &l, word, sizeof word,
                               rep);
        EMPM_FREE(l.items);
    }
}

static void empm__access_free(empm__access_logs *a)
{
    uint32_t k;
    for (k = 0; a != NULL && k < a->n; k++) {
        if (a->of[k].owner)
            close(a->of[k].fd);
        EMPM_FREE(a->of[k].items);
    }
    if (a != NULL && a->c != (locale_t)0)
        freelocale(a->c);
    EMPM_FREE(a);
}

/* Opens all access logs; a file that is named twice, once. */
static int empm__access_open(const empm_config *cfg, empm__access_logs **out,
                             empm__report *rep)
{
    char file[1024], path[1200];
    empm__access_logs *a;
    struct stat st;
    uint32_t i, k;
    int r = EMPM_OK;
    if (cfg->custom_log[0] == NULL)
        return EMPM_OK;
    if ((a = (empm__access_logs *)EMPM_MALLOC(sizeof *a)) == NULL)
        return EMPM_ENOMEM;
    memset(a, 0, sizeof *a);
    empm__log_name_alone(cfg, a->host, sizeof a->host);
    a->c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    for (i = 0; i < EMPM_MAX_LIST && cfg->custom_log[i] != NULL; i++) {
        empm__access_log *l = &a->of[i];
        a->n = i + 1;
        if ((r = empm__access_parse(cfg, cfg->custom_log[i], l, file,
                                    sizeof file, rep)) < 0)
            break;
        snprintf(l->name, sizeof l->name, "%s", file);
        for (k = 0; k < i && strcmp(a->of[k].name, l->name) != 0; k++)
            ;
        if (k < i)
            l->fd = a->of[k].fd;
        else if ((l->fd = *file == '|'
                      ? empm__log_pipe_start(file, cfg->log_target > 0
                                                   ? cfg->log_target : -1)
                      : empm__log_file(empm__config_path(cfg, file, path,
                                                         sizeof path))) >= 0)
            l->owner = 1;
        else {
            empm__report_say(rep, EMPM_LOG_ERROR, 649,
                             "cannot %s CustomLog %s: %s",
                             *file == '|' ? "start" : "open", file,
                             strerror(errno));
            r = EMPM_ESYS;
            break;
        }
        l->is_pipe = fstat(l->fd, &st) == 0 && !S_ISREG(st.st_mode);
    }
    if (r < 0)
        empm__access_free(a);
    else
        *out = a;
    return r;
}

/* --- the wing ------------------------------------------------------------- */

static void empm__access_check_all(const empm_config *cfg,
                                    const empm__chars *chars, empm__report *rep)
{
    (void)chars;
    empm__access_check(cfg, rep);
}

static int empm__access_server_new(empm_server *s, const empm_server *old,
                                  empm__report *rep)
{
    const int r = empm__access_open(s->cfg, &s->access, rep);
    (void)old;
    if (s->access != NULL)
        s->log_request = empm__access_log_request;
    return r;
}

static void empm__access_server_free(empm_server *s)
{
    empm__access_free(s->access);
}

static uint32_t empm__access_chore_at(empm__engine *e)
{
    return empm__load(&e->lines_due_at_ms);
}

static int empm__access_reopen(const empm_server *s, empm__logs_swap *w)
{
    int r = EMPM_OK;
    uint32_t k;
    for (k = 0; s->access != NULL && k < s->access->n; k++) {
        const empm__access_log *l = &s->access->of[k];
        if (l->owner && *l->name != '|' &&
            empm__logs_swap_add(s, w, 649, "CustomLog", l->name, l->fd) < 0)
            r = EMPM_ESYS;
    }
    return r;
}

static void empm__access_reopened(empm_server *s, const struct stat *is, int to)
{
    uint32_t k;
    for (k = 0; s->access != NULL && k < s->access->n; k++)
        if (s->access->of[k].owner) {
            empm__logs_swap_one(s->access->of[k].fd, is, to);
            empm__store(&s->access->of[k].torn, 0u);
        }
}

static const empm__wing empm__access_wing = {
    empm__access_check_all, empm__access_server_new, empm__access_server_free,
    NULL, NULL, NULL, NULL, empm__access_chore_at, empm__access_lines_collect,
    empm__access_lines_end, empm__access_reopen, empm__access_reopened,
    "log_config"
};

#else

static const empm__wing empm__access_wing = {
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    "log_config"
};

#endif /* EVENTMPM_NO_ACCESS_LOG */

/* ---------------------------------------------------------------------------
 * >>files -- static files below a root that cannot be left
 *
 * The path comes decoded, segment by segment, so nothing is decoded twice. A
 * segment with a slash or backslash in it, or that begins with a dot (but for
 * .well-known), names no file here. The kernel keeps the rest inside: openat2()
 * with RESOLVE_BENEATH, or a walk that follows no symbolic link at all.
 *
 * source    RFC 9110 8.8 (validators), 13 (conditions), 14 (ranges)
 * ------------------------------------------------------------------------- */

#ifndef EVENTMPM_NO_FILES

/* --- types ---------------------------------------------------------------- */

typedef struct empm__type {
    const char *ext, *type;          /* the extension in small letters */
} empm__type;

/* In the order of strcmp(). Text is UTF-8 here. */
static const empm__type empm__types_known[] = {
    { "7z", "application/x-7z-compressed" }, { "aac", "audio/aac" },
    { "apk", "application/vnd.android.package-archive" },
    { "apng", "image/apng" }, { "atom", "application/atom+xml" },
    { "avi", "video/x-msvideo" }, { "avif", "image/avif" },
    { "bmp", "image/bmp" }, { "br", "application/x-brotli" },
    { "bz2", "application/x-bzip2" },
    { "cjs", "text/javascript; charset=utf-8" },
    { "css", "text/css; charset=utf-8" }, { "csv", "text/csv; charset=utf-8" },
    { "deb", "application/vnd.debian.binary-package" },
    { "dmg", "application/x-apple-diskimage" }, { "doc", "application/msword" },
    { "docx", "application/vnd.openxmlformats-officedocument.wordprocessingml."
            "document" },
    { "eot", "application/vnd.ms-fontobject" },
    { "epub", "application/epub+zip" },
    { "exe", "application/vnd.microsoft.portable-executable" },
    { "flac", "audio/flac" }, { "geojson", "application/geo+json" },
    { "gif", "image/gif" }, { "glb", "model/gltf-binary" },
    { "gltf", "model/gltf+json" }, { "gz", "application/gzip" },
    { "heic", "image/heic" }, { "heif", "image/heif" },
    { "htm", "text/html; charset=utf-8" },
    { "html", "text/html; charset=utf-8" }, { "ico", "image/x-icon" },
    { "ics", "text/calendar; charset=utf-8" },
    { "iso", "application/x-iso9660-image" },
    { "jar", "application/java-archive" }, { "jpeg", "image/jpeg" },
    { "jpg", "image/jpeg" }, { "js", "text/javascript; charset=utf-8" },
    { "json", "application/json" }, { "jsonl", "application/jsonl" },
    { "jsonld", "application/ld+json" }, { "jxl", "image/jxl" },
    { "log", "text/plain; charset=utf-8" },
    { "m3u8", "application/vnd.apple.mpegurl" }, { "m4a", "audio/mp4" },
    { "m4v", "video/mp4" }, { "map", "application/json" },
    { "md", "text/markdown; charset=utf-8" }, { "mid", "audio/midi" },
    { "mjs", "text/javascript; charset=utf-8" }, { "mka", "audio/matroska" },
    { "mkv", "video/matroska" }, { "mov", "video/quicktime" },
    { "mp3", "audio/mpeg" }, { "mp4", "video/mp4" },
    { "mpd", "application/dash+xml" }, { "mpeg", "video/mpeg" },
    { "mpg", "video/mpeg" }, { "ndjson", "application/x-ndjson" },
    { "odp", "application/vnd.oasis.opendocument.presentation" },
    { "ods", "application/vnd.oasis.opendocument.spreadsheet" },
    { "odt", "application/vnd.oasis.opendocument.text" },
    { "oga", "audio/ogg" }, { "ogg", "audio/ogg" }, { "ogv", "video/ogg" },
    { "opus", "audio/ogg" }, { "otf", "font/otf" },
    { "pdf", "application/pdf" }, { "png", "image/png" },
    { "ppt", "application/vnd.ms-powerpoint" },
    { "pptx", "application/vnd.openxmlformats-officedocument.presentationml."
            "presentation" },
    { "ps", "application/postscript" }, { "rar", "application/vnd.rar" },
    { "rpm", "application/x-rpm" }, { "rss", "application/rss+xml" },
    { "rtf", "application/rtf" }, { "srt", "application/x-subrip" },
    { "svg", "image/svg+xml" }, { "tar", "application/x-tar" },
    { "tgz", "application/gzip" }, { "tif", "image/tiff" },
    { "tiff", "image/tiff" }, { "toml", "application/toml" },
    { "torrent", "application/x-bittorrent" }, { "ts", "video/mp2t" },
    { "tsv", "text/tab-separated-values; charset=utf-8" },
    { "ttf", "font/ttf" }, { "ttml", "application/ttml+xml" },
    { "txt", "text/plain; charset=utf-8" },
    { "vcf", "text/vcard; charset=utf-8" },
    { "vtt", "text/vtt; charset=utf-8" }, { "wasm", "application/wasm" },
    { "wav", "audio/wav" }, { "weba", "audio/webm" }, { "webm", "video/webm" },
    { "webmanifest", "application/manifest+json" }, { "webp", "image/webp" },
    { "woff", "font/woff" }, { "woff2", "font/woff2" },
    { "xht", "application/xhtml+xml" }, { "xhtml", "application/xhtml+xml" },
    { "xls", "application/vnd.ms-excel" },
    { "xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml."
            "sheet" },
    { "xml", "application/xml" }, { "xsl", "application/xslt+xml" },
    { "xslt", "application/xslt+xml" }, { "xz", "application/x-xz" },
    { "yaml", "application/yaml" }, { "yml", "application/yaml" },
    { "zip", "application/zip" }, { "zst", "application/zstd" },
    { "zsync", "application/x-zsync" }
};

struct empm__types {                 /* AddType, in the same order */
    size_t      n;
    empm__type *list;                /* behind the struct; then their texts */
};

/* The place of the extension in a list of n, or where it would stand. */
static size_t empm__types_place(const empm__type *list, size_t n,
                                const char *ext)
{
    size_t from = 0, to = n;
    while (from < to) {
        const size_t mid = from + (to - from) / 2;
        const char *a = list[mid].ext, *b = ext;
        while (*a != '\0' && *a == empm__ascii_lower((unsigned char)*b)) {
            a++;
            b++;
        }
        if ((unsigned char)*a < empm__ascii_lower((unsigned char)*b))
            from = mid + 1;
        else
            to = mid;
    }
    return from;
}

static const char *empm__types_find(const empm__type *list, size_t n,
                                    const char *ext)
{
    const size_t i = empm__types_place(list, n, ext);
    return i < n && empm__text_same(list[i].ext, strlen(list[i].ext), ext,
                                    strlen(ext)) ? list[i].type : NULL;
}

/* Returns the type that the name of a file stands for. */
static const char *empm__types_of_name(const struct empm__types *own,
                                       const char *name)
{
    const char *slash = strrchr(name, '/');
    const char *dot = strrchr(slash != NULL ? slash : name, '.');
    const char *type = NULL;
    if (dot != NULL && own != NULL)
        type = empm__types_find(own->list, own->n, dot + 1);
    if (dot != NULL && type == NULL)
        type = empm__types_find(empm__types_known,
                                EMPM__COUNT(empm__types_known), dot + 1);
    return type != NULL ? type : "application/octet-stream";
}

#define EMPM__TYPE_MAX 120           /* bytes; empm__file.fields has the room */

/* Adds one row of AddType, "type .ext ext ..."; its words are kept at *text,
 * where there is room for them. Returns NULL, or the reason of a refusal. */
static const char *empm__types_add(struct empm__types *t, const char *row,
                                   const empm__chars *chars, char **text)
{
    const size_t room = strlen(row) + 2;
    char *type = *text, *word = type;
    const char *ext;
    size_t i, k, n = 0;
    int r = empm__text_word(&row, type, room);
    if (r < 0)
        return "has a quote that is not closed";
    if (r == 0 || strchr(type, '/') == NULL || strlen(type) > EMPM__TYPE_MAX ||
        !empm__chars_all(chars, type, strlen(type), EMPM__VCHAR))
        return "begins with a media type of at most 120 bytes, in quotes if it "
               "has spaces";
    for (;;) {
        word += strlen(word) + 1;
        r = empm__text_word(&row, word, room - (size_t)(word - type));
        if (r <= 0)
            break;
        for (k = 0; word[k] != '\0'; k++)
            word[k] = (char)empm__ascii_lower((unsigned char)word[k]);
        ext = word + (*word == '.');
        if (*ext == '\0' || strpbrk(ext, "./") != NULL)
            return "has an extension that is empty or has a dot inside: it is "
                   "what follows the last dot of a name";
        i = empm__types_place(t->list, t->n, ext);
        if (i == t->n || strcmp(t->list[i].ext, ext) != 0) {
            memmove(t->list + i + 1, t->list + i,
                    (t->n++ - i) * sizeof *t->list);
            t->list[i].ext = ext;
        }
        t->list[i].type = type;      /* the last one counts */
        n++;
    }
    *text = word;
    return r == 0 && n > 0 ? NULL : "wants the extensions, such as .mkv, after "
                                    "the type";
}

/* All of AddType; *out is NULL where there is none. */
static int empm__types_new(struct empm__types **out, const empm_config *cfg,
                           const empm__chars *chars, empm__report *rep)
{
    struct empm__types *t;
    const char *why;
    char *text;
    size_t most = 0, bytes = 0;
    int i;
    *out = NULL;
    for (i = 0; i < EMPM_MAX_LIST && cfg->add_type[i] != NULL; i++) {
        most += strlen(cfg->add_type[i]) / 2 + 1;
        bytes += strlen(cfg->add_type[i]) + 2;
    }
    if (i == 0)
        return EMPM_OK;
    t = (struct empm__types *)EMPM_MALLOC(sizeof *t + most * sizeof *t->list +
                                          bytes);
    if (t == NULL)
        return EMPM_ENOMEM;
    t->n = 0;
    t->list = (empm__type *)(t + 1);
    text = (char *)(t->list + most);
    for (i = 0; i < EMPM_MAX_LIST && cfg->add_type[i] != NULL; i++)
        if ((why = empm__types_add(t, cfg->add_type[i], chars, &text)) != NULL)
            empm__report_say(rep, EMPM_LOG_ERROR, 5115, "AddType %.200s: %s",
                             cfg->add_type[i], why);
    *out = t;
    return EMPM_OK;
}

/* --- opening -------------------------------------------------------------- */

/* Files of 2 GiB and more, where a long has 32 bits: open() adds this flag by
 * itself, a plain system call does not. */
#if defined(O_LARGEFILE)
#  define EMPM__O_LARGEFILE O_LARGEFILE
#elif defined(__O_LARGEFILE)
#  define EMPM__O_LARGEFILE __O_LARGEFILE
#else
#  define EMPM__O_LARGEFILE 0
#endif

#define EMPM__O_READ (O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

/* Opens `path` below the directory `root`. Returns a descriptor, or -1 with
 * errno. `flags`: EMPM__O_READ, or EMPM__O_PATH with the few flags that
 * openat2() takes beside it. */
static int empm__file_open_beneath(int root, const char *path, int flags)
{
    char name[256];
    int dir = root, fd = -1;
#if defined(__linux__)
    struct { uint64_t flags, mode, resolve; } how;
    int tries = 0;
    how.flags = (uint64_t)flags;
    if (flags == EMPM__O_READ)
        how.flags |= EMPM__O_LARGEFILE;
    how.mode = 0;
    how.resolve = 0x08 | 0x02;       /* BENEATH, NO_MAGICLINKS */
    do
        fd = (int)syscall(437 /* openat2 */, root, path, &how, sizeof how);
    while (fd < 0 && errno == EAGAIN && ++tries < 8);  /* a rename beside us */
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM && errno != E2BIG))
        return fd;
#endif
    for (;;) {
        const size_t n = strcspn(path, "/");
        const int last = path[n] == '\0';
        if (n == 0 || n >= sizeof name) {
            errno = ENOENT;
            fd = -1;
        } else {
            memcpy(name, path, n);
            name[n] = '\0';
            fd = openat(dir, name, flags | O_NOFOLLOW |
                                       (last ? 0 : O_DIRECTORY));
        }
        if (dir != root) {
            const int saved = errno;
            close(dir);
            errno = saved;
        }
        if (fd < 0 || last)
            return fd;
        dir = fd;
        path += n + 1;
    }
}

/* ---------------------------------------------------------------------------
 * >>conditions -- If-Match to If-Range, and ranges
 *
 * The conditions are judged in the order of RFC 9110 13.2.2, once the final
 * status is known. A range that cannot be served as asked means the whole file,
 * unless the RFC wants 416.
 * ------------------------------------------------------------------------- */

/* The number of the name that begins at `s` in a table of names of three
 * letters each, or -1. */
static int empm__date_name_at(const char *names, const char *s)
{
    int i;
    for (i = 0; names[i * 3] != '\0'; i++)
        if (strncmp(names + i * 3, s, 3) == 0)
            return i;
    return -1;
}

/* Reads `s` by a form: N is the day's name, short or long; b the month's; D, h,
 * m, s, y have two digits (D perhaps one), Y four; anything else is itself. */
static int empm__date_form(const char *s, const char *form, int64_t *v)
{
    for (; *form != '\0'; form++) {
        const size_t want = *form == 'Y' ? 4 : 2;
        size_t n = 0;
        if (*form == 'N') {
            if (empm__date_name_at(empm__days, s) < 0)
                return 0;
            while (empm__ascii_lower((unsigned char)s[n]) >= 'a' &&
                   empm__ascii_lower((unsigned char)s[n]) <= 'z')
                n++;
        } else if (*form == 'b') {
            if ((v[(int)'b'] = empm__date_name_at(empm__months, s)) < 0)
                return 0;
            n = 3;
        } else if (strchr("DhmsyY", *form) != NULL) {
            s += *form == 'D' && *s == ' ';
            while (n < want && empm__ascii_is_digit((unsigned char)s[n]))
                n++;
            if (n != want && !(*form == 'D' && n == 1))
                return 0;
            v[(int)*form] = empm__parse_u63(s, n);
        } else if (*s == *form)
            n = 1;
        else
            return 0;
        s += n;
    }
    return *s == '\0';
}

/* Days since 1970; months count from 0. */
static int64_t empm__date_days_since(int64_t y, int64_t mon, int64_t d)
{
    const int64_t yy = y - (mon < 2), era = yy / 400, yoe = yy - era * 400;
    const int64_t doy = (153 * (mon < 2 ? mon + 10 : mon - 2) + 2) / 5 + d - 1;
    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

/* Reads the three forms of RFC 9110 5.6.7; -1: it is none of them. A year of
 * two digits is the last one that is not more than 50 years after `now`. */
static int64_t empm__date_parse(const char *s, int64_t now)
{
    int64_t v[128], y, mon, d;
    memset(v, 0, sizeof v);
    if (empm__date_form(s, "N, D-b-y h:m:s GMT", v)) {
        y = 1900 + v[(int)'y'];
        while (empm__date_days_since(y + 100, v[(int)'b'], v[(int)'D']) -
                   now / 86400 <=
               18262)
            y += 100;
    } else if (empm__date_form(s, "N, D b Y h:m:s GMT", v) ||
               empm__date_form(s, "N b D h:m:s Y", v))
        y = v[(int)'Y'];
    else
        return -1;
    mon = v[(int)'b'];
    d = v[(int)'D'];
    if (d < 1 ||
        d > 31 - (mon == 3 || mon == 5 || mon == 8 || mon == 10) ||
        (mon == 1 && d > 28 + (y % 4 == 0 && (y % 100 != 0 || y % 400 == 0))) ||
        v[(int)'h'] > 23 || v[(int)'m'] > 59 || v[(int)'s'] > 60 || y < 1)
        return -1;
    return empm__date_days_since(y, mon, d) * 86400 + v[(int)'h'] * 3600 +
           v[(int)'m'] * 60 +
           v[(int)'s'];
}

/* A field that can be there once only: NULL if it is not there, and if it comes
 * twice a text that means nothing in any of them. */
static const char *empm__condition_sole_field(const empm_request *req,
                                              const char *name)
{
    const char *found = NULL, *at, *value;
    int i;
    for (i = 0; empm_header_at(req, i, &at, &value) == EMPM_OK; i++)
        if (empm__text_same(at, strlen(at), name, strlen(name))) {
            if (found != NULL)
                return "";
            found = value;
        }
    return found;
}

/* Is `tag` in the If-None-Match fields or, `strong`, in the If-Match fields? */
static int empm__condition_etag_listed(const empm_request *req,
                                       const char *name,
                                       const char *tag, int strong)
{
    empm__list list;
    empm__list_of_fields(&list, &req->head, req->text, name, 0);
    while (empm__list_next(&list)) {
        const char *item = list.item;
        size_t n = list.n;
        if (n == 1 && *item == '*')
            return 1;
        if (n > 2 && item[0] == 'W' && item[1] == '/' && !strong) {
            item += 2;
            n -= 2;
        }
        if (n == strlen(tag) && memcmp(item, tag, n) == 0)
            return 1;
    }
    return 0;
}

/* The date in such a field; -1: it is not there, or is none. */
static int64_t empm__condition_date(const empm_request *req, const char *name)
{
    const char *v = empm__condition_sole_field(req, name);
    return v != NULL ? empm__date_parse(v, (int64_t)time(NULL)) : -1;
}

/* The preconditions, in the order of RFC 9110 13.2.2. 0: go on; 304 or 412. */
static int empm__condition_judge(const empm_request *req, const empm__file *f)
{
    const char *m = empm_method(req), *v = empm_header(req, "If-Match");
    const char *tag = *f->tag != '\0' ? f->tag : "\n";   /* like no other */
    const int reads = strcmp(m, "GET") == 0 || strcmp(m, "HEAD") == 0;
    int64_t t;
    if (strcmp(m, "OPTIONS") == 0 || strcmp(m, "TRACE") == 0)
        return 0;                    /* RFC 9110 13.2.1 */
    if (v != NULL) {
        if (!empm__condition_etag_listed(req, "If-Match", tag, 1))
            return 412;
    } else if ((t = empm__condition_date(req, "If-Unmodified-Since")) >= 0 &&
               f->modified_s > t)
        return 412;
    if ((v = empm_header(req, "If-None-Match")) != NULL)
        return !empm__condition_etag_listed(req, "If-None-Match", tag, 0) ? 0
               : reads ? 304 : 412;
    if (reads && (t = empm__condition_date(req, "If-Modified-Since")) >= 0 &&
        f->modified_s <= t)
        return 304;
    return 0;
}

/* May a range be taken of it? RFC 9110 13.1.5: only if If-Range names exactly
 * this content. A weak tag never does, nor does a date whose second is not
 * over: the content may change within it. */
static int empm__condition_if_range(const empm_request *req,
                                    const empm__file *f)
{
    const char *v = empm__condition_sole_field(req, "If-Range");
    int64_t t;
    if (v == NULL)
        return 1;
    if (*v == '"')
        return strcmp(v, f->tag) == 0;
    t = empm__condition_date(req, "If-Range");
    return t >= 0 && t == f->modified_s && t < (int64_t)time(NULL);
}

/* --- ranges --------------------------------------------------------------- */

/* More ranges than these, or shapes that RFC 9110 14.2 warns of, get the whole
 * file. A part costs some 120 bytes beside its content; zsync asks for 20
 * ranges of some blocks each, so small ones are counted apart. */
#define EMPM__RANGES_SMALL 16        /* those below ... */
#define EMPM__RANGE_SMALL  1024      /* ... so many bytes */
#define EMPM__RANGES_ODD   2         /* overlapping; small and out of order */

typedef struct empm__range {
    int64_t from, to;                /* the first byte; the first one after */
} empm__range;

/* One range-spec of n bytes. 1: it is *r; 0: the file has nothing of it; -1: it
 * is malformed. */
static int empm__range_parse(const char *s, size_t n, int64_t size,
                             empm__range *r)
{
    const char *dash = (const char *)memchr(s, '-', n);
    size_t before, after;
    int64_t a, b;
    if (dash == NULL)
        return -1;
    before = (size_t)(dash - s);
    after = n - before - 1;
    a = empm__parse_u63(s, before);      /* -1: no number; -2: more than is */
    b = empm__parse_u63(dash + 1, after);
    if ((before > 0 && a == -1) || (after > 0 && b == -1) || n == 1)
        return -1;
    if (b == -2)
        b = INT64_MAX;
    if (before == 0) {                   /* "-b": the last b bytes */
        r->from = b < size ? size - b : 0;
        r->to = size;
        return b > 0;
    }
    if (a == -2)
        a = INT64_MAX;
    if (after > 0 && b < a)
        return -1;
    r->from = a;
    r->to = after > 0 && b < size ? b + 1 : size;
    return a < size;
}

/* Reads a Range field. Returns how many ranges it has put into r, which has
 * room for EMPM_RANGES; 0: the whole file; -1: the file has nothing of them,
 * 416. */
static int empm__range_parse_all(const char *s, int64_t size, empm__range *r)
{
    int64_t left = size;
    empm__list list;
    int n = 0, specs = 0, small = 0, odd = 0, i, k;
    if (strlen(s) < 6 || !empm__text_same(s, 6, "bytes=", 6))
        return 0;
    empm__list_of_value(&list, s + 6);
    while (empm__list_next(&list)) {
        if (++specs > EMPM_RANGES ||
            (i = empm__range_parse(list.item, list.n, size, &r[n])) < 0)
            return 0;
        n += i;
    }
    if (n == 0)
        return specs > 0 ? -1 : 0;
    for (i = 0; i < n; i++) {
        const int64_t len = r[i].to - r[i].from;
        int overlaps = 0;
        for (k = 0; k < n; k++)
            overlaps |= k != i && r[k].from < r[i].to && r[i].from < r[k].to;
        if (len == 0 || len > left)      /* the last bytes of none; too much */
            return 0;
        left -= len;
        small += len < EMPM__RANGE_SMALL;
        odd += overlaps || (i > 0 && len < EMPM__RANGE_SMALL &&
                            r[i].from < r[i - 1].from);
    }
    return small > EMPM__RANGES_SMALL || odd > EMPM__RANGES_ODD ? 0 : n;
}

static void empm__range_content(char *to, size_t cap, const empm__range *r,
                                int64_t size)
{
    if (r == NULL)
        snprintf(to, cap, "bytes */%lld", (long long)size);
    else
        snprintf(to, cap, "bytes %lld-%lld/%lld", (long long)r->from,
                 (long long)r->to - 1, (long long)size);
}

/* Decides on an answer by file. Returns 0: the file is sent, or *n ranges of it
 * as 206 (*n is 0: the whole); or 304, 412 or 416, which are the answer then.
 * Changes nothing, and needs req->status as it will be. */
static int empm__file_judge(const empm_request *req, const empm__file *f,
                            empm__range *r, int *n)
{
    const char *range;
    int status = req->status / 100 == 2 ? empm__condition_judge(req, f) : 0;
    *n = 0;
    if (status != 0 || req->status != 200 ||
        strcmp(empm_method(req), "GET") != 0 ||    /* RFC 9110 14.2 */
        (range = empm__condition_sole_field(req, "Range")) == NULL ||
        !empm__condition_if_range(req, f))
        return status;
    *n = empm__range_parse_all(range, (int64_t)f->stat_key[2], r);
    if (*n >= 0)
        return 0;
    *n = 0;
    return 416;
}

/* ---------------------------------------------------------------------------
 * >>file-cache -- files that are kept open
 *
 * A file that is asked for again is found by its path, and is looked at with
 * stat() before it is used, so no answer is older than its request.
 * References keep a file open until the last answer has left.
 * ------------------------------------------------------------------------- */

#ifndef EMPM__FILE_REST_S          /* the tests have no time for this */
#  define EMPM__FILE_REST_S  3       /* a file must have rested so long */
#  define EMPM__FILE_KEEP_MS 10000   /* kept so long after its last use */
#endif

/* Fills in the numbers by which a file is known to be still the same. */
static void empm__file_identity(uint64_t is[5], const struct stat *st)
{
#if defined(__linux__)
    const long m = st->st_mtim.tv_nsec, c = st->st_ctim.tv_nsec;
#else
    const long m = 0, c = 0;
#endif
    is[0] = (uint64_t)st->st_dev;
    is[1] = (uint64_t)st->st_ino;
    is[2] = (uint64_t)st->st_size;
    is[3] = (uint64_t)st->st_mtime * 1000000000u + (uint64_t)m;
    is[4] = (uint64_t)st->st_ctime * 1000000000u + (uint64_t)c;
}

static uint64_t empm__file_scatter(uint64_t h) /* every bit by every bit */
{
    h = (h ^ h >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ h >> 27) * UINT64_C(0x94d049bb133111eb);
    return h ^ h >> 31;
}

/* The inode's number is a thing of ours, so it is not sent as it is. */
static void empm__file_tag(empm__file *f, int of)
{
    uint64_t h = 0;
    if (of & EMPM_ETAG_INODE)
        h = empm__file_scatter(f->stat_key[1] +
                               empm__file_scatter(f->stat_key[4]));
    if (of & EMPM_ETAG_MTIME)
        h = empm__file_scatter(h + f->stat_key[3]);
    f->tag[0] = '\0';
    if (of != 0)
        snprintf(f->tag, sizeof f->tag, "\"%llx-%llx\"",
                 (unsigned long long)(of & EMPM_ETAG_SIZE ? f->stat_key[2] : 0),
                 (unsigned long long)h);
}

/* Makes an answer's file of the open regular file `fd`, which it takes over;
 * NULL: errno says why. */
static empm__file *empm__file_make(const empm__worker *w, int fd,
                                   const struct stat *st, int root_fd,
                                   const char *path)
{
    const size_t n = strlen(path) + 1;
    const size_t small = st->st_size <= (off_t)EMPM__FILE_SMALL
                             ? (size_t)st->st_size : 0;
    const int64_t now = (int64_t)time(NULL);
    size_t got = 0;
    ssize_t r = 1;
    int at;
    empm__file *f = (empm__file *)EMPM_MALLOC(sizeof *f + n + small);
    if (f == NULL) {
        close(fd);
        errno = ENOMEM;
        return NULL;
    }
    f->refs = 1;
    f->fd = fd;
    f->pool = NULL;
    f->root_fd = root_fd;
    f->modified_s = (int64_t)st->st_mtime;
    if (f->modified_s > now)         /* RFC 9110 8.8.2.1 */
        f->modified_s = now;
    empm__file_identity(f->stat_key, st);
    f->path = (char *)(f + 1);
    memcpy(f->path, path, n);
    f->type = empm__types_of_name(w->s->types, path);
    empm__format_date(f->modified, f->modified_s);
    f->bytes = NULL;
    if (small > 0) {
        f->bytes = f->path + n;
        while (got < small && r != 0) {
            r = pread(fd, f->bytes + got, small - got, (off_t)got);
            if (r < 0 && errno == EINTR)
                continue;
            if (r < 0) {
                const int why = errno;
                empm__file_unref(f);
                errno = why;
                return NULL;
            }
            got += (size_t)r;
        }
        f->stat_key[2] = (uint64_t)got;    /* less in /sys, or if it shrinks */
        close(fd);
        f->fd = -1;
    }
    empm__file_tag(f, w->cfg->file_etag);
    at = snprintf(f->fields, sizeof f->fields, "%s%s%sLast-Modified: %s\r\n",
                  *f->tag ? "ETag: " : "", f->tag, *f->tag ? "\r\n" : "",
                  f->modified);
    f->validators = (uint16_t)at;
    at += snprintf(f->fields + at, sizeof f->fields - (size_t)at,
                   "Accept-Ranges: bytes\r\nContent-Type: %s\r\n", f->type);
    f->fields_len = (uint16_t)at;
    return f;
}

/* Returns the status for a file that cannot be opened or read. A fault that is
 * not the request's is logged. */
static int empm__file_status(empm_request *req, const char *path, int error)
{
    switch (error) {
    case EACCES:
    case EPERM:
        return 403;
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case EXDEV:                      /* it would leave the root */
    case ENXIO:                      /* a socket */
    case ENODEV:
        return 404;
    default:
        break;
    }
    empm__request_log(req, EMPM_LOG_ERROR, 5016, "%.300s: %s", path,
                      strerror(error));
    return error == EMFILE || error == ENFILE || error == ENOMEM ||
                   error == EAGAIN ? 503 : 500;
}

/* A file of /proc has bytes, whatever its size says, and no validators. They
 * are written as a handler would, at most LimitResponseSpool of them; n bytes
 * have been read already. Returns EMPM_OK or an error. */
static int empm__file_send_unsized(empm_request *req, int fd, const char *path,
                                   char *buf, size_t cap, ssize_t n)
{
    const int64_t most = req->w->cfg->limit_response_spool;
    int r = EMPM_OK;
    if (!req->has_type)
        r = empm_set_header(req, "Content-Type",
                            empm__types_of_name(req->w->s->types, path));
    while (n > 0 && r == EMPM_OK) {
        r = empm_write(req, buf, (size_t)n);
        if (r == EMPM_OK && req->written > most) {
            empm__response_fail(req, EMPM_EFULL, "a file without a size is "
                                "longer than "
                                                 "LimitResponseSpool");
            r = EMPM_EFULL;
        }
        do
            n = read(fd, buf, cap);
        while (n < 0 && errno == EINTR);
    }
    if (n < 0 && r == EMPM_OK) {
        empm__response_fail(req, EMPM_ESYS, "a file without a size cannot be "
                            "read");
        r = EMPM_ESYS;
    }
    if (r == EMPM_OK)
        req->declared = req->written;    /* that is all */
    return r;
}

/* Counts the descriptor of a new file, if it keeps one. 0: there are too many,
 * the caller has to let go of the file. */
static int empm__file_count(empm__worker *w, empm__file *f)
{
    f->pool = NULL;
    if (f->fd < 0)
        return 1;
    if (!empm__pool_fd_reserve(w, EMPM__FOR_ANSWERS))
        return 0;
    f->pool = &w->engine->pool;
    return 1;
}

/* Takes `fd` (negative: see errno) over. Returns a file for the answer, or NULL
 * and *status: 1: a directory; 0: it is answered already; else the status of
 * the answer. */
static empm__file *empm__file_take(empm_request *req, int fd, int root_fd,
                                   const char *path, struct stat *st,
                                   int *status)
{
    empm__file *f = NULL;
    char buf[4096];
    ssize_t n = 0;
    if (fd < 0 || fstat(fd, st) < 0)
        *status = empm__file_status(req, path, errno);
    else if (!S_ISREG(st->st_mode))
        *status = S_ISDIR(st->st_mode) ? 1 : 404;
    else if (st->st_size == 0 && (n = read(fd, buf, sizeof buf)) != 0) {
        if (n < 0)
            *status = empm__file_status(req, path, errno);
        else {
            n = empm__file_send_unsized(req, fd, path, buf, sizeof buf, n);
            *status = n == EMPM_OK ? 0 : 500;
        }
    } else {
        f = empm__file_make(req->w, fd, st, root_fd, path);
        fd = -1;
        if (f == NULL)
            *status = empm__file_status(req, path, errno);
        else if (!empm__file_count(req->w, f)) {
            empm__file_unref(f);
            f = NULL;
            *status = 503;
        }
    }
    if (fd >= 0)
        close(fd);
    return f;
}

struct empm__files {                   /* by a hash of the path */
    pthread_mutex_t lock;              /* guards the slots */
    empm__file    **slots;
    uint32_t        n;
    uint32_t        due_ms;            /* atomic: for the listener; or NEVER */
};
typedef struct empm__files empm__files;

static empm__file **empm__file_slot(empm__files *c, int root_fd,
                                    const char *path)
{
    uint32_t h = 2166136261u ^ (uint32_t)root_fd;
    for (; *path != '\0'; path++)
        h = (h ^ (unsigned char)*path) * 16777619u;
    return &c->slots[h % c->n];
}

/* Puts `f` into the slot, if `old` is still there: another worker may have been
 * faster. The file that has no slot then loses a reference. */
static void empm__file_swap(empm__files *c, empm__file **slot, empm__file *old,
                            empm__file *f)
{
    int same;
    pthread_mutex_lock(&c->lock);
    same = *slot == old;
    if (same)
        *slot = f;
    pthread_mutex_unlock(&c->lock);
    empm__file_unref(same ? old : f);
}

/* The listener closes files that no request has asked for lately. */
static void empm__files_expire(empm__files *c, uint32_t now_ms, int all)
{
    uint32_t i, due = EMPM__NEVER;
    empm__store(&c->due_ms, EMPM__NEVER);
    for (i = 0; i < c->n; i++) {
        empm__file *old = NULL;
        pthread_mutex_lock(&c->lock);
        if (c->slots[i] != NULL) {
            const uint32_t end = empm__time_after(
                empm__load(&c->slots[i]->used_at_ms), EMPM__FILE_KEEP_MS);
            if (all || empm__time_until(end, now_ms) <= 0) {
                old = c->slots[i];
                c->slots[i] = NULL;
            } else
                due = empm__time_earlier(due, end);
        }
        pthread_mutex_unlock(&c->lock);
        empm__file_unref(old);
    }
    if (due != EMPM__NEVER)
        empm__store(&c->due_ms, due);
}

/* Does its path still lead to `f`? The way there must stay below the root
 * as well: a directory on it may have become a symbolic link. */
static int empm__file_same(const empm__file *f)
{
    struct stat st;
    uint64_t is[5];
    int r = -1;
    if (strchr(f->path, '/') == NULL)    /* a link is another inode */
        r = fstatat(f->root_fd, f->path, &st, AT_SYMLINK_NOFOLLOW);
#ifdef EMPM__O_PATH
    else {
        const int fd = empm__file_open_beneath(f->root_fd, f->path,
                                               EMPM__O_PATH | O_CLOEXEC);
        if (fd >= 0) {
            r = fstat(fd, &st);
            close(fd);
        }
    }
#endif
    if (r < 0)
        return 0;
    empm__file_identity(is, &st);
    return memcmp(is, f->stat_key, sizeof is) == 0;
}

/* Opens the file `path` below root_fd, or finds it in the cache: a file that
 * has been opened before is asked only whether it is still the same one. Its
 * name, its inode and its times decide, so what has been written since is
 * served; one that has changed within the last seconds, whose times may not
 * tell, is not kept. NULL: *status as empm__file_take() has it. */
static empm__file *empm__file_open(empm_request *req, int root_fd,
                                   const char *path, int *status)
{
    empm__engine *e = req->w->engine;
    empm__files *c = e->files;
    empm__file *f = NULL, **slot = NULL;
    struct stat st;
    int fd;
    if (c->n > 0) {
        slot = empm__file_slot(c, root_fd, path);
        pthread_mutex_lock(&c->lock);
        if (*slot != NULL && (*slot)->root_fd == root_fd &&
            strcmp((*slot)->path, path) == 0) {
            f = *slot;
            __atomic_add_fetch(&f->refs, 1u, __ATOMIC_RELAXED);
        }
        pthread_mutex_unlock(&c->lock);
    }
    if (f != NULL) {
        if (empm__file_same(f)) {
            empm__store(&f->used_at_ms, req->w->now_ms);
            return f;
        }
        empm__file_swap(c, slot, f, NULL);
        empm__file_unref(f);
    }
    fd = empm__file_open_beneath(root_fd, path, EMPM__O_READ);
    f = empm__file_take(req, fd, root_fd, path, &st, status);
    if (f == NULL)
        return NULL;
    if (slot != NULL && f->stat_key[2] == (uint64_t)st.st_size &&
        st.st_size > 0) {
        const int64_t before = (int64_t)time(NULL) - EMPM__FILE_REST_S;
        if ((int64_t)st.st_mtime < before && (int64_t)st.st_ctime < before) {
            empm__file *old;
            f->used_at_ms = req->w->now_ms;
            f->refs = 2;
            pthread_mutex_lock(&c->lock);
            old = *slot;
            *slot = f;
            pthread_mutex_unlock(&c->lock);
            empm__file_unref(old);
            if (empm__load(&c->due_ms) == EMPM__NEVER) {
                empm__store(&c->due_ms, empm__time_after(f->used_at_ms,
                                                         EMPM__FILE_KEEP_MS));
                empm__poller_order(&e->poller, EMPM__ORDER_LOOK);
            }
        }
    }
    return f;
}

/* ---------------------------------------------------------------------------
 * >>multipart -- several ranges in one answer
 *
 * Several ranges are sent as multipart/byteranges, made page by page by a
 * producer, so that a slow reader holds one page.
 * ------------------------------------------------------------------------- */

/* RFC 9110 14.6: parts, each a head and a slice of the file, then an end. */
typedef struct empm__parts {
    empm__file *file;
    const char *type;                /* of each part */
    char        boundary[24];
    int         n, at;               /* at n: the end */
    int64_t     done;                /* of the part, with its head */
    empm__range of[EMPM_RANGES];
} empm__parts;

#define EMPM__PART_HEAD 384          /* room for one, with a type of ... */
#define EMPM__PART_TYPE 200

/* Writes the boundary and fields before part i, or for i = n the closing
 * boundary. Returns the length. */
static size_t empm__parts_head(char to[EMPM__PART_HEAD], const empm__parts *p,
                               int i)
{
    char range[96];
    if (i == p->n)
        return (size_t)snprintf(to, EMPM__PART_HEAD, "\r\n--%s--\r\n",
                                p->boundary);
    empm__range_content(range, sizeof range, &p->of[i],
                        (int64_t)p->file->stat_key[2]);
    return (size_t)snprintf(to, EMPM__PART_HEAD, "\r\n--%s\r\nContent-Type: %s"
                            "\r\nContent-Range: %s\r\n\r\n", p->boundary,
                            p->type, range);
}

static int64_t empm__parts_length(const empm__parts *p)
{
    char head[EMPM__PART_HEAD];
    int64_t sum = 0;
    int i;
    for (i = 0; i < p->n; i++)
        sum += (int64_t)empm__parts_head(head, p, i) +
               (p->of[i].to - p->of[i].from);
    return sum + (int64_t)empm__parts_head(head, p, i);
}

/* The next bytes of all that; an empm_producer. */
static long empm__parts_produce(empm_request *req, void *buf, size_t cap,
                                void *user)
{
    empm__parts *p = (empm__parts *)user;
    char head[EMPM__PART_HEAD], *to = (char *)buf;
    size_t made = 0;
    (void)req;
    while (made < cap && p->at <= p->n) {
        const int64_t n = (int64_t)empm__parts_head(head, p, p->at);
        const empm__range *r = &p->of[p->at % EMPM_RANGES];
        int64_t left = n - p->done;
        ssize_t got;
        if (left <= 0 && p->at < p->n)
            left += r->to - r->from;
        if (left <= 0) {
            p->at++;
            p->done = 0;
            continue;
        }
        if (left > (int64_t)(cap - made))
            left = (int64_t)(cap - made);
        got = (ssize_t)left;
        if (p->done < n)
            memcpy(to + made, head + p->done, (size_t)left);
        else if (p->file->bytes != NULL)
            memcpy(to + made, p->file->bytes + r->from + (p->done - n),
                   (size_t)left);
        else {
            got = pread(p->file->fd, to + made, (size_t)left,
                        (off_t)(r->from + (p->done - n)));
            if (got < 0 && errno == EINTR)
                continue;
            if (got <= 0)                /* 0: it has become shorter */
                return got < 0 ? EMPM_ESYS : EMPM_EINVAL;
        }
        made += (size_t)got;
        p->done += got;
    }
    return (long)made;
}

static void empm__parts_end(void *p)
{
    empm__file_unref(((empm__parts *)p)->file);
}

/* ---------------------------------------------------------------------------
 * >>files-serving -- from a path to an answer
 *
 * A small file travels with its head; a large one is a slice that sendfile()
 * empties. Folders, hidden names and all but regular files are 404.
 * ------------------------------------------------------------------------- */

/* The value of a field of the answer, as far as it fits into `to`; NULL: there
 * is none. */
static char *empm__parts_answer_field(const empm_request *req, const char *name,
                                      char *to, size_t cap)
{
    const size_t n = strlen(name);
    char *end, *at = empm__response_field_line(req, req->fields, name, n, &end);
    if (at == NULL)
        return NULL;
    at += n + 2;                     /* "name: value\r\n" */
    snprintf(to, cap, "%.*s", (int)(end - 2 - at), at);
    return to;
}

/* Parts for the n ranges, which take over the file; NULL, and they do not:
 * there is no memory, the content is coded, its type or itself too long. The
 * whole will do as well. */
static empm__parts *empm__parts_new(empm_request *req, empm__file *f,
                                    const empm__range *r, int n)
{
    empm__parts *p = (empm__parts *)empm_alloc(req, sizeof *p);
    char *type = (char *)empm_alloc(req, EMPM__PART_TYPE + 1);
    if (p == NULL || type == NULL ||
        empm__parts_answer_field(req, "Content-Encoding", type,
                                 EMPM__PART_TYPE + 1))
        return NULL;
    memset(p, 0, sizeof *p);
    memcpy(p->of, r, (size_t)n * sizeof *r);
    p->n = n;
    p->file = f;
    p->type = empm__parts_answer_field(req, "Content-Type", type,
                                       EMPM__PART_TYPE + 1);
    if (p->type == NULL)
        p->type = f->type;
    snprintf(p->boundary, sizeof p->boundary, "%016llx",
             (unsigned long long)empm__file_scatter(
                 empm__now_us() + empm__file_scatter((uint64_t)(uintptr_t)p)));
    if (strlen(p->type) == EMPM__PART_TYPE ||
        (int64_t)f->stat_key[2] >
            INT64_MAX - (EMPM_RANGES + 1) * EMPM__PART_HEAD ||
        empm_defer(req, empm__parts_end, p) != EMPM_OK)
        return NULL;
    return p;
}

/* Sets the fields that go with a verdict of empm__file_judge(). */
static int empm__file_fields(empm_request *req, const empm__file *f,
                             int verdict, const empm__range *r, int n,
                             const empm__parts *parts)
{
    char text[96];
    int bad = 0;
    if (verdict != 0) {              /* an answer without the file's content */
        empm__response_field_remove(req, "content-type", 12);
        req->has_type = 0;
    }
    if (req->fields_len == 0 && !req->has_type && parts == NULL &&
        (verdict == 0 || verdict == 304) && req->status / 100 == 2 &&
        (bad = empm__response_fields_reserve(req, f->fields_len)) == EMPM_OK) {
        memcpy(req->fields, f->fields, f->fields_len);   /* the usual case */
        req->fields_len = verdict == 0 ? f->fields_len : f->validators;
        req->has_type = verdict == 0;
    } else if (verdict == 0 || verdict == 304) {
        if (req->status / 100 == 2) {
            if (*f->tag != '\0')
                bad |= empm_set_header(req, "ETag", f->tag);
            bad |= empm_set_header(req, "Last-Modified", f->modified);
            if (verdict == 0)
                bad |= empm_set_header(req, "Accept-Ranges", "bytes");
        }
        snprintf(text, sizeof text, "multipart/byteranges; boundary=%s",
                 parts != NULL ? parts->boundary : "");
        if (parts != NULL)
            bad |= empm_set_header(req, "Content-Type", text);
        else if (verdict == 0 && !req->has_type)
            bad |= empm_set_header(req, "Content-Type", f->type);
    }
    if (verdict == 416 || n == 1) {
        empm__range_content(text, sizeof text, n == 1 ? r : NULL,
                            (int64_t)f->stat_key[2]);
        bad |= empm_set_header(req, "Content-Range", text);
    }
    return bad;
}

/* A small file travels with its head, in one send(). */
static int empm__file_inline(empm_request *req, const empm__file *f,
                             int64_t from, size_t n)
{
    empm__page *p = empm__response_body_room(req);
    if (p == NULL)
        return EMPM_ENOMEM;
    if (f->bytes != NULL)
        memcpy(empm__page_data(p) + p->end, f->bytes + from, n);
    else if (pread(f->fd, empm__page_data(p) + p->end, n, (off_t)from) !=
             (ssize_t)n)
        return EMPM_ESYS;
    p->end += (uint32_t)n;
    return EMPM_OK;
}

/* Makes the answer of req->file, now that its status is known. */
static int empm__file_answer(empm_request *req)
{
    empm__range r[EMPM_RANGES];
    empm__parts *parts = NULL;
    empm__file *f = req->file;
    int64_t from = 0, to = (int64_t)f->stat_key[2];
    int n, result = EMPM_OK, verdict = empm__file_judge(req, f, r, &n);
    req->file = NULL;                /* the reference is ours from here */
    req->source = NULL;
    /* that is ours to say */
    empm__response_field_remove(req, "content-range", 13);
    if (n > 1 && (parts = empm__parts_new(req, f, r, n)) == NULL)
        n = 0;
    if (verdict >= 400)
        empm__response_status_text(req, verdict);
    if (empm__file_fields(req, f, verdict, r, n, parts) < 0) {
        empm__response_complain(req, "no room for the fields of a file");
        empm__response_status_text(req, verdict = 500);
    }
    if (verdict == 304)
        req->status = 304;
    if (verdict == 0 && n > 0)
        req->status = 206;
    if (parts != NULL) {             /* the reference is theirs */
        if (verdict == 0) {
            req->producer = empm__parts_produce;
            req->producer_user = parts;
            req->declared = empm__parts_length(parts);
        }
        return EMPM_OK;
    }
    if (n == 1) {
        from = r->from;
        to = r->to;
    }
    if (verdict == 0) {
        const int silent = empm__response_is_bodiless(req, req->status);
        const int small = !silent && to - from <= (int64_t)EMPM__FILE_SMALL;
        req->declared = req->written = to - from;
        if (small)
            result = empm__file_inline(req, f, from, (size_t)(to - from));
        if (result == EMPM_OK)
            result = empm__response_commit(req, 0);
        if (result == EMPM_OK && !silent && !small) {
            empm__io_slice(&req->io, f, from, to);
            return EMPM_OK;          /* the reference is the queue's */
        }
    }
    empm__file_unref(f);
    return result;
}

/* The file, whose reference is taken over, will be the answer. */
static int empm__file_send(empm_request *req, empm__file *f)
{
    empm__request_answered(req, EMPM__PROMISED);
    req->file = f;
    req->source = empm__file_answer;
    return EMPM_OK;
}

EMPM_API int empm_send_file(empm_request *req, const char *path)
{
    struct stat st;
    empm__file *f;
    int r = path == NULL ? EMPM_EINVAL : empm__response_may_write(req);
    if (r < 0)
        return r;
    if (!empm__request_head_is_open(req) || req->written > 0) {
        empm__response_complain(req, "empm_send_file() after the body has "
                                "begun");
        return EMPM_EMISUSE;
    }
    f = empm__file_take(req, open(path, EMPM__O_READ), -1, path, &st, &r);
    if (f == NULL)
        return r == 0   ? EMPM_OK
             : r < 500  ? EMPM_EINVAL
             : r == 503 ? EMPM_EFULL : EMPM_ESYS;
    return empm__file_send(req, f);
}

/* The handler of EMPM_FILES. */
static int empm__files_serve(empm_request *req, void *user)
{
    const empm__route *r = req->route;
    const int first = r->nsegs - 1;
    const char *m = empm_method(req);
    const uint32_t sent = req->head.spans[EMPM__PART_PATH].len;
    char *path = (char *)empm_alloc(req, sent + 16), *at = path;
    empm__file *f;
    int i, is_dir = 0, status;
    (void)user;
    if (r->root_fd < 0)              /* the folder is not there */
        return 404;
    if (path == NULL)
        return 503;
    if (strcmp(m, "GET") != 0 && strcmp(m, "HEAD") != 0) {
        empm_set_header(req, "Allow", "GET, HEAD, OPTIONS");
        return strcmp(m, "OPTIONS") == 0 ? empm_status(req, 200) : 405;
    }
    for (i = first; i < req->path.n; i++) {
        const char *seg = req->path.seg[i];
        const size_t n = req->path.len[i];
        if (n == 0 && i == req->path.n - 1) {
            is_dir = 1;
            break;
        }
        if (n == 0 || memchr(seg, '/', n) != NULL ||
            memchr(seg, '\\', n) != NULL ||
            (seg[0] == '.' && strcmp(seg, ".well-known") != 0))
            return 404;
        at = empm__text_append(at, seg, n);
        *at++ = '/';
    }
    if (is_dir)
        at = EMPM__ADD(at, "index.html");
    else
        at--;                        /* its last slash; there is a segment */
    *at = '\0';
    f = empm__file_open(req, r->root_fd, path, &status);
    if (f == NULL)
        return status != 1 ? status : is_dir
               ? 404 : empm__dispatch_slash_redirect(req);
    return empm__file_send(req, f);
}

/* The handler of EMPM_FILES_ELSE. */
static int empm__files_serve_else(empm_request *req, void *user)
{
    const int status = empm__files_serve(req, user);
    return status == 404 ? req->route->user->handler(req, user) : status;
}

/* --- the wing ------------------------------------------------------------- */

static void empm__files_check(const empm_config *cfg, const empm__chars *chars,
                              empm__report *rep)
{
    struct empm__types *types;
    struct stat st;
    char path[1200];
    size_t i;
    for (i = 0; cfg->routes != NULL && cfg->routes[i].kind != EMPM__ROUTE_END;
         i++) {
        const char *dir = cfg->routes[i].root;
        if (cfg->routes[i].kind != EMPM__ROUTE_FILES)
            continue;
        dir = dir != NULL ? dir : empm__config_path(cfg, cfg->document_root,
                                                    path, sizeof path);
        /* as with Apache, a warning: the other routes can be served */
        errno = ENOTDIR;
        if (stat(dir, &st) < 0 || !S_ISDIR(st.st_mode))
            empm__report_say(rep, empm__config_correction_level(cfg), 112,
                             "%s%s %s: %s: its files are 404 until it is there "
                             "at a start", dir == cfg->routes[i].root
                             ? cfg->routes[i].pattern : "",
                             dir == cfg->routes[i].root ? ": the folder"
                                                        : "DocumentRoot",
                             dir, strerror(errno));
    }
    if (empm__types_new(&types, cfg, chars, rep) == EMPM_OK)
        EMPM_FREE(types);
}

/* Opens the folder of each route that serves files. One that is not there has
 * been warned of, and is 404. */
static int empm__files_server_new(empm_server *s, const empm_server *old,
                            empm__report *rep)
{
    char path[1200];
    uint32_t i;
    (void)old;
    for (i = 0; i < s->routes.n; i++) {
        empm__route *route = &s->routes.list[i];
        const char *dir = route->user->root;
        if (route->user->kind != EMPM__ROUTE_FILES)
            continue;
        if (dir == NULL)
            dir = empm__config_path(s->cfg, s->cfg->document_root, path,
                                    sizeof path);
        route->handler = route->user->handler != NULL ? empm__files_serve_else
                                                      : empm__files_serve;
        route->root_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (route->root_fd < 0 && errno != ENOENT && errno != ENOTDIR) {
            empm__report_say(rep, EMPM_LOG_ERROR, 5106, "%s: cannot open its "
                             "folder %s: %s", route->user->pattern, dir,
                             strerror(errno));
            return EMPM_ESYS;
        }
    }
    return empm__types_new(&s->types, s->cfg, &s->chars, rep);
}

static void empm__files_server_free(empm_server *s)
{
    EMPM_FREE(s->types);
}

static int empm__files_engine_new(empm__engine *e)
{
    const uint32_t n = (uint32_t)empm__min((size_t)e->cfg->open_file_cache,
                                           (size_t)e->pool.files_most / 4);
    empm__files *c = (empm__files *)EMPM_MALLOC(sizeof *c +
                                                n * sizeof *c->slots);
    if (c == NULL)
        return EMPM_ENOMEM;
    pthread_mutex_init(&c->lock, NULL);
    c->slots = (empm__file **)(void *)(c + 1);
    c->n = n;
    c->due_ms = EMPM__NEVER;
    memset(c->slots, 0, n * sizeof *c->slots);
    e->files = c;
    return EMPM_OK;
}

static void empm__files_engine_free(empm__engine *e)
{
    if (e->files == NULL)
        return;
    empm__files_expire(e->files, 0, 1);
    pthread_mutex_destroy(&e->files->lock);
    EMPM_FREE(e->files);
    e->files = NULL;
}

static uint32_t empm__files_expire_at(empm__engine *e)
{
    return empm__load(&e->files->due_ms);
}

static void empm__files_expire_some(empm__engine *e, uint32_t now_ms)
{
    empm__files_expire(e->files, now_ms, 0);
}

static const empm__wing empm__files_wing = {
    empm__files_check, empm__files_server_new, empm__files_server_free,
    empm__files_engine_new, empm__files_engine_free, empm__files_expire_at,
    empm__files_expire_some, NULL, NULL, NULL, NULL, NULL, NULL
};

#else

static void empm__files_check(const empm_config *cfg, const empm__chars *chars,
                              empm__report *rep)
{
    size_t i;
    (void)chars;
    for (i = 0; cfg->routes != NULL && cfg->routes[i].kind != EMPM__ROUTE_END;
         i++)
        if (cfg->routes[i].kind == EMPM__ROUTE_FILES)
            empm__report_say(rep, EMPM_LOG_ERROR, 5105, "route \"%s\": built "
                             "without files", cfg->routes[i].pattern);
}

static const empm__wing empm__files_wing = {
    empm__files_check,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
};

#endif /* EVENTMPM_NO_FILES */

/* ---------------------------------------------------------------------------
 * >>health -- may a balancer send more?
 * ------------------------------------------------------------------------- */

/* Does a child take new connections? Only a child for admin listeners has to
 * ask: any other one that is asked does so itself, or leaves and has a
 * successor. */
static int empm__health_is_served(const empm_server *s)
{
    const uint32_t n = empm__load(&empm__score_server_at(&s->score)->top);
    uint32_t i;
    for (i = 0; i < n && i < (uint32_t)s->score.slots; i++) {
        const empm__score_slot *at = empm__score_slot_at(&s->score, (int)i);
        if (empm__load(&at->pid) != 0 && !empm__load(&at->admin) &&
            !empm__load(&at->leaving) &&
            empm__load(&empm__score_at(&s->score, (int)i)->healthy) &&
            !(empm__load(&empm__score_at(&s->score, (int)i)->paused) &
              EMPM__PAUSE_NEW))
            return 1;
    }
    return s->parent_fd < 0 || !s->engine.admin;
}

EMPM_API int empm_health_page(empm_request *req, void *user)
{
    empm_server *s = req->w->s;
    (void)user;
    empm_note(req, "health", "1");
    empm_set_header(req, "Cache-Control", "no-store");
    if (!empm__health_is_served(s)) {
        empm_status(req, 503);
        return empm_write(req, "no child serves\n", 16);
    }
    /* a child may leave and the server stay, unless there is no parent */
    if (!empm__load(&empm__score_server_at(&s->score)->draining) &&
        (s->parent_fd >= 0 || !empm__load(&s->engine.stopping)))
        return empm_write(req, "OK\n", 3);
    empm_status(req, 503);           /* no Retry-After: it will not be back */
    return empm_write(req, "draining\n", 9);
}

/* ---------------------------------------------------------------------------
 * >>status -- the scoreboard for people and for programs
 *
 * A snapshot is a copy of the scoreboard in memory of the request, and four
 * writers show it in their formats, so a page agrees with itself. The areas of
 * the scoreboard belong to processes that may have gone mad: numbers from there
 * are clamped, texts end with NUL, and both are only shown. Numbers never pass
 * through printf's %f or %g, which are a matter of locale.
 *
 * source    Apache's mod_status for ?auto, whose readers want each line as it
 *           is; Prometheus' text format 0.0.4; RFC 8259 (JSON)
 * ------------------------------------------------------------------------- */

#ifndef EVENTMPM_NO_STATUS

/* Microseconds of processor time that a process has used: user, system, and
 * the same of children that it has waited for. 0 if the system tells none. */
static void empm__process_cpu_us(pid_t pid, uint64_t us[4])
{
    memset(us, 0, 4 * sizeof *us);
    if (pid == getpid()) {
        struct rusage r[2];
        int i;
        getrusage(RUSAGE_SELF, &r[0]);
        getrusage(RUSAGE_CHILDREN, &r[1]);
        for (i = 0; i < 4; i++) {
            const struct timeval *t = i % 2 == 0 ? &r[i / 2].ru_utime
                                                 : &r[i / 2].ru_stime;
            us[i] = (uint64_t)t->tv_sec * 1000000u + (uint64_t)t->tv_usec;
        }
    }
#if defined(__linux__)
    else {
        char text[512], *at;
        unsigned long ticks[4];
        const uint64_t tick_us = 1000000u / (uint64_t)sysconf(_SC_CLK_TCK);
        char path[64];
        int i;
        snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
        empm__text_of_file(path, text, sizeof text);
        at = strrchr(text, ')');     /* the name before it may be anything */
        if (at != NULL &&
            sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u "
                   "%lu %lu %lu %lu", ticks, ticks + 1, ticks + 2,
                   ticks + 3) == 4)
            for (i = 0; i < 4; i++)
                us[i] = ticks[i] * tick_us;
    }
#endif
}

/* Occupations of a worker: places in by_letter, in order. */
enum { EMPM__SEEN_IDLE, EMPM__SEEN_STARTING, EMPM__SEEN_READING,
       EMPM__SEEN_WORKING, EMPM__SEEN_KEEPALIVE, EMPM__SEEN_CLOSING,
       EMPM__SEEN_GRACEFUL, EMPM__LETTERS };
static const char empm__worker_letters[] = "_SRWKCG";
static const char *const empm__worker_states[EMPM__LETTERS] = {
    "idle", "starting", "reading", "working", "keepalive", "closing", "graceful"
};

#define EMPM__LLU(n) ((unsigned long long)(n))

typedef struct empm__snapshot_worker {
    int      child, number;            /* child: its place in the list */
    char     letter, doing;            /* letter: the one to show, G perhaps */
    uint64_t accesses, accesses_child; /* of the slot, of this child */
    uint64_t bytes, duration_us, since_us;
    uint32_t took_us, of_connection;
    char     client[64];
    char     request[EMPM__SCORE_REQUEST + 1], host[EMPM__SCORE_HOST + 1];
} empm__snapshot_worker;

typedef struct empm__snapshot_child {  /* or all of them */
    int      slot, leaving, first;     /* first: of its workers, in the list */
    uint32_t pid, generation;
    uint64_t paused, connections, queued, nworkers;
    uint64_t by_state[EMPM__STATES], by_letter[EMPM__LETTERS];
} empm__snapshot_child;

#define EMPM__SNAPSHOT_TOTAL(type, field, name, key, is_time, help) \
    uint64_t field;

typedef struct empm__snapshot {
    char     name[256];
    int      slots, nchildren;         /* slots: that the limits allow */
    uint64_t now_s, started_s, restarted_s, uptime_us;
    uint64_t generation, reloads, failed_reloads, died;
    uint64_t serving, stopping;        /* children */
    uint64_t wait_us, load_percent[3], cpu_us[4], cpu_all_us;
    EMPM__COUNTER_LIST(EMPM__SNAPSHOT_TOTAL, EMPM__SNAPSHOT_TOTAL)
    empm__snapshot_child   all, *children;
    empm__snapshot_worker *workers;    /* all.nworkers */
} empm__snapshot;

/* Of all processes: the parent's own, then its children's, dead or alive. None
 * goes back when a child dies and its time becomes the parent's, so look again
 * if one does just now. */
static void empm__snapshot_cpu(const empm_server *s, empm__snapshot *seen)
{
    const pid_t parent = s->parent_fd >= 0 ? getppid() : getpid();
    uint64_t before[4], of[4], *all = seen->cpu_us;
    int i, k, again = 3;
    empm__process_cpu_us(parent, of);
    do {
        memcpy(all, of, sizeof of);
        memcpy(before, of, sizeof of);
        for (i = 0; s->parent_fd >= 0 && i < s->score.slots; i++) {
            const uint32_t pid =
                empm__load(&empm__score_slot_at(&s->score, i)->pid);
            if (pid == 0)
                continue;
            empm__process_cpu_us((pid_t)pid, of);
            for (k = 0; k < 4; k++)
                all[2 + k % 2] += of[k];
        }
        empm__process_cpu_us(parent, of);
    } while (memcmp(of + 2, before + 2, 2 * sizeof *of) != 0 && again-- > 0);
    for (k = 0; k < 4; k++)
        seen->cpu_all_us += all[k];
}

/* Copies a worker's figures. They are read one by one while it works, so they
 * may be of two requests. */
static void empm__snapshot_worker_take(const empm__score_worker *w,
                                       uint64_t now_us,
                                       empm__snapshot_worker *to)
{
    const uint64_t began = empm__load(&w->began_us);
    empm__peer client;
    to->accesses = empm__load(&w->accesses);
    to->accesses_child = to->accesses - empm__load(&w->accesses_before);
    to->bytes = empm__load(&w->bytes);
    to->duration_us = empm__load(&w->duration_us);
    to->took_us = empm__load(&w->took_us);
    to->of_connection = empm__load(&w->of_connection);
    to->since_us = began != 0 && began < now_us ? now_us - began : 0;
    empm__score_load_text(&client, w->client, sizeof client);
    empm__peer_text(&client, 0, to->client, sizeof to->client);
    empm__score_load_text(to->host, w->host, EMPM__SCORE_HOST);
    to->host[EMPM__SCORE_HOST] = '\0';
    empm__score_request_line(w, to->request);
}

/* Copies a child's figures and those of its workers. A state's connections are
 * a sum of differences: each worker counts those that it has parked, the
 * listener those that it has taken from there. */
static void empm__snapshot_child_take(const empm_server *s,
                                      empm__snapshot *seen,
                                      empm__snapshot_child *to)
{
    const empm__score_child *ch = empm__score_at(&s->score, to->slot);
    const uint64_t now_us = empm__now_us();
    uint32_t by_state[EMPM__STATES];
    int t, k;
    to->leaving |= empm__load(&ch->stopping) != 0;
    to->paused = (empm__load(&ch->paused) & ~(uint32_t)EMPM__PAUSE_TURN) != 0;
    to->connections = empm__load(&ch->connections);
    to->queued = empm__load(&ch->queued);
    to->first = (int)seen->all.nworkers;
    if (to->queued > 0) {
        const int32_t ms = empm__time_until(empm__time_us_to_ms(now_us),
                                            empm__load(&ch->waits_since_ms));
        if (ms > 0 && (uint64_t)ms * 1000u > seen->wait_us)
            seen->wait_us = (uint64_t)ms * 1000u;
    }
    for (k = 0; k < EMPM__STATES; k++)
        by_state[k] = 0u - empm__load(&ch->unparked[k]);
    by_state[EMPM__READ_HEAD] += empm__load(&ch->created);
    for (t = 0; t < s->score.threads; t++) {
        const empm__score_worker *w =
            empm__score_worker_at(&s->score, to->slot, t);
        const char letter = (char)empm__load(&w->status);
        const char *at = letter != '\0' ? strchr(empm__worker_letters, letter)
                                        : NULL;
        empm__snapshot_worker *sw = &seen->workers[seen->all.nworkers];
        for (k = 0; k < EMPM__STATES; k++)
            by_state[k] += empm__load(&w->parked[k]);
        if (at == NULL && t >= s->cfg->threads_per_child)
            continue;
        memset(sw, 0, sizeof *sw);
        empm__snapshot_worker_take(w, now_us, sw);
        sw->child = seen->nchildren;
        sw->number = t;
        sw->doing = at != NULL ? letter : '.';
        if (at != NULL && to->leaving)
            at = &empm__worker_letters[EMPM__SEEN_GRACEFUL];
        if (at != NULL)
            to->by_letter[at - empm__worker_letters]++;
        sw->letter = at != NULL ? *at : '.';
        to->nworkers++;
        seen->all.nworkers++;
    }
    /* differences of counters that others write meanwhile */
    for (k = 0; k < EMPM__STATES; k++)
        to->by_state[k] = (int32_t)by_state[k] > 0 ? by_state[k] : 0;
}

/* Adds the totals of a slot. They stay there from one child to the next (those
 * for admin listeners, too), so a sum never goes back. */
static void empm__snapshot_totals(const empm_server *s, empm__snapshot *seen,
                                  int slot)
{
    const empm__score_child *of = empm__score_at(&s->score, slot);
    int t;
#define EMPM__ADD_TOTAL(type, field, name, key, is_time, help) \
    seen->field += empm__load(&of->field);
#define EMPM__ADD_WORKER(type, field, name, key, is_time, help) \
    seen->field += empm__load(&of_worker->field);
    EMPM__COUNTER_LIST(EMPM__ADD_TOTAL, EMPM__COUNTER_NONE)
    if (empm__load(&of->accepted) == 0)
        return;
    for (t = 0; t < s->score.threads; t++) {
        const empm__score_worker *of_worker =
            empm__score_worker_at(&s->score, slot, t);
        EMPM__COUNTER_LIST(EMPM__COUNTER_NONE, EMPM__ADD_WORKER)
    }
#undef EMPM__ADD_TOTAL
#undef EMPM__ADD_WORKER
}

/* Makes room for n children in memory of the request's, or returns NULL. */
static empm__snapshot *empm__snapshot_new(empm_request *req, size_t n)
{
    const size_t threads = (size_t)req->w->s->score.threads;
    empm__snapshot *seen = (empm__snapshot *)empm_alloc(req, sizeof *seen);
    if (seen == NULL)
        return NULL;
    memset(seen, 0, sizeof *seen);
    seen->children = (empm__snapshot_child *)empm_alloc(
        req, (n + 1) * sizeof *seen->children);
    seen->workers = (empm__snapshot_worker *)empm_alloc(
        req, (n * threads + 1) * sizeof *seen->workers);
    return seen->children != NULL && seen->workers != NULL ? seen : NULL;
}

/* Fills in the facts of the server and its host, all but the children. */
static void empm__snapshot_server_take(const empm_server *s,
                                       empm__snapshot *seen)
{
    const empm_config *cfg = s->cfg;
    const empm__score_server *sv = empm__score_server_at(&s->score);
    double load[3];
    int k;
    empm__log_name_alone(cfg, seen->name, sizeof seen->name);
    seen->now_s = (uint64_t)time(NULL);
    seen->started_s = (uint64_t)sv->started_s;
    seen->restarted_s = (uint64_t)sv->restarted_s;
    seen->uptime_us = empm__now_us() - sv->started_us;
    seen->generation = empm__load(&sv->generation);
    seen->reloads = empm__load(&sv->reloads);
    seen->failed_reloads = empm__load(&sv->failed_reloads);
    seen->died = empm__load(&sv->died);
    seen->slots = s->parent_fd < 0 ? 1 : cfg->processes > 0
                      ? cfg->processes
                      : cfg->max_request_workers / cfg->threads_per_child;
    if (getloadavg(load, 3) == 3)
        for (k = 0; k < 3; k++)
            seen->load_percent[k] = (uint64_t)(load[k] * 100 + 0.5);
}

/* Adds a child to the sum of all. */
static void empm__snapshot_add(empm__snapshot *seen,
                               const empm__snapshot_child *ch)
{
    int k;
    *(ch->leaving ? &seen->stopping : &seen->serving) += 1;
    seen->all.paused += ch->paused;
    seen->all.connections += ch->connections;
    seen->all.queued += ch->queued;
    for (k = 0; k < EMPM__STATES; k++)
        seen->all.by_state[k] += ch->by_state[k];
    for (k = 0; k < EMPM__LETTERS; k++)
        seen->all.by_letter[k] += ch->by_letter[k];
}

/* Returns a look at everything, in memory of the request's, or NULL: there is
 * none. Children may start or end meanwhile: one that has no room by now is
 * seen the next time, but its totals count. */
static empm__snapshot *empm__snapshot_take(empm_request *req)
{
    const empm_server *s = req->w->s;
    empm__snapshot *seen;
    size_t n = 0;
    int slot;
    for (slot = 0; slot < s->score.slots; slot++)
        n += empm__load(&empm__score_slot_at(&s->score, slot)->pid) != 0;
    if ((seen = empm__snapshot_new(req, n)) == NULL)
        return NULL;
    empm__snapshot_server_take(s, seen);
    for (slot = 0; slot < s->score.slots; slot++) {
        const empm__score_slot *at = empm__score_slot_at(&s->score, slot);
        empm__snapshot_child *to = &seen->children[seen->nchildren];
        if (!empm__load(&at->used))
            continue;                /* its memory would come into being */
        empm__snapshot_totals(s, seen, slot);
        if (empm__load(&at->pid) == 0 || empm__load(&at->admin) ||
            seen->nchildren == (int)n)
            continue;
        memset(to, 0, sizeof *to);
        to->slot = slot;
        to->pid = empm__load(&at->pid);
        to->generation = empm__load(&at->generation);
        to->leaving = empm__load(&at->leaving) != 0;
        empm__snapshot_child_take(s, seen, to);
        empm__snapshot_add(seen, to);
        seen->nchildren++;
    }
    empm__snapshot_cpu(s, seen);
    return seen;
}

/* Returns the number of workers that have a connection. Those of a child that
 * leaves are no longer counted: they are "graceful". */
static uint64_t empm__snapshot_busy(const empm__snapshot_child *ch)
{
    uint64_t n = 0;
    int k;
    for (k = EMPM__SEEN_READING; k <= EMPM__SEEN_CLOSING; k++)
        n += ch->by_letter[k];
    return n;
}

/* a / b with so many decimals; 0 if b is. */
static const char *empm__status_quotient(char to[40], uint64_t a, uint64_t b,
                                         int digits)
{
    static const unsigned ten[] = { 1, 10, 100, 1000, 10000, 100000, 1000000 };
    if (b == 0) {
        a = 0;
        b = 1;
    }
    snprintf(to, 40, digits > 0 ? "%llu.%0*llu" : "%llu",
             EMPM__LLU(a / b), digits, EMPM__LLU(a % b * ten[digits] / b));
    return to;
}

/* Text that came from a client, or from a scoreboard that anything has written
 * to, in a JSON string or in HTML. Bytes above ASCII may be no UTF-8. */
static void empm__status_show_text(empm_request *req, const char *s, int json)
{
    const char *from = s;
    char code[16];
    for (;; s++) {
        const unsigned ch = (unsigned char)*s;
        if (ch >= 32 && ch < 127 && strchr("\"\\<>&'", (int)ch) == NULL)
            continue;
        empm_write(req, from, (size_t)(s - from));
        if (ch == 0)
            return;
        if (json)
            empm_printf(req, "\\u%04x", ch);
        else {
            snprintf(code, sizeof code, ch < 32 || ch > 126 ? "\\x%02x"
                                                            : "&#%u;",
                     ch);
            empm_write(req, code, strlen(code));
        }
        from = s + 1;
    }
}

/* ---------------------------------------------------------------------------
 * >>metrics -- ?json, ?prometheus and ?auto
 *
 * One table has a row for each figure. ?auto begins with the lines of Apache's
 * mod_status, in its order, since programs read them.
 * ------------------------------------------------------------------------- */

typedef struct empm__metric {
    const char *name, *label, *value;  /* as in name{label="value"} */
    const char *key;                   /* in ?auto, or NULL */
    int         counter, seconds;      /* seconds: kept in microseconds */
    size_t      offset;
    const char *help;                  /* of the first with this name */
} empm__metric;

#define EMPM__GAUGE(name, key, field, help) \
    { name, NULL, NULL, key, 0, 0, offsetof(empm__snapshot, field), help }
#define EMPM__COUNTER(name, key, field, help) \
    { name, NULL, NULL, key, 1, 0, offsetof(empm__snapshot, field), help }
#define EMPM__SECONDS(name, key, field, help) \
    { name, NULL, NULL, key, 0, 1, offsetof(empm__snapshot, field), help }
#define EMPM__COUNTER_ROW(type, field, name, key, is_time, help) \
    { name, NULL, NULL, key, 1, is_time, offsetof(empm__snapshot, field), \
      help },
#define EMPM__WORKERS(value, k, help) \
    { "workers", "state", value, NULL, 0, 0, \
      offsetof(empm__snapshot, all.by_letter[k]), help }
#define EMPM__CONNS(name, letter, column, label, key) \
    { "connections", "state", label, key, 0, 0, \
      offsetof(empm__snapshot, all.by_state[EMPM__##name]), \
      "Connections that wait without a worker, by what for" },
#define EMPM__NO_CONNS(name, letter)
#define EMPM__CPU(value, k, help) \
    { "cpu_seconds_total", "mode", value, NULL, 1, 1, \
      offsetof(empm__snapshot, cpu_us[k]), help }

static const empm__metric empm__metrics[] = {
    EMPM__GAUGE("start_time_seconds", NULL, started_s,
                "When the server was started, Unix time"),
    EMPM__SECONDS("uptime_seconds", NULL, uptime_us, "Time since then"),
    EMPM__GAUGE("generation", NULL, generation, "Of the children that serve"),
    EMPM__COUNTER("reloads_total", "Reloads", reloads,
                  "Configurations that were taken over"),
    EMPM__COUNTER("failed_reloads_total", "ReloadsFailed", failed_reloads,
                  "Configurations that were refused"),
    { "children", "state", "serving", NULL, 0, 0, offsetof(empm__snapshot,
                                                           serving),
      "Processes that serve, by state" },
    { "children", "state", "stopping", NULL, 0, 0,
      offsetof(empm__snapshot, stopping), NULL },
    EMPM__GAUGE("children_not_accepting", "ChildrenNotAccepting", all.paused,
                "Children that do not accept just now"),
    EMPM__COUNTER("children_died_total", "ChildrenDied", died,
                  "Children that ended unasked"),
    EMPM__WORKERS("idle", EMPM__SEEN_IDLE, "Worker threads by what they do"),
    EMPM__WORKERS("starting", EMPM__SEEN_STARTING, NULL),
    EMPM__WORKERS("reading", EMPM__SEEN_READING, NULL),
    EMPM__WORKERS("working", EMPM__SEEN_WORKING, NULL),
    EMPM__WORKERS("keepalive", EMPM__SEEN_KEEPALIVE, NULL),
    EMPM__WORKERS("closing", EMPM__SEEN_CLOSING, NULL),
    EMPM__WORKERS("graceful", EMPM__SEEN_GRACEFUL, NULL),
    EMPM__GAUGE("open_connections", NULL, all.connections, "Open connections"),
    EMPM__STATE_LIST(EMPM__CONNS, EMPM__NO_CONNS)
    EMPM__GAUGE("queue_length", "QueueLength", all.queued,
                "Connections that are ready and wait for a worker"),
    EMPM__SECONDS("queue_wait_seconds", "QueueWait", wait_us,
                  "How long the oldest of them has waited, about"),
    EMPM__COUNTER_LIST(EMPM__COUNTER_ROW, EMPM__COUNTER_ROW)
    EMPM__CPU("user", 0, "Processor time: of the parent, or of all if there is "
              "none, and of its children"),
    EMPM__CPU("system", 1, NULL), EMPM__CPU("children_user", 2, NULL),
    EMPM__CPU("children_system", 3, NULL)
};

/* Returns the value of a figure as text, kept in `to`: a count, or seconds with
 * six decimals. */
static const char *empm__metric_text(const empm__snapshot *seen,
                                     const empm__metric *f, char to[40])
{
    uint64_t v;
    memcpy(&v, (const char *)seen + f->offset, sizeof v);
    if (f->seconds)
        return empm__status_quotient(to, v, 1000000u, 6);
    to[empm__format_u64(to, v)] = '\0';
    return to;
}

/* Rows of one name are neighbours, since HELP and TYPE stand once before all
 * samples of a name. */
static void empm__status_show_prometheus(empm_request *req,
                                         const empm__snapshot *seen)
{
    const char *before = "";
    char text[40];
    size_t i;
    empm_set_header(req, "Content-Type",
                    "text/plain; version=0.0.4; charset=utf-8");
    empm_printf(req, "# HELP eventmpm_info The version\n"
                "# TYPE eventmpm_info gauge\n"
                "eventmpm_info{version=\"%s\"} 1\n", EMPM_VERSION);
    for (i = 0; i < EMPM__COUNT(empm__metrics); i++) {
        const empm__metric *f = &empm__metrics[i];
        if (strcmp(f->name, before) != 0)
            empm_printf(req, "# HELP eventmpm_%s %s\n# TYPE eventmpm_%s %s\n",
                        f->name, f->help, f->name,
                        f->counter ? "counter" : "gauge");
        before = f->name;
        empm_printf(req, "eventmpm_%s", f->name);
        if (f->label != NULL)
            empm_printf(req, "{%s=\"%s\"}", f->label, f->value);
        empm_printf(req, " %s\n", empm__metric_text(seen, f, text));
    }
}

/* An object for each child, those that leave included. */
static void empm__status_show_json_children(empm_request *req,
                                            const empm__snapshot *seen)
{
    size_t i;
    int k;
    for (k = 0; k < seen->nchildren; k++) {
        const empm__snapshot_child *ch = &seen->children[k];
        empm_printf(req, "%s\n{\"slot\":%d,\"pid\":%u,\"generation\":%u,"
                    "\"stopping\":%s,\"accepting\":%s,"
                    "\"open_connections\":%llu,\"queue_length\":%llu,"
                    "\"workers\":{", k > 0 ? "," : "",
                    ch->slot, ch->pid, ch->generation,
                    ch->leaving ? "true" : "false",
                    ch->paused || ch->leaving ? "false" : "true",
                    EMPM__LLU(ch->connections), EMPM__LLU(ch->queued));
        for (i = 0; i < EMPM__LETTERS; i++)
            empm_printf(req, "%s\"%s\":%llu", i > 0 ? "," : "",
                        empm__worker_states[i], EMPM__LLU(ch->by_letter[i]));
        empm_printf(req, "}}");
    }
}

/* Each worker and its request, in hand or the last one. Host, request and
 * client come from outside and are escaped. */
static void empm__status_show_json_workers(empm_request *req,
                                           const empm__snapshot *seen)
{
    char text[40];
    size_t i;
    for (i = 0; i < seen->all.nworkers; i++) {
        const empm__snapshot_worker *w = &seen->workers[i];
        empm_printf(req, "%s\n{\"slot\":%d,\"number\":%d,\"state\":\"%c\","
                    "\"accesses\":%llu,\"accesses_child\":%llu,"
                    "\"accesses_connection\":%u,\"sent_bytes\":%llu",
                    i > 0 ? "," : "", seen->children[w->child].slot, w->number,
                    w->letter, EMPM__LLU(w->accesses),
                    EMPM__LLU(w->accesses_child), w->of_connection,
                    EMPM__LLU(w->bytes));
        empm_printf(req, ",\"since_seconds\":%s",
                    empm__status_quotient(text, w->since_us, 1000000u, 6));
        empm_printf(req, ",\"last_request_seconds\":%s",
                    empm__status_quotient(text, w->took_us, 1000000u, 6));
        empm_printf(req, ",\"request_seconds\":%s,\"client\":\"",
                    empm__status_quotient(text, w->duration_us, 1000000u, 6));
        empm__status_show_text(req, w->client, 1);
        empm_printf(req, "\",\"host\":\"");
        empm__status_show_text(req, w->host, 1);
        empm_printf(req, "\",\"request\":\"");
        empm__status_show_text(req, w->request, 1);
        empm_printf(req, "\"}");
    }
}

static void empm__status_show_json(empm_request *req,
                                   const empm__snapshot *seen)
{
    char text[40];
    size_t i;
    empm_set_header(req, "Content-Type", "application/json");
    empm_printf(req, "{\"server\":\"");
    empm__status_show_text(req, seen->name, 1);
    empm_printf(req, "\",\"version\":\"%s\"", EMPM_VERSION);
    for (i = 0; i < EMPM__COUNT(empm__metrics); i++) {
        /* rows of one name become one object */
        const empm__metric *f = &empm__metrics[i];
        const int first = i == 0 || strcmp(f[-1].name, f->name) != 0;
        const int last = i + 1 == EMPM__COUNT(empm__metrics) ||
                         strcmp(f[1].name, f->name) != 0;
        if (first)
            empm_printf(req, ",\n\"%s\":%s", f->name,
                        f->label != NULL ? "{" : "");
        if (f->label != NULL)
            empm_printf(req, "%s\"%s\":", first ? "" : ",", f->value);
        empm_printf(req, "%s%s", empm__metric_text(seen, f, text),
                    f->label != NULL && last ? "}" : "");
    }
    empm_printf(req, ",\n\"load\":[");
    for (i = 0; i < 3; i++)
        empm_printf(req, "%s%s", i > 0 ? "," : "",
                    empm__status_quotient(text, seen->load_percent[i], 100, 2));
    empm_printf(req, "],\n\"processes\":[");
    empm__status_show_json_children(req, seen);
    empm_printf(req, "],\n\"threads\":[");
    empm__status_show_json_workers(req, seen);
    empm_printf(req, "]}\n");
}

/* --- ?auto: the lines of mod_status, in its order ------------------------- */

#define EMPM__SCOREBOARD_MOST 65000    /* readers take lines below 64 KiB */

/* Shows a time as mod_status does: "Sunday, 06-Nov-1994 08:49:37 GMT". */
static void empm__status_show_date(empm_request *req, const char *key,
                                   uint64_t t)
{
    static const char *const days[] = { "Sunday", "Monday", "Tuesday",
                                        "Wednesday", "Thursday", "Friday",
                                        "Saturday" };
    char d[30];
    empm__format_date(d, (int64_t)t);
    empm_printf(req, "%s: %s, %.2s-%.3s-%.4s %s\n", key,
                days[(t / 86400 + 4) % 7], d + 5, d + 8, d + 12, d + 17);
}

/* "2 days 1 hour 5 seconds" */
static const char *empm__status_prose(char *to, size_t n, uint64_t s)
{
    static const char *const names[] = { "day", "hour", "minute", "second" };
    static const unsigned unit[] = { 86400, 3600, 60, 1 };
    size_t at = 0, i;
    for (i = 0; i < 4; i++) {
        const uint64_t k = s / unit[i];
        s %= unit[i];
        if (at < n && (k > 0 || (i == 3 && at == 0)))
            at += (size_t)snprintf(to + at, n - at, "%s%llu %s%s",
                                   at > 0 ? " " : "", EMPM__LLU(k),
                                   names[i], k == 1 ? "" : "s");
    }
    return to;
}

/* One letter per worker, in the order of the slots; if that is more than
 * readers take, each letter once for every `scale` workers that have it. */
static void empm__status_show_scoreboard(empm_request *req,
                                         const empm__snapshot *seen)
{
    const size_t each = (size_t)req->w->cfg->threads_per_child;
    size_t empty = (size_t)seen->slots, total, scale, n, i;
    int slot, k;
    for (k = 0; k < seen->nchildren; k++)
        empty -= seen->children[k].slot < seen->slots;
    total = (size_t)seen->all.nworkers + empty * each;
    scale = total / EMPM__SCOREBOARD_MOST + 1;
    empm_printf(req, "Scoreboard: ");
    if (scale == 1)
        for (slot = k = 0; slot < seen->slots || k < seen->nchildren; slot++) {
            const empm__snapshot_child *ch = &seen->children[k];
            const int here = k < seen->nchildren && ch->slot == slot;
            n = here ? (size_t)ch->nworkers : slot < seen->slots ? each : 0;
            for (i = 0; i < n; i++)
                empm_write(req, here ? &seen->workers[(size_t)ch->first + i]
                                            .letter : ".", 1);
            k += here;
        }
    else {
        for (i = 0; i < EMPM__LETTERS; i++) {
            for (n = 0; n < seen->all.by_letter[i]; n += scale)
                empm_write(req, &empm__worker_letters[i], 1);
            total -= (size_t)seen->all.by_letter[i];
        }
        for (n = 0; n < total; n += scale)
            empm_write(req, ".", 1);
    }
    empm_printf(req, "\nScoreboardScale: %u\n", (unsigned)scale);
}

/* Shows the lines that ExtendedStatus adds. As in Apache, a rate is left out
 * while its divisor is zero. */
static void empm__status_show_auto_totals(empm_request *req,
                                          const empm__snapshot *seen)
{
    static const char *const cpu[] = { "User", "System", "ChildrenUser",
                                       "ChildrenSystem" };
    const uint64_t up_s = seen->uptime_us / 1000000u;
    char text[40];
    size_t i;
    empm_printf(req, "Total Accesses: %llu\nTotal kBytes: %llu\n"
                "Total Duration: %llu\n", EMPM__LLU(seen->accesses),
                EMPM__LLU(seen->bytes / 1024),
                EMPM__LLU(seen->duration_us / 1000));
    for (i = 0; i < 4; i++)
        empm_printf(req, "CPU%s: %s\n", cpu[i],
                    empm__status_quotient(text, seen->cpu_us[i], 1000000u,
                                          2));
    if (seen->cpu_all_us > 0)
        empm_printf(req, "CPULoad: %s\n",
                    empm__status_quotient(text, seen->cpu_all_us * 100,
                                          seen->uptime_us, 4));
    empm_printf(req, "Uptime: %llu\n", EMPM__LLU(up_s));
    if (up_s > 0) {
        empm_printf(req, "ReqPerSec: %s\n",
                    empm__status_quotient(text, seen->accesses, up_s, 3));
        empm_printf(req, "BytesPerSec: %s\n",
                    empm__status_quotient(text, seen->bytes, up_s, 3));
    }
    if (seen->accesses > 0) {
        empm_printf(req, "BytesPerReq: %s\n",
                    empm__status_quotient(text, seen->bytes,
                                          seen->accesses, 3));
        empm_printf(req, "DurationPerReq: %s\n",
                    empm__status_quotient(text, seen->duration_us,
                                          seen->accesses * 1000, 3));
    }
}

/* Shows Apache's lines, and after them each figure that has a key. */
static void empm__status_show_auto(empm_request *req,
                                   const empm__snapshot *seen)
{
    const empm__snapshot_child *all = &seen->all;
    const uint64_t up_s = seen->uptime_us / 1000000u;
    char text[128];
    size_t i;
    int k;
    empm_set_header(req, "Content-Type", "text/plain; charset=ISO-8859-1");
    /* not __DATE__: the same source shall give the same program */
    empm_printf(req, "%s\nServerVersion: eventmpm/%s (Unix)\nServerMPM: event\n"
                "Server Built: %s\n", seen->name, EMPM_VERSION,
                "compiler " __VERSION__);
    empm__status_show_date(req, "CurrentTime", seen->now_s);
    empm__status_show_date(req, "RestartTime", seen->restarted_s);
    empm_printf(req, "ParentServerConfigGeneration: %llu\n"
                "ParentServerMPMGeneration: %llu\nServerUptimeSeconds: %llu\n"
                "ServerUptime: %s\n", EMPM__LLU(seen->reloads + 1),
                EMPM__LLU(seen->generation), EMPM__LLU(up_s),
                empm__status_prose(text, sizeof text, up_s));
    for (k = 0; k < 3; k++)
        empm_printf(req, "Load%s: %s\n", k == 0 ? "1" : k == 1 ? "5" : "15",
                    empm__status_quotient(text, seen->load_percent[k], 100, 2));
    if (req->w->cfg->extended_status)
        empm__status_show_auto_totals(req, seen);
    empm_printf(req, "BusyWorkers: %llu\nGracefulWorkers: %llu\n"
                "IdleWorkers: %llu\nProcesses: %d\nStopping: %llu\n"
                "ConnsTotal: %llu\n", EMPM__LLU(empm__snapshot_busy(all)),
                EMPM__LLU(all->by_letter[EMPM__SEEN_GRACEFUL]),
                EMPM__LLU(all->by_letter[EMPM__SEEN_IDLE]), seen->nchildren,
                EMPM__LLU(seen->stopping), EMPM__LLU(all->connections));
    empm_printf(req, "ConnsAsyncWaitIO: %llu\nConnsAsyncWriting: %llu\n"
                "ConnsAsyncKeepAlive: %llu\nConnsAsyncClosing: %llu\n",
                EMPM__LLU(all->by_state[EMPM__HANDSHAKE] +
                          all->by_state[EMPM__READ_HEAD] +
                          all->by_state[EMPM__READ_BODY]),
                EMPM__LLU(all->by_state[EMPM__WRITE]),
                EMPM__LLU(all->by_state[EMPM__KEEPALIVE]),
                EMPM__LLU(all->by_state[EMPM__LINGER]));
    empm__status_show_scoreboard(req, seen);
    for (i = 0; i < EMPM__COUNT(empm__metrics); i++)
        if (empm__metrics[i].key != NULL)
            empm_printf(req, "%s: %s\n", empm__metrics[i].key,
                        empm__metric_text(seen, &empm__metrics[i], text));
}

/* ---------------------------------------------------------------------------
 * >>page -- the status page for people
 *
 * A page without scripts: the state of each worker as a letter, the slowest
 * requests, and hints that tell an operator where to look first. Each part has
 * its function, in the order of the page. All text from outside goes through
 * empm__status_show_text().
 * ------------------------------------------------------------------------- */

/* Each letter has a colour, which is its class, too; both schemes of light and
 * dark set the same variables. */
static const char empm__page_style[] =
    ":root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b1f24;"
    "--soft:#667080;--line:#dfe3e8;--warn:#fff3d6;--bar:#3b7dd8;--idle:#a9b2bd;"
    "--S:#0e8f9c;--R:#2f6fdb;--W:#d9730d;--K:#3d9a50;--C:#8a5bd1;--G:#d23b5e}"
    "@media(prefers-color-scheme:dark){:root{--bg:#14171b;--card:#1d2127;"
    "--ink:#e4e8ee;--soft:#96a1b0;--line:#313842;--warn:#40340f;--bar:#5c9bf0;"
    "--idle:#5a6572;--S:#3cc3d1;--R:#6ea3ff;--W:#ffa04d;--K:#67cf7d;"
    "--C:#b591f5;--G:#ff7593}}"
    "*{box-sizing:border-box}body{margin:0 auto;padding:1.25rem;"
    "max-width:76rem;background:var(--bg);color:var(--ink);"
    "font:15px/1.5 system-ui,sans-serif}"
    "h1{font-size:1.35rem;margin:0}h2{font-size:1rem;margin:2rem 0 .6rem}"
    "p{margin:.25rem 0}a{color:var(--bar)}.s{color:var(--soft)}"
    "nav{display:flex;flex-wrap:wrap;gap:0 1rem}"
    ".k{display:grid;grid-template-columns:repeat(auto-fit,minmax(7.4rem,1fr));"
    "gap:.6rem;margin-top:1.2rem}"
    ".k div,.m,.t,.n{background:var(--card);border:1px solid var(--line);"
    "border-radius:.6rem;padding:.7rem .8rem}"
    ".k b{display:block;font-size:1.25rem;line-height:1.4;font-weight:600;"
    "white-space:nowrap;font-variant-numeric:tabular-nums}"
    ".k span,.l{font-size:.82rem;color:var(--soft)}"
    ".n{background:var(--warn);margin-top:1rem}"
    ".m pre{margin:0;font:600 1rem/1.35 ui-monospace,Menlo,Consolas,monospace;"
    "letter-spacing:.22em;white-space:pre-wrap;overflow-wrap:anywhere}"
    ".m i{font-style:normal;font-weight:400;letter-spacing:0;color:var(--soft);"
    "font-size:.8rem;display:inline-block;min-width:5.5rem}"
    ".l{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;margin-top:.6rem}"
    ".l b{font-family:ui-monospace,Menlo,Consolas,monospace}"
    "._{color:var(--idle)}.S{color:var(--S)}.R{color:var(--R)}"
    ".W{color:var(--W)}.K{color:var(--K)}.C{color:var(--C)}.G{color:var(--G)}"
    ".t{padding:0;overflow-x:auto}table{border-collapse:collapse;width:100%;"
    "font-size:.86rem;font-variant-numeric:tabular-nums}"
    "th,td{padding:.38rem .7rem;text-align:right;white-space:nowrap;"
    "border-top:1px solid var(--line)}thead th{border-top:0;color:var(--soft);"
    "font-weight:500}tfoot td{font-weight:600}"
    "th[colspan]{text-align:center}.x{text-align:left}"
    "td b,td.x{font-family:ui-monospace,Menlo,Consolas,monospace;"
    "font-size:.8rem}";

/* Returns a time in the two units that matter, kept in `to`: "3 min 7 s". */
static const char *empm__status_time_text(char to[40], uint64_t us)
{
    const uint64_t s = us / 1000000u;
    if (us < 1000)
        snprintf(to, 40, "%u \xc2\xb5s", (unsigned)us);
    else if (s < 1)
        snprintf(to, 40, "%u ms", (unsigned)(us / 1000));
    else if (s < 100)
        snprintf(to, 40, "%u.%u s", (unsigned)s, (unsigned)(us / 100000 % 10));
    else if (s < 3600)
        snprintf(to, 40, "%u min %u s", (unsigned)s / 60, (unsigned)s % 60);
    else if (s < 86400)
        snprintf(to, 40, "%u h %u min", (unsigned)s / 3600,
                 (unsigned)s / 60 % 60);
    else
        snprintf(to, 40, "%llu d %u h", EMPM__LLU(s / 86400),
                 (unsigned)(s / 3600 % 24));
    return to;
}

/* Returns a size in the unit in which it is below 1000, kept in `to`. */
static const char *empm__status_bytes_text(char to[40], uint64_t n)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    uint64_t by = 1;
    size_t k = 0;
    while (n / by >= 1000 && k + 1 < EMPM__COUNT(units)) {
        by *= 1024;
        k++;
    }
    empm__status_quotient(to, n, by, k > 0 && n / by < 100);
    strcat(to, " ");
    return strcat(to, units[k]);
}

#define EMPM__STATE_WAITS(name, letter, column, label, key) \
    { EMPM__##name, column },
#define EMPM__STATE_RUNS(name, letter)
static const struct { int state; const char *name; } empm__page_columns[] = {
    EMPM__STATE_LIST(EMPM__STATE_WAITS, EMPM__STATE_RUNS)
};
#undef EMPM__STATE_WAITS
#undef EMPM__STATE_RUNS

/* Shows a letter for each worker, in a line for each child. A run of one letter
 * shares one element, so that thousands of workers are a small page. */
static void empm__status_show_map(empm_request *req, const empm__snapshot *seen)
{
    static const char *const says[] = {
        "waiting", "starting", "reading", "in a handler or sending",
        "keep-alive", "closing", "finishing before its process ends"
    };
    int k;
    size_t i, n;
    empm_printf(req, "<h2>Workers</h2>\n<div class=m>");
    for (k = 0; k < seen->nchildren; k++) {
        const empm__snapshot_child *ch = &seen->children[k];
        const empm__snapshot_worker *w = &seen->workers[ch->first];
        empm_printf(req, "<pre><i>%u</i>", ch->pid);
        for (i = 0; i < ch->nworkers; i += n) {
            const char letter = w[i].letter;
            empm_printf(req, "<b class=%c>", letter);
            for (n = 0; i + n < ch->nworkers && w[i + n].letter == letter; n++)
                empm_write(req, &letter, 1);
            empm_printf(req, "</b>");
        }
        empm_printf(req, "</pre>\n");
    }
    empm_printf(req, "<div class=l>");
    for (i = 0; i < EMPM__LETTERS; i++)
        empm_printf(req, "<span><b class=%c>%c</b> %s: %llu</span>\n",
                    empm__worker_letters[i], empm__worker_letters[i], says[i],
                    EMPM__LLU(seen->all.by_letter[i]));
    empm_printf(req, "</div></div>\n");
}

/* Shows the row of a child, or with &seen->all the sum at the foot. */
static void empm__status_show_process(empm_request *req,
                                      const empm__snapshot *seen,
                                      const empm__snapshot_child *ch)
{
    size_t i;
    if (ch != &seen->all)
        empm_printf(req, "<tr><td>%d<td>%u<td>%s<td>%llu<td>%s", ch->slot,
                    ch->pid, !ch->leaving ? "no"
                             : ch->generation != (uint32_t)seen->generation
                                 ? "yes (old gen)" : "yes",
                    EMPM__LLU(ch->connections),
                    ch->paused || ch->leaving ? "no" : "yes");
    else
        empm_printf(req, "<tr><td>Sum<td>%d<td>%llu<td>%llu<td>",
                    seen->nchildren, EMPM__LLU(seen->stopping),
                    EMPM__LLU(ch->connections));
    empm_printf(req, "<td>%llu<td>%llu<td>%llu",
                EMPM__LLU(empm__snapshot_busy(ch)),
                EMPM__LLU(ch->by_letter[EMPM__SEEN_GRACEFUL]),
                EMPM__LLU(ch->by_letter[EMPM__SEEN_IDLE]));
    for (i = 0; i < EMPM__COUNT(empm__page_columns); i++)
        empm_printf(req, "<td>%llu",
                    EMPM__LLU(ch->by_state[empm__page_columns[i].state]));
    empm_printf(req, "\n");
}

static void empm__status_show_processes(empm_request *req,
                                        const empm__snapshot *seen)
{
    size_t i;
    int k;
    empm_printf(req, "<h2>Processes and connections</h2>\n<div class=t><table>"
                "<thead><tr><th rowspan=2>Slot<th rowspan=2>PID<th rowspan=2>"
                "Stopping<th colspan=2>Connections<th colspan=3>Threads"
                "<th colspan=%u>Waiting connections\n<tr><th>total<th>accepting"
                "<th>busy<th>graceful<th>idle",
                (unsigned)EMPM__COUNT(empm__page_columns));
    for (i = 0; i < EMPM__COUNT(empm__page_columns); i++)
        empm_printf(req, "<th>%s", empm__page_columns[i].name);
    empm_printf(req, "<tbody>\n");
    for (k = 0; k < seen->nchildren; k++)
        empm__status_show_process(req, seen, &seen->children[k]);
    empm_printf(req, "<tfoot>");
    empm__status_show_process(req, seen, &seen->all);
    empm_printf(req, "</table></div>\n");
}

/* Shows the ten requests that have been at work for longest. Each round looks
 * for the next one below the last, so no list has to be sorted or kept; the
 * place in the list decides between equal times. */
static void empm__status_show_slowest(empm_request *req,
                                      const empm__snapshot *seen)
{
    const empm__snapshot_worker *top = NULL, *last;
    char text[40];
    int rows = 0;
    size_t i;
    empm_printf(req, "<h2>Slowest requests now</h2>\n");
    while (rows < 10) {
        last = top;
        top = NULL;
        for (i = 0; i < seen->all.nworkers; i++) {
            const empm__snapshot_worker *w = &seen->workers[i];
            if (w->doing == 'W' && w->since_us >= 100000 &&
                (last == NULL || w->since_us < last->since_us ||
                 (w->since_us == last->since_us && w > last)) &&
                (top == NULL || w->since_us > top->since_us))
                top = w;
        }
        if (top == NULL)
            break;
        empm_printf(req, "%s<tr><td>%s<td class=x>",
                    rows++ == 0 ? "<div class=t><table><thead><tr><th>For"
                                  "<th class=x>Request<th class=x>Host"
                                  "<th class=x>Client<th>PID<tbody>\n" : "",
                    empm__status_time_text(text, top->since_us));
        empm__status_show_text(req, top->request, 0);
        empm_printf(req, "<td class=x>");
        empm__status_show_text(req, top->host, 0);
        empm_printf(req, "<td class=x>");
        empm__status_show_text(req, top->client, 0);
        empm_printf(req, "<td>%u\n", seen->children[top->child].pid);
    }
    empm_printf(req, rows > 0 ? "</table></div>\n"
                              : "<p class=s>None takes longer than 0.1 "
                "s.</p>\n");
}

/* Shows the table of mod_status that ExtendedStatus adds. Workers without a
 * request so far have no row. */
static void empm__status_show_workers(empm_request *req,
                                      const empm__snapshot *seen)
{
    char text[40];
    size_t i;
    empm_printf(req, "<h2>Requests by worker</h2>\n<div class=t><table><thead>"
                "<tr><th class=x>Srv<th>PID<th class=x>Acc<th>M<th>SS<th>Req"
                "<th>Dur<th>Sent<th class=x>Client<th class=x>VHost"
                "<th class=x>Request<tbody>\n");
    for (i = 0; i < seen->all.nworkers; i++) {
        const empm__snapshot_worker *w = &seen->workers[i];
        const empm__snapshot_child *ch = &seen->children[w->child];
        if (w->doing == '.' || (w->accesses == 0 && w->doing == '_'))
            continue;
        empm_printf(req, "<tr><td class=x>%d-%u<td>%u<td class=x>%u/%llu/%llu"
                    "<td class=%c><b>%c</b>", ch->slot, ch->generation, ch->pid,
                    w->of_connection, EMPM__LLU(w->accesses_child),
                    EMPM__LLU(w->accesses), w->letter, w->letter);
        empm_printf(req, "<td>%llu<td>%u",
                    EMPM__LLU(w->since_us / 1000000u),
                    w->took_us / 1000);
        empm_printf(req, "<td>%llu<td>%s<td class=x>",
                    EMPM__LLU(w->duration_us / 1000),
                    empm__status_bytes_text(text, w->bytes));
        empm__status_show_text(req, w->client, 0);
        empm_printf(req, "<td class=x>");
        empm__status_show_text(req, w->host, 0);
        empm_printf(req, "<td class=x>");
        empm__status_show_text(req, w->request, 0);
        empm_printf(req, "\n");
    }
    empm_printf(req, "</table></div>\n<p class=s>Srv: slot and generation. "
                "Acc: requests of this connection, of this process, of this "
                "slot. SS: seconds since the request began. Req, Dur: the last "
                "request and all of them, in milliseconds.</p>\n");
}

/* Says the two things that an operator should know first: no worker is free, or
 * most of them are stuck in their handlers. */
static void empm__status_show_hints(empm_request *req,
                                    const empm__snapshot *seen)
{
    const uint64_t busy = empm__snapshot_busy(&seen->all);
    const uint64_t idle = seen->all.by_letter[EMPM__SEEN_IDLE];
    uint64_t stuck = 0;
    char text[40];
    size_t i;
    for (i = 0; i < seen->all.nworkers; i++)
        stuck += seen->workers[i].letter == 'W' &&
                 seen->workers[i].since_us > 5000000u;
    if (idle == 0 && busy > 0)
        empm_printf(req, "<div class=n>All %llu workers are busy: %llu ready "
                    "connections wait for one, the oldest for %s.</div>\n",
                    EMPM__LLU(busy), EMPM__LLU(seen->all.queued),
                    empm__status_time_text(text, seen->wait_us));
    if (stuck > 0 && stuck * 2 >= busy + idle)
        empm_printf(req, "<div class=n>%llu of %llu workers have been at one "
                    "request for more than 5 s. What do their handlers wait "
                    "for? More workers (ThreadsPerChild) help only if that can "
                    "take more at once.</div>\n", EMPM__LLU(stuck),
                    EMPM__LLU(busy + idle));
}

static void empm__status_show_card(empm_request *req, const char *value,
                                   const char *what)
{
    empm_printf(req, "<div><b>%s</b><span>%s</span></div>\n", value, what);
}

/* Fields and the top of the page, up to its links. The policy forbids scripts
 * and everything from elsewhere, so text that slips through does no harm. */
static void empm__status_show_page_head(empm_request *req,
                                        const empm__snapshot *seen)
{
    const char *refresh = empm_query(req, "refresh");
    char text[40], date[30];
    empm_set_header(req, "Content-Type", "text/html; charset=utf-8");
    empm_set_header(req, "Content-Security-Policy",
                    "default-src 'none'; style-src 'unsafe-inline'");
    if (refresh != NULL) {
        const int64_t s = empm__parse_u63(refresh, strlen(refresh));
        snprintf(text, sizeof text, "%d", s > 0 && s < 86400 ? (int)s : 10);
        empm_set_header(req, "Refresh", text);
    }
    empm_printf(req, "<!DOCTYPE html><html lang=en><meta charset=utf-8>"
                "<meta name=viewport content=\"width=device-width,"
                "initial-scale=1\"><title>");
    empm__status_show_text(req, seen->name, 0);
    empm_printf(req, ": server status</title><style>");
    empm_write(req, empm__page_style, sizeof empm__page_style - 1);
    empm_printf(req, "</style>\n<h1>");
    empm__status_show_text(req, seen->name, 0);
    empm__format_date(date, (int64_t)seen->now_s);
    empm_printf(req, "</h1>\n<p class=s>eventmpm %s, up %s, %s</p>\n",
                EMPM_VERSION, empm__status_time_text(text, seen->uptime_us),
                date);
    empm_printf(req, "<nav>%s<a href=\"?html&amp;notable\">without requests</a>"
                "<a href=\"?auto\">text</a><a href=\"?json\">JSON</a>"
                "<a href=\"?prometheus\">Prometheus</a></nav>\n",
                refresh != NULL ? "<a href=\"?html\">stop refreshing</a>"
                                : "<a href=\"?html&amp;refresh\">refresh</a>");
}

/* The figures that tell most, side by side. Means are since the start. */
static void empm__status_show_cards(empm_request *req,
                                    const empm__snapshot *seen)
{
    const uint64_t busy = empm__snapshot_busy(&seen->all);
    const uint64_t idle = seen->all.by_letter[EMPM__SEEN_IDLE];
    char text[40];
    empm_printf(req, "<div class=k>");
    snprintf(text, sizeof text, "%llu / %llu", EMPM__LLU(busy),
             EMPM__LLU(busy + idle));
    empm__status_show_card(req, text, "workers busy");
    text[empm__format_u64(text, seen->all.connections)] = '\0';
    empm__status_show_card(req, text, "connections");
    text[empm__format_u64(text, seen->all.queued)] = '\0';
    empm__status_show_card(req, text, "in the queue");
    text[empm__format_u64(text, seen->accesses)] = '\0';
    empm__status_show_card(req, text, "requests");
    empm__status_show_card(req, empm__status_quotient(text,
                                                      seen->accesses * 1000000u,
                                                      seen->uptime_us, 1),
                           "requests/s (mean)");
    empm__status_show_card(req, empm__status_time_text(text, seen->accesses > 0
                                                  ? seen->duration_us /
                                                        seen->accesses : 0),
                           "per request");
    empm__status_show_card(req, empm__status_bytes_text(text, seen->bytes),
                           "sent");
    empm__status_quotient(text, seen->cpu_all_us * 100, seen->uptime_us, 1);
    empm__status_show_card(req, strcat(text, " %"), "processor (mean)");
    empm__status_show_card(req, empm__status_quotient(text,
                                                      seen->load_percent[0],
                                                      100, 2),
                           "load of the host");
    empm_printf(req, "</div>\n");
}

static void empm__status_show_html(empm_request *req,
                                   const empm__snapshot *seen)
{
    empm__status_show_page_head(req, seen);
    empm__status_show_hints(req, seen);
    empm__status_show_cards(req, seen);
    empm__status_show_map(req, seen);
    empm__status_show_slowest(req, seen);
    empm__status_show_processes(req, seen);
    if (req->w->cfg->extended_status && empm_query(req, "notable") == NULL)
        empm__status_show_workers(req, seen);
}

EMPM_API int empm_status_page(empm_request *req, void *user)
{
    static const struct {
        const char *name;
        void      (*put)(empm_request *, const empm__snapshot *);
    } formats[] = { { "html", empm__status_show_html },
                   { "auto", empm__status_show_auto },
                    { "json", empm__status_show_json },
                    { "prometheus", empm__status_show_prometheus } };
    const char *name = (const char *)user;
    const empm__snapshot *seen;
    size_t i, pick = 0;
    if (strcmp(empm_method(req), "GET") != 0 && !req->head_only) {
        empm_set_header(req, "Allow", "GET, HEAD");
        return 405;
    }
    for (i = 0; i < EMPM__COUNT(formats); i++)
        if (name != NULL && strcmp(name, formats[i].name) == 0)
            pick = i;
    for (i = 0; i < EMPM__COUNT(formats); i++)
        if (empm_query(req, formats[i].name) != NULL)
            pick = i;
    if ((seen = empm__snapshot_take(req)) == NULL)
        return 503;
    empm_set_header(req, "Cache-Control", "no-store");
    formats[pick].put(req, seen);
    return EMPM_OK;
}

/* The routes of an admin listener. */
static const empm_route empm__admin_routes[] = {
    EMPM_ROUTE("GET /{$}",           empm_status_page, NULL),
    EMPM_ROUTE("GET /server-status", empm_status_page, NULL),
    EMPM_ROUTE("GET /metrics",       empm_status_page, EMPM_TEXT("prometheus")),
    EMPM_ROUTE("GET /health",        empm_health_page, NULL),
    EMPM_ROUTES_END
};

/* --- the wing ------------------------------------------------------------- */

static int empm__status_server_new(empm_server *s, const empm_server *old,
                             empm__report *rep)
{
    (void)old;
    return empm__routes_init(&s->admin_routes, empm__admin_routes, &s->chars,
                             rep);
}

static const empm__wing empm__status_wing = {
    NULL, empm__status_server_new,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, "status"
};

#else

static void empm__status_check(const empm_config *cfg, const empm__chars *chars,
                               empm__report *rep)
{
    empm__endpoint_spec spec;
    int i;
    (void)chars;
    for (i = 0; i < EMPM_MAX_LISTEN && cfg->listen[i] != NULL; i++)
        if (empm__endpoint_parse(&spec, cfg->listen[i]) == NULL && spec.admin)
            empm__report_say(rep, EMPM_LOG_ERROR, 5108, "Listen %s: admin "
                             "needs the status page, built without it",
                             cfg->listen[i]);
}

static const empm__wing empm__status_wing = {
    empm__status_check,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
};

#endif /* EVENTMPM_NO_STATUS */

/* ---------------------------------------------------------------------------
 * >>wings -- the optional parts, as the core sees them
 *
 * Each wing is a row of hooks; where it is not built it has at most one, which
 * refuses the settings that need it. So the core has no #ifdef of a feature.
 * ------------------------------------------------------------------------- */

static const empm__wing *const *empm__wings(void)
{
    static const empm__wing *const wings[] = {
        &empm__access_wing, &empm__proxy_wing, &empm__files_wing,
        &empm__store_wing, &empm__status_wing, NULL
    };
    return wings;
}

/* ---------------------------------------------------------------------------
 * >>signals -- a byte for each signal, and orders
 *
 * A signal handler needs something at file scope: the write end of one pipe,
 * and whether the server is still starting; only empm_run() uses them.
 * Everything else of this file has no such state.
 * ------------------------------------------------------------------------- */

static int empm__signal_fd = -1;
static volatile sig_atomic_t empm__starting;

/* What the pipe says instead of a HUP that the terminal may have sent: the
 * system did, or the first process of the session, which is the shell there. */
#define EMPM__HANGUP 255

/* A start may wait for names (DNS, NSS), and has nothing to save: a stop ends
 * it at once. All else waits until the server runs. */
static void empm__signals_on_signal(int sig, siginfo_t *info, void *context)
{
    unsigned char byte = (unsigned char)sig;
    const int saved = errno;
    ssize_t r;
    (void)context;
    if (sig == SIGHUP && (info->si_pid == 0 || info->si_pid == getsid(0)))
        byte = EMPM__HANGUP;
    if (empm__starting && (sig == SIGTERM || sig == SIGINT)) {
        signal(sig, SIG_DFL);
        raise(sig);                  /* when this has returned */
        return;
    }
    r = write(empm__signal_fd, &byte, 1);
    (void)r;                         /* full: there is enough to read */
    errno = saved;
}

/* Instead of SIG_IGN, which programs that handlers start would inherit. */
static void empm__signals_on_nothing(int sig)
{
    (void)sig;
}

static const int empm__signals[] = { SIGTERM, SIGINT, SIGWINCH, SIGCHLD,
                                     SIGPIPE, SIGXFSZ, SIGHUP, SIGUSR1,
                                     SIGUSR2, SIGURG };
#define EMPM__SIGNALS EMPM__COUNT(empm__signals)

typedef struct empm__signal_set {
    int              fd[2];
    int              second;         /* GracefulStopSignal, if it is another */
    int              terminal;       /* there was one at the start */
    struct sigaction old[EMPM__SIGNALS + 1];
    sigset_t         old_mask;
    int              taken;
} empm__signal_set;

static int empm__signals_at(const empm__signal_set *set, size_t i)
{
    return i < EMPM__SIGNALS ? empm__signals[i] : set->second;
}

/* One that sends signals: the controlling terminal, wherever stdin leads. */
static int empm__signals_has_terminal(void)
{
    const int fd = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd >= 0 || isatty(0) || isatty(1) || isatty(2);
}

/* The signal that a byte of the pipe stands for; 0: none. HUP is a reload,
 * but a terminal that closes ends what has been started there, unless with
 * nohup. */
static int empm__signals_meant(const empm__signal_set *set, int byte)
{
    size_t i;
    if (byte != EMPM__HANGUP)
        return byte;
    if (!set->terminal || empm__signals_has_terminal())
        return SIGHUP;
    for (i = 0; empm__signals[i] != SIGHUP; i++)
        ;
    return set->old[i].sa_handler == SIG_IGN ? 0 : SIGTERM;
}

/* `heard`: the pipe gets it; else nothing happens, but for EINTR. */
static void empm__signals_take_one(int sig, int heard, struct sigaction *old)
{
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sigemptyset(&sa.sa_mask);
    sa.sa_flags = SA_RESTART | (heard ? SA_SIGINFO : 0);
    if (heard)
        sa.sa_sigaction = empm__signals_on_signal;
    else
        sa.sa_handler = empm__signals_on_nothing;
    sigaction(sig, &sa, old);
}

/* Exchanges the graceful stop's signal, if that is not one of the others. */
static void empm__signals_set_graceful(empm__signal_set *set, int second)
{
    sigset_t ours;
    size_t i;
    for (i = 0; i < EMPM__SIGNALS; i++)
        if (empm__signals[i] == second)
            second = 0;
    if (second == set->second)
        return;
    if (set->second > 0) {         /* some may still send it: it kills nobody */
        struct sigaction *old = &set->old[EMPM__SIGNALS];
        if (old->sa_handler == SIG_DFL)
            old->sa_handler = SIG_IGN;
        sigaction(set->second, old, NULL);
    }
    set->second = second;
    if (second == 0)
        return;
    empm__signals_take_one(second, 1, &set->old[EMPM__SIGNALS]);
    sigemptyset(&ours);
    sigaddset(&ours, second);
    sigprocmask(SIG_UNBLOCK, &ours, NULL);
}

static int empm__signals_take(empm__signal_set *set, int second)
{
    sigset_t ours;
    size_t i;
    set->taken = 0;
    set->second = 0;
    set->terminal = empm__signals_has_terminal();
    if (empm__fd_pipe(set->fd, 1) < 0)
        return EMPM_ESYS;
    empm__signal_fd = set->fd[1];
    sigemptyset(&ours);
    for (i = 0; i < EMPM__SIGNALS; i++) {
        const int sig = empm__signals[i];
        /* WINCH is the graceful stop as with Apache, but a terminal sends it
         * when it is resized */
        const int heard = sig != SIGPIPE && sig != SIGXFSZ &&
                          (sig != SIGWINCH || sig == second || !set->terminal);
        empm__signals_take_one(sig, heard, &set->old[i]);
        sigaddset(&ours, sig);
    }
    sigprocmask(SIG_UNBLOCK, &ours, &set->old_mask);  /* inherited, perhaps */
    empm__signals_set_graceful(set, second);
    set->taken = 1;
    return EMPM_OK;
}

static void empm__signals_restore(empm__signal_set *set)
{
    size_t i;
    for (i = 0; set->taken && i < EMPM__SIGNALS + (set->second > 0); i++)
        sigaction(empm__signals_at(set, i), &set->old[i], NULL);
    if (set->taken) {
        sigprocmask(SIG_SETMASK, &set->old_mask, NULL);
        close(set->fd[0]);
        close(set->fd[1]);
    }
    empm__signal_fd = -1;
    set->taken = 0;
}

#ifndef EVENTMPM_NO_FORK
/* For a child that was forked: the defaults of all signals that `set` has
 * taken; `keep`: but what its starter ignored stays ignored. */
static void empm__signals_default(const empm__signal_set *set, int keep)
{
    size_t i;
    for (i = 0; i < EMPM__SIGNALS + (set->second > 0); i++)
        signal(empm__signals_at(set, i),
               keep && set->old[i].sa_handler == SIG_IGN ? SIG_IGN : SIG_DFL);
}
#endif

typedef struct empm__source {        /* where configurations come from */
    const empm_config *base;         /* what the program has set */
    /* the rest of it, on top: a file, a command line. NULL: nothing. Returns
     * EMPM_OK, or an error that `rep` has said */
    int  (*apply)(empm_config *cfg, const struct empm__source *from,
                  empm__report *rep);
    int    argc;
    char **argv;                     /* NULL: no upgrades */
    int    detached;                 /* -k start: nobody reads what it says */
} empm__source;

static void empm__program_say_stderr(enum empm_log_level level,
                                     const char *line, void *user)
{
    if (level <= EMPM_LOG_WARN)
        fprintf(stderr, "%s: %s: %s\n", user != NULL ? (const char *)user
                                                     : "eventmpm",
                empm__log_level_name(level), line);
}

/* Reads the configuration. What is wrong goes to `rep`. */
static empm_config *empm__program_config_new(const empm__source *from,
                                             empm__report *rep)
{
    empm_config *cfg = (empm_config *)EMPM_MALLOC(sizeof *cfg);
    if (cfg == NULL) {
        empm__report_say(rep, EMPM_LOG_ERROR, 5104, "no memory");
        return NULL;
    }
    *cfg = *from->base;
    cfg->arena = NULL;               /* the base keeps what is its own */
    if (from->apply == NULL || from->apply(cfg, from, rep) == EMPM_OK)
        return cfg;
    empm_config_free(cfg);
    EMPM_FREE(cfg);
    return NULL;
}

/* Exit statuses of children, as Apache has them. */
enum { EMPM__EXIT_SICK = 7, EMPM__EXIT_FATAL = 15 };

/* A parent's order may bring descriptors along, which its child takes over: the
 * pairs of an empm__logs_swap; w->n is -1 if there is no room for them. */
static ssize_t empm__orders_read(int fd, unsigned char *byte,
                                 empm__logs_swap *w)
{
    size_t n, i;
    int flags = 0;
    const ssize_t r = empm__fd_receive(fd, byte, 1, w->fd,
                                       sizeof w->fd / sizeof w->fd[0], &n,
                                       &flags);
    for (i = 0; i < n; i++)
        empm__fd_flags(w->fd[i], 0);
    w->n = (int)(n / 2);
    if (r > 0 && (flags & MSG_CTRUNC)) {         /* no room for all of them */
        while (n > 0)
            close(w->fd[--n]);
        w->n = -1;
    }
    return r;
}

/* Waits for bytes on fds[0..n) (-1 is skipped), at most `ms`, and returns
 * the first one that is there: its number, with the byte (0: end of file) in
 * *byte; -1: none. `w`: gets what an order on the last of fds brings along;
 * or NULL. */
static int empm__orders_next_byte(const int *fds, int n, int64_t ms,
                                  unsigned char *byte, empm__logs_swap *w)
{
    struct pollfd p[4];
    int i;
    for (i = 0; i < n; i++) {
        p[i].fd = fds[i];
        p[i].events = POLLIN;
        p[i].revents = 0;
    }
    if (poll(p, (nfds_t)n, ms < 0 ? -1 : ms > 60000 ? 60000 : (int)ms) <= 0)
        return -1;
    for (i = 0; i < n; i++)
        if (p[i].revents != 0) {
            const ssize_t r = w != NULL && i == n - 1
                                  ? empm__orders_read(fds[i], byte, w)
                                  : read(fds[i], byte, 1);
            if (r < 0)
                continue;
            if (r == 0)
                *byte = 0;
            return i;
        }
    return -1;
}

/* ---------------------------------------------------------------------------
 * >>manager -- systemd, and times of processes
 *
 * The service manager is told what happens, and hears from a watchdog only as
 * long as the engine answers. Its variables are taken out of the environment,
 * so that programs of handlers do not speak for us.
 * ------------------------------------------------------------------------- */

/* The service manager, if there is one. What it has put into our environment is
 * not for what handlers start. */
typedef struct empm__manager {
    char     path[sizeof ((struct sockaddr_un *)0)->sun_path]; /* or "": none */
    char     usec[24];               /* WATCHDOG_USEC, or "": no watchdog */
    int      by_pid;                 /* WATCHDOG_PID was ours */
    uint64_t every_us, at_us;        /* when it wants to hear of us; or 0 */
} empm__manager;

static void empm__manager_take(empm__manager *m)
{
    const char *path = getenv("NOTIFY_SOCKET"), *usec = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");
    memset(m, 0, sizeof *m);
    if (path != NULL && (path[0] == '/' || path[0] == '@') &&
        strlen(path) < sizeof m->path) {
        memcpy(m->path, path, strlen(path));
        unsetenv("NOTIFY_SOCKET");
    }
    if (usec != NULL && strlen(usec) < sizeof m->usec &&
        (pid == NULL || strtol(pid, NULL, 10) == (long)getpid())) {
        memcpy(m->usec, usec, strlen(usec));
        m->by_pid = pid != NULL;
        m->every_us = (uint64_t)strtoull(usec, NULL, 10) / 2;
        m->at_us = m->every_us > 0 ? empm__now_us() : 0;
        unsetenv("WATCHDOG_USEC");
        unsetenv("WATCHDOG_PID");
    }
}

/* ... but for the program anew, and for a program that goes on without us. */
static void empm__manager_return(const empm__manager *m)
{
    char pid[24];
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    if (m->path[0] != '\0')
        setenv("NOTIFY_SOCKET", m->path, 1);
    if (m->usec[0] != '\0')
        setenv("WATCHDOG_USEC", m->usec, 1);
    if (m->by_pid)
        setenv("WATCHDOG_PID", pid, 1);
}

static void empm__program_notify(const empm__manager *m, const char *fmt, ...)
    EMPM__PRINTF(2, 3);

/* Tells it something: sd_notify's protocol, a datagram of NAME=value lines. */
static void empm__program_notify(const empm__manager *m, const char *fmt, ...)
{
    const size_t n = strlen(m->path);
    struct sockaddr_un a;
    char text[512];
    va_list ap;
    int fd;
    if (n == 0)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memset(&a, 0, sizeof a);
    a.sun_family = AF_UNIX;
    memcpy(a.sun_path, m->path, n);
    if (a.sun_path[0] == '@')        /* Linux: not in the file system */
        a.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (fd < 0)
        return;
    if (empm__fd_flags(fd, 1) == 0)  /* a manager that does not read is no */
        sendto(fd, text, strlen(text), MSG_NOSIGNAL,   /* reason to wait */
               (struct sockaddr *)&a,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
    close(fd);
}

/* Answers its watchdog, if that is due. */
static void empm__manager_beat(empm__manager *m, uint64_t now)
{
    if (m->at_us == 0 || m->at_us > now)
        return;
    m->at_us = now + m->every_us;
    empm__program_notify(m, "WATCHDOG=1");
}

/* What a drain may take: 0 is no limit. */
static int empm__stop_drain_ms(const empm_config *cfg, int restart)
{
    return restart ? cfg->graceful_restart_timeout_ms
                   : cfg->graceful_shutdown_timeout_ms;
}

/* Until when a process that drains, or stops, has to be gone. */
static uint64_t empm__stop_deadline_us(const empm_config *cfg, int drains,
                                       int drain_ms, uint32_t grace_ms)
{
    if (drains && drain_ms == 0)
        return 0;
    return empm__now_us() + ((uint64_t)(drains ? drain_ms : 0) +
                             (uint64_t)cfg->stop_timeout_ms + grace_ms) * 1000u;
}

static int empm__program_no_pipe(const empm_config *cfg, const char *what)
{
    empm__log(cfg, EMPM_LOG_EMERG, 5048, "cannot make a pipe for %s: %s", what,
              strerror(errno));
    return EMPM_ESYS;
}

/* Of two times, of which 0 is none. */
static uint64_t empm__time_sooner(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* How long to wait until then, in milliseconds; -1: for ever. */
static int64_t empm__time_left_ms(uint64_t at_us)
{
    const uint64_t now = empm__now_us();
    return at_us == 0 ? -1 : at_us <= now ? 0
                                          : (int64_t)(at_us - now + 999) / 1000;
}

/* The number after `name` in what Linux tells of a process; `none`
 * elsewhere. */
static uint64_t empm__process_status(long pid, const char *name, int base,
                                     uint64_t none)
{
    char path[64], text[2048];
    const char *at;
    snprintf(path, sizeof path, "/proc/%ld/status", pid);
    empm__text_of_file(path, text, sizeof text);
    at = strstr(text, name);
    return at != NULL ? strtoull(at + strlen(name), NULL, base) : none;
}

/* ---------------------------------------------------------------------------
 * >>attend -- the main thread of a process that serves
 *
 * It waits for orders of the parent, for signals and for the end of its engine,
 * and gives a stop its time. Without a parent it also looks after the engine.
 * ------------------------------------------------------------------------- */

/* Does a thread of `pid` wait for a disk, or for a server of files? Linux
 * tells: "State: D", which is a number to base 16. */
static int empm__process_waits_for_disk(long pid)
{
    char path[64];
    struct dirent *e;
    DIR *dir;
    int found = 0;
    snprintf(path, sizeof path, "/proc/%ld/task", pid);
    dir = opendir(path);
    while (dir != NULL && !found && (e = readdir(dir)) != NULL)
        found = empm__process_status(strtol(e->d_name, NULL, 10), "State:", 16,
                                     0) == 0xd;
    if (dir != NULL)
        closedir(dir);
    return found;
}

/* How many pings in a row the engine in `slot`, of process `pid`, has not
 * answered: `missed` before the last one, when *pongs was its count of
 * answers. */
static int empm__watchdog_missed(const empm_server *s, int slot, long pid,
                                 uint32_t *pongs, int missed, int excused)
{
    const uint32_t now = empm__load(&empm__score_at(&s->score, slot)->pongs);
    missed = now != *pongs || excused ? 0 : missed + 1;
    *pongs = now;
    /* in a debugger it may stand still; and if the disk of a log does, the
     * verdict has to wait: a kill would have to as well */
    if (missed > 0 && empm__process_status(pid, "TracerPid:", 10, 0) != 0)
        return 0;
    return missed >= 3 && empm__process_waits_for_disk(pid) ? 2 : missed;
}

/* Says which requests in `slot` take longer than StuckWorkerTimeout, once each:
 * at `since_us` was the last look. 1: there is one more. */
static int empm__watchdog_look_for_stuck(const empm_server *s, int slot,
                                         long pid,
                                         uint64_t since_us, uint64_t now)
{
    const uint64_t most = (uint64_t)s->cfg->stuck_worker_timeout_ms * 1000u;
    int t, stuck = 0;
    for (t = 0; t < s->score.threads && most > 0; t++) {
        const empm__score_worker *w = empm__score_worker_at(&s->score, slot, t);
        const uint64_t began = empm__load(&w->began_us);
        char request[EMPM__SCORE_REQUEST + 1], who[96];
        empm__peer peer;
        if (empm__load(&w->status) != 'W' || began == 0 || now < began + most ||
            since_us > began + most)
            continue;                /* or it has been said */
        empm__score_request_line(w, request);
        empm__score_load_text(&peer, w->client, sizeof peer);
        empm__log(s->cfg, EMPM_LOG_WARN, 5037, "worker %d of child %ld has "
                  "been busy for %llu s with \"%s\" from %s", t, pid,
                  (unsigned long long)((now - began) / 1000000u), request,
                  empm__peer_text(&peer, peer.port != 0, who, sizeof who));
        stuck = 1;
    }
    return stuck;
}

/* The idle workers in `slot`, as far as one can believe it. */
static int empm__watchdog_idle(const empm_server *s, int slot)
{
    return (int)empm__min(
        empm__load(&empm__score_at(&s->score, slot)->idle_workers),
        (size_t)s->cfg->threads_per_child);
}

/* Without a parent the main thread has its duties as far as one process can: it
 * looks at its own engine, and tells the service manager, whose watchdog can do
 * what a parent would. */
typedef struct empm__alone {
    empm__manager *manager;
    uint64_t       ping_us, looked_us;
    uint32_t       pongs;
    int            missed;
} empm__alone;

/* Does what is due; returns when the next thing is (0: nothing). */
static uint64_t empm__program_alone_chores(empm__alone *a, empm_server *s,
                                           int stopping)
{
    const uint64_t every = (uint64_t)s->cfg->watchdog_interval_ms * 1000u;
    const uint64_t now = empm__now_us();
    if (every > 0 && a->ping_us <= now) {
        const int first = a->ping_us == 0;
        const int late = now - a->ping_us > every / 2;   /* we are, ourselves */
        a->missed = empm__watchdog_missed(s, 0, (long)getpid(), &a->pongs,
                                          a->missed, late || stopping);
        if (a->missed == 3)
            empm__log(s->cfg, EMPM_LOG_ERROR, 5038, "the listener has not "
                      "answered for three times WatchdogInterval: nor is the "
                      "service manager's watchdog answered");
        a->ping_us = now + every;
        empm__poller_order(&s->engine.poller, EMPM__ORDER_PING);
        empm__watchdog_look_for_stuck(s, 0, (long)getpid(), a->looked_us, now);
        a->looked_us = now;
        if (!first && !stopping) {
            const int idle = empm__watchdog_idle(s, 0);
            empm__program_notify(a->manager, "STATUS=Serving: %d busy, %d idle "
                                 "workers",
                                 s->cfg->threads_per_child - idle, idle);
        }
    }
    if (a->missed >= 3)
        return a->ping_us;
    empm__manager_beat(a->manager, now);
    return empm__time_sooner(a->ping_us, a->manager->at_us);
}

/* The first process of a container inherits the orphans of all others.
 * `is_ours` says which children are reaped elsewhere; NULL: those that other
 * threads have started, which are handlers' own. */
static void empm__parent_reap_orphans(int (*is_ours)(const void *of, pid_t pid),
                                      const void *of)
{
    const int how = WEXITED | WNOHANG | WNOWAIT |
                    (is_ours == NULL ? EMPM__WNOTHREAD : 0);
    siginfo_t who;
    for (;;) {
        who.si_pid = 0;
        if (waitid(P_ALL, 0, &who, how) < 0 || who.si_pid == 0 ||
            (is_ours != NULL && is_ours(of, who.si_pid)))
            return;                  /* there is a SIGCHLD to hear */
        waitpid(who.si_pid, NULL, WNOHANG);
    }
}

enum empm__serving { EMPM__SERVES, EMPM__DRAINS, EMPM__STOPS };

/* A process that serves, as its main thread sees it. */
typedef struct empm__attend {
    empm_server             *s;
    const empm__signal_set  *signals;
    int                      control;   /* the socket of the parent's orders */
    int                      alone;     /* there has never been a parent */
    enum empm__serving       phase;
    uint64_t                 delay_at_us;  /* a graceful stop begins; 0: none */
    uint64_t                 second_at_us; /* a stop from then on is a second
                                              one: `timeout` and make pass the
                                              first one on twice */
    uint64_t                 kill_at_us;   /* handlers have had their time */
    empm__alone              self;
} empm__attend;

/* A graceful stop is asked for by a signal: a balancer gets time to look
 * elsewhere first, if the settings give it some. Returns the order, or 0. */
static int empm__attend_graceful(empm__attend *a)
{
    const int ms = a->s->cfg->graceful_shutdown_delay_ms;
    if (a->delay_at_us != 0 || a->phase != EMPM__SERVES)
        return 0;
    if (ms == 0 || !a->alone)
        return EMPM__TELL_DRAIN;
    empm__store(&empm__score_server_at(&a->s->score)->draining, 1u);
    a->delay_at_us = empm__now_us() + (uint64_t)ms * 1000u;
    return 0;
}

/* What a signal means here. Returns the order that it is, or 0. */
static int empm__attend_signal(empm__attend *a, int sig)
{
    if (sig == SIGWINCH || sig == a->s->cfg->graceful_stop_signal)
        return empm__attend_graceful(a);
    if (sig == SIGTERM || sig == SIGINT)
        return EMPM__TELL_STOP;
    if (a->alone && (sig == SIGHUP || sig == SIGUSR1 || sig == SIGUSR2))
        empm__log(a->s->cfg, EMPM_LOG_WARN, 5030, "a process without children "
                  "cannot be reloaded or upgraded: ignored (SIGURG opens the "
                  "logs anew)");
    else if (sig == SIGCHLD && getpid() == 1 && EMPM__WNOTHREAD != 0)
        empm__parent_reap_orphans(NULL, NULL);
    else if (a->alone && sig == SIGURG)
        empm_reopen_logs(a->s);
    return 0;
}

/* The parent has died: what runs gets a second. */
static void empm__attend_orphaned(empm__attend *a)
{
    a->control = -1;
    a->kill_at_us = empm__now_us() + 1000000u;
    empm_stop(a->s);
    a->phase = EMPM__STOPS;
}

/* Drains, or changes its mind on whom connections go to. */
static void empm__attend_drain(empm__attend *a, int order)
{
    const empm_config *cfg = a->s->cfg;
    empm__poller *poller = &a->s->engine.poller;
    const int ms = empm__stop_drain_ms(cfg, order != EMPM__TELL_DRAIN);
    if (a->phase == EMPM__STOPS)
        return;
    if (a->phase == EMPM__DRAINS) {
        if (order == EMPM__TELL_DRAIN)
            empm_stop_graceful(a->s);    /* nobody serves on, after all */
        else if (order == EMPM__TELL_UPGRADE)
            empm__poller_order(poller, EMPM__ORDER_GRACEFUL |
                                           EMPM__ORDER_UPGRADE);
        return;
    }
    empm__store(&a->s->engine.drain_ms, ms);
    if (a->alone)
        empm__store(&empm__score_server_at(&a->s->score)->draining, 1u);
    empm__poller_order(poller, EMPM__ORDER_GRACEFUL |
                               (order == EMPM__TELL_UPGRADE
                                    ? EMPM__ORDER_UPGRADE
                                : order == EMPM__TELL_RESTART
                                    ? EMPM__ORDER_HAND_OVER : 0));
    a->kill_at_us = empm__stop_deadline_us(cfg, 1, ms, 1000);
    a->phase = EMPM__DRAINS;
}

/* Stops. EMPM_ETIMEDOUT: it is asked for a second time, by a signal. */
static int empm__attend_stop(empm__attend *a, int order)
{
    const empm_config *cfg = a->s->cfg;
    if (a->phase == EMPM__STOPS && a->control < 0 &&
        empm__now_us() >= a->second_at_us) {
        empm__log(cfg, EMPM_LOG_NOTICE, 5013, "second stop: exiting at once");
        return EMPM_ETIMEDOUT;
    }
    if (order == EMPM__TELL_REPLACED)
        empm__poller_order(&a->s->engine.poller, EMPM__ORDER_STOP |
                                                 EMPM__ORDER_HAND_OVER);
    else
        empm_stop(a->s);
    if (a->phase != EMPM__STOPS) {
        a->second_at_us = empm__now_us() + 1000000u;
        a->kill_at_us = empm__stop_deadline_us(cfg, 0, 0, 1000);
        a->phase = EMPM__STOPS;
    }
    return EMPM_OK;
}

/* Does as it is told. EMPM_ETIMEDOUT: the process has to end at once. */
static int empm__attend_obey(empm__attend *a, int order, empm__logs_swap *logs)
{
    switch (order) {
    case EMPM__TELL_LOGS:
        if (logs->n < 0)
            empm__log(a->s->cfg, EMPM_LOG_ERROR, 5045, "no descriptors for "
                      "new logs: the old files stay in use");
        empm__logs_swap_do(a->s, logs);
        empm__logs_swap_close(logs, 1);
        break;
    case EMPM__TELL_PING:
        empm__poller_order(&a->s->engine.poller, EMPM__ORDER_PING);
        break;
    case EMPM__TELL_ACCEPT:
        empm__poller_order(&a->s->engine.poller, EMPM__ORDER_ACCEPT);
        break;
    case EMPM__TELL_RESTART: case EMPM__TELL_UPGRADE: case EMPM__TELL_DRAIN:
        empm__attend_drain(a, order);
        break;
    case EMPM__TELL_REPLACED: case EMPM__TELL_STOP:
        return empm__attend_stop(a, order);
    default:
        break;
    }
    return EMPM_OK;
}

/* Waits for the next order, whatever it comes from, and obeys. 1: the engine
 * has ended; EMPM_OK; EMPM_ETIMEDOUT. */
static int empm__attend_once(empm__attend *a, int done)
{
    const int served = a->phase == EMPM__SERVES;
    const uint64_t now = empm__now_us();
    uint64_t at = empm__time_sooner(a->kill_at_us, a->delay_at_us);
    empm__logs_swap logs;
    int fds[3], k = -1, r, order = 0;
    unsigned char byte = 0;
    fds[0] = done;
    fds[1] = a->signals->fd[0];
    fds[2] = a->control;
    if (a->kill_at_us != 0 && a->kill_at_us <= now) {
        empm__log(a->s->cfg, EMPM_LOG_ERROR, 5012,
                  "handlers still run after StopTimeout: giving up");
        return EMPM_ETIMEDOUT;
    }
    if (a->alone)
        at = empm__time_sooner(
            at, empm__program_alone_chores(&a->self, a->s, !served));
    if (a->delay_at_us != 0 && a->delay_at_us <= now) {
        a->delay_at_us = 0;
        order = EMPM__TELL_DRAIN;
    } else
        k = empm__orders_next_byte(fds, 3, empm__time_left_ms(at), &byte,
                                   &logs);
    if (k == 0)
        return 1;
    if (k == 1)
        order = empm__attend_signal(a, empm__signals_meant(a->signals, byte));
    else if (k == 2 && byte == 0)
        empm__attend_orphaned(a);
    else if (k == 2)
        order = byte;
    r = empm__attend_obey(a, order, &logs);
    if (a->alone && served && a->phase != EMPM__SERVES)
        empm__program_notify(a->self.manager, "STOPPING=1");
    return r;
}

/* The main thread of a process that serves: takes orders until the engine has
 * ended. `control`: the socket of the parent's orders; or -1, and `manager`.
 * Returns EMPM_OK; EMPM_ETIMEDOUT: handlers still run, the process has to end
 * under them. */
static int empm__program_attend(empm_server *s, const empm__signal_set *signals,
                                int control, empm__manager *manager)
{
    empm__attend a;
    int done[2], r = EMPM_OK;
    memset(&a, 0, sizeof a);
    a.s = s;
    a.signals = signals;
    a.control = control;
    a.alone = control < 0;
    a.self.manager = manager;
    if (empm__fd_pipe(done, 1) < 0)
        return empm__program_no_pipe(s->cfg, "the end of the engine");
    empm__store_rel(&s->engine.done_fd, done[1]);
    if (empm__engine_wait(&s->engine, 0) != EMPM_OK)
        while ((r = empm__attend_once(&a, done[0])) == EMPM_OK)
            ;
    if (r < 0)
        return r;
    empm_wait(s, -1);
    close(done[0]);
    close(done[1]);
    return EMPM_OK;
}

/* Says which settings have been made that mean nothing without children. */
static void empm__check_childless(const empm_config *cfg, empm__report *rep)
{
    static const char *const names[] = {
        "StartServers", "ServerLimit", "MaxRequestWorkers", "MinSpareThreads",
        "MaxSpareThreads", "MaxConnectionsPerChild", "StartTimeout",
        "GracefulRestartTimeout"
    };
    const empm_config usual = empm_defaults();
    char text[256] = "";
    size_t i, n = 0;
    if (cfg->processes != 0)
        return;
    for (i = 0; i < EMPM__COUNT(names); i++) {
        const empm__directive *d = empm__directive_find(names[i]);
        if (memcmp((const char *)cfg + d->offset,
                   (const char *)&usual + d->offset, sizeof(int)) != 0)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s",
                                  n > 0 ? ", " : "", names[i]);
    }
    if (cfg->stuck_worker_replace)
        n += (size_t)snprintf(text + n, sizeof text - n, "%sreplace of "
                              "StuckWorkerTimeout", n > 0 ? ", " : "");
    if (n > 0)
        empm__report_say(rep, EMPM_LOG_NOTICE, 5049, "without children "
                         "(Processes 0, -X) these have no meaning: %s", text);
}

/* ---------------------------------------------------------------------------
 * >>identity -- whom to become, and the pid file
 *
 * Root gives up all that serving does not need, and each step is verified. What
 * the user who serves cannot use is found by a process that becomes that user.
 * ------------------------------------------------------------------------- */

/* Is there such a user? A user namespace may have root and nobody else. */
static int empm__identity_is_mapped(uid_t uid)
{
    unsigned long first, outside, count;
    FILE *f = fopen("/proc/self/uid_map", "re");
    int found = f == NULL;
    while (f != NULL && !found &&
           fscanf(f, "%lu %lu %lu", &first, &outside, &count) == 3)
        found = uid >= first && uid - first < count;
    if (f != NULL)
        fclose(f);
    return found;
}

/* Root does not serve unless User says so: where it is started as root and
 * there is none, nobody serves. Returns a remark for the notice, or NULL: User
 * stays as it is. An image may have neither of the names. */
static const char *empm__identity_default_user(empm_config *cfg)
{
    const struct passwd *nobody;
    if (geteuid() != 0 || cfg->user_name != NULL)
        return NULL;
    nobody = getpwnam("nobody");
    if (empm__identity_is_mapped(nobody != NULL ? nobody->pw_uid : 65534)) {
        cfg->user_name = nobody != NULL ? "nobody" : "#65534";
        return "\"User root\", if it must be root";
    }
    cfg->user_name = getpwnam("root") != NULL ? "root" : "#0";
    return "this user namespace has nobody else";
}

#define EMPM__DEFAULT_USER "started as root without User: %s serves (%s)"

#ifndef EVENTMPM_NO_FORK
/* What a process that serves has to do with the directory `path`, and what
 * comes of it if its user may not. */
typedef struct empm__use {
    const char *directive, *path;
    int         mode;
    const char *so;
} empm__use;

static int empm__identity_set_groups(const char *user, gid_t gid)
{
    return user[0] == '#' ? setgroups(0, NULL) : initgroups(user, gid);
}

/* In a process of its own: becomes that user and writes the number, from 1 on,
 * of each use that is not granted then; 255 and errno: it cannot become that
 * user. Directories are opened before, as the server does. */
static void empm__identity_try_uses(const empm_config *cfg,
                                    const empm__use *uses, int n, int to)
{
    uid_t uid;
    gid_t gid;
    int i, dirs[32];
    for (i = 0; i < n; i++)
        dirs[i] = open(uses[i].path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (empm__identity_user(cfg->user_name, &uid, &gid) < 0 ||
        (cfg->group_name != NULL &&
         empm__identity_group(cfg->group_name, &gid) < 0) ||
        (empm__identity_set_groups(cfg->user_name, gid) < 0 && uid != 0) ||
        setgid(gid) < 0 || setuid(uid) < 0)
        n = 0;
    for (i = n > 0 ? 0 : -1; i < n; i++)
        if (i < 0 || (dirs[i] >= 0 &&
                      faccessat(dirs[i], ".", uses[i].mode, 0) < 0)) {
            unsigned char at[2];
            ssize_t r;
            at[0] = (unsigned char)(i < 0 ? 255 : i + 1);
            at[1] = (unsigned char)errno;
            r = write(to, at, i < 0 ? 2 : 1);
            (void)r;
        }
}

/* Says which directories the user who will serve cannot use, and what to
 * type. */
static void empm__identity_check_uses(const empm_config *cfg, empm__report *rep)
{
    empm__use uses[32];
    char root[1200], spool[1200];
    int n = 0, fd[2];
    size_t i;
    unsigned char at;
    pid_t pid;
    if (geteuid() != 0 || cfg->user_name == NULL || empm__fd_pipe(fd, 0) < 0)
        return;
    memset(uses, 0, sizeof uses);
    uses[n].directive = "SpoolDirectory";
    uses[n].path = empm__config_path(cfg, cfg->spool_directory, spool,
                                     sizeof spool);
    uses[n].mode = W_OK | X_OK;
    uses[n++].so = "long bodies will be refused";
    for (i = 0; cfg->routes[i].kind != EMPM__ROUTE_END && n < 32; i++)
        if (cfg->routes[i].kind == EMPM__ROUTE_FILES) {
            const char *dir = cfg->routes[i].root;
            uses[n].directive = dir != NULL ? "EMPM_FILES" : "DocumentRoot";
            uses[n].path = dir != NULL ? dir
                                       : empm__config_path(cfg,
                                                           cfg->document_root,
                                                           root, sizeof root);
            uses[n].mode = X_OK;
            uses[n++].so = "no file will be found";
        }
    pid = fork();
    if (pid == 0) {
        empm__identity_try_uses(cfg, uses, n, fd[1]);
        _exit(0);
    }
    close(fd[1]);
    while (pid > 0) {
        const empm__use *use;
        const struct passwd *p;
        struct stat st;
        errno = 0;
        at = 0;
        if (empm__orders_next_byte(fd, 1, 5000, &at, NULL) < 0 &&
            errno == EINTR)
            continue;
        if (at == 0)
            break;                   /* that was all, or it takes too long */
        if (at > n) {
            unsigned char why = 0;
            ssize_t r = read(fd[0], &why, 1);
            (void)r;
            empm__report_say(rep, EMPM_LOG_ERROR, 5035, "User %s cannot be had "
                             "here%s%s (\"User root\" stays who it is)",
                             cfg->user_name,
                             why != 0 ? ": " : "", why != 0 ? strerror(why)
                                                            : "");
            continue;
        }
        use = &uses[at - 1];
        p = stat(use->path, &st) == 0 ? getpwuid(st.st_uid) : NULL;
        empm__report_say(rep, EMPM_LOG_WARN, 5043, "%s %s: %s may not use it, "
                         "%s: \"%s %s\", or \"User %s\", whose it is",
                         use->directive, use->path, cfg->user_name, use->so,
                         use->mode & W_OK ? "chmod o+wx" : "chmod -R o+rX",
                         use->path, p != NULL ? p->pw_name : "root");
    }
    close(fd[0]);
    if (pid > 0)
        kill(pid, SIGKILL);          /* it has ended, or hangs on a disk */
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}
#else
#define empm__identity_check_uses(cfg, rep) ((void)0)
#endif

/* Gives up what root has that a process which serves does not need. Every step
 * is verified: a server that believes to have dropped root and has not is worse
 * than none. */
static int empm__identity_become(const empm_server *s)
{
    const empm_config *cfg = s->cfg;
    const char *failed = NULL;
    char path[1200];
    const uid_t uid = s->uid;
    const gid_t gid = s->gid;
    if (cfg->core_dump_directory != NULL &&
        chdir(empm__config_path(cfg, cfg->core_dump_directory, path,
                                sizeof path)) < 0)
        failed = "chdir to CoreDumpDirectory";
    if (failed == NULL && cfg->user_name != NULL && geteuid() == 0) {
        if (setgroups((size_t)s->ngroups, s->groups) < 0 && uid != 0)
            failed = "setgroups";    /* (a namespace may deny it to its root) */
        else if (cfg->chroot_dir != NULL &&
                 (chroot(empm__config_path(cfg, cfg->chroot_dir, path,
                                           sizeof path)) < 0 || chdir("/") < 0))
            failed = "chroot";
        else if (setgid(gid) < 0)
            failed = "setgid";
        else if (setuid(uid) < 0)
            failed = "setuid";
        else if (uid != 0 && (setuid(0) == 0 || geteuid() != uid ||
                              getegid() != gid)) {
            failed = "leaving root";
            errno = EPERM;
        }
#ifdef __linux__
        /* nothing that is executed from here on can win more back */
        else if (uid != 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
            failed = "no_new_privs";
#endif
    }
#ifdef __linux__
    if (failed == NULL && cfg->core_dump_directory != NULL)
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);   /* setuid() has cleared it */
#endif
    if (failed == NULL)
        return EMPM_OK;
    empm__log(cfg, EMPM_LOG_ALERT, 5035, "User, Group, ChrootDir: %s: %s%s",
              failed, strerror(errno),
              errno == EPERM && cfg->user_name != NULL
                  ? " (\"User root\" stays who it is)" : "");
    return EMPM_ESYS;
}

/* What is printed on stderr from now on is in the ErrorLog. */
static void empm__program_stderr_to_log(const empm_config *cfg)
{
    if (cfg->log == empm__log_stderr && cfg->log_target > 0 &&
        !empm__logs_is_stderr(cfg))
        dup2(cfg->log_target, 2);
}

/* Nobody reads what a detached server says, unless there is an ErrorLog. */
static void empm__program_quiet(const empm_config *cfg)
{
    const int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        dup2(fd, 1);
        if (cfg->error_log == NULL || !empm__logs_is_stderr(cfg))
            dup2(fd, 2);
        if (cfg->error_log == NULL && cfg->log_target > 0 &&
            dup2(fd, cfg->log_target) > 2)
            empm__fd_flags(cfg->log_target, 0);
        close(fd);
    }
    empm__program_stderr_to_log(cfg);
}

/* --- the pid file --------------------------------------------------------- */

/* Who is alive holds a lock on it: a file that is left over from a crash, or
 * another program with that pid, is no obstacle. */
typedef struct empm__pid_file {
    int  fd;                         /* -1: none */
    char path[1200];
} empm__pid_file;

/* The pid that the file names (0: none), and whether that server runs. */
static int empm__pid_file_read(const char *path, long *pid)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    char text[32];
    ssize_t n;
    int runs;
    *pid = 0;
    if (fd < 0)
        return 0;
    n = read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    *pid = strtol(text, NULL, 10);
    runs = flock(fd, LOCK_SH | LOCK_NB) < 0 && empm__fd_would_block(errno) &&
           *pid > 0;
    close(fd);
    return runs;
}

/* A new file in place of the old one; readers see one or the other. */
static int empm__pid_file_write(const empm_config *cfg, empm__pid_file *f)
{
    char name[1240], text[32];
    const char *path = empm__config_path(cfg, cfg->pid_file, f->path,
                                         sizeof f->path);
    const int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    snprintf(name, sizeof name, "%s.%ld", path, (long)getpid());
    unlink(name);
    f->fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                 0644);
    if (f->fd >= 0 && write(f->fd, text, (size_t)n) == n &&
        flock(f->fd, LOCK_EX | LOCK_NB) == 0 && rename(name, path) == 0) {
        if (path != f->path)
            snprintf(f->path, sizeof f->path, "%s", path);
        return EMPM_OK;
    }
    empm__log(cfg, EMPM_LOG_ERROR, 5036, "PidFile %s: %s", path,
              strerror(errno));
    if (f->fd >= 0)
        close(f->fd);
    unlink(name);
    f->fd = -1;
    return EMPM_ESYS;
}

static void empm__pid_file_drop(empm__pid_file *f, int remove)
{
    struct stat ours, there;
    /* another name of the same file, or another server, may have replaced it */
    if (f->fd >= 0 && remove && fstat(f->fd, &ours) == 0 &&
        stat(f->path, &there) == 0 && ours.st_dev == there.st_dev &&
        ours.st_ino == there.st_ino)
        unlink(f->path);
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

#ifndef EVENTMPM_NO_FORK

/* ---------------------------------------------------------------------------
 * >>generations -- children: started, counted, replaced; generations of them
 *
 * The parent has one thread, serves nobody, and sleeps until something happens:
 * a signal, a byte from a child (EMPM__SAY_*), or a deadline. It keeps its own
 * table of pids and believes no child: counts from the scoreboard are clamped,
 * and nothing else is read from there.
 *
 * Growth and shrinking are Apache's: fewer idle workers than MinSpareThreads
 * start 1, 2, 4 ... 32 children a second, more than MaxSpareThreads end one.
 * While it does so it ticks once a second; ten quiet ticks later it sleeps.
 *
 * A start has to succeed within StartTimeout, as a reload has: if no child is
 * healthy then, or three have died and none ever was, the parent ends.
 *
 * A reload (HUP, USR1) makes a new generation of children from a new reading of
 * the configuration:
 *
 *   probe    a process that reads, checks and opens everything, and ends. User
 *            code may crash there: the parent must not die. If it fails, a log
 *            line says why, and that was all.
 *   wait     if the scoreboard has no room for a whole generation, since
 *            children of older ones drain yet: until they have ended (HUP stops
 *            them), then from the probe on.
 *   next     the new children, on the same sockets. Are they not healthy within
 *            StartTimeout they are killed, and that was all.
 *   commit   the new ones accept from here on, and the old ones drain: they
 *            give what waits for a request to the new ones (>>exchange), finish
 *            the rest, and end within GracefulRestartTimeout.
 *
 * An upgrade (USR2) starts the program anew, with the listening sockets, and
 * when that is ready this one drains. What is asked for while one of these is
 * under way is done after it.
 * ------------------------------------------------------------------------- */

#define EMPM__YOUNG_US 20000         /* a child that serves and dies within a
                                        second is replaced after this pause */

typedef struct empm__generation {    /* children that share a configuration */
    empm_config *cfg;                /* NULL: there is none */
    empm_server *s;
    int          target;             /* how many should serve */
    int          rate;               /* children per tick: 1, 2, 4 ... 32 */
    int          quick_deaths;     /* of children that never served, in a row */
    int          last_status;        /* how the last of these ended */
    int          ever_healthy;
    int          quiet_ticks;
    uint64_t     tick_us, spawn_us;  /* 0: none */
} empm__generation;

typedef struct empm__child {
    pid_t    pid;                    /* 0: the slot is free */
    int      control;                /* our end; its closing is our death */
    int      healthy, leaving, admin;
    int      accepts;                /* has been told to */
    uint32_t generation;
    uint64_t born_us;
    uint64_t stop_us, kill_us;     /* its drain, or it, has to end then; or 0 */
    uint32_t pongs;                  /* that it has answered */
    int      missed;                 /* pings in a row that it has not */
} empm__child;

enum empm__change {                   /* of a reload or an upgrade */
    EMPM__NO_CHANGE, EMPM__PROBING, EMPM__AWAITING, EMPM__STARTING,
    EMPM__UPGRADING
};

typedef struct empm__parent {
    const empm__source *source;
    void       (*hello)(const empm_server *);    /* or NULL */
    pid_t        pid;                /* this process */
    empm__generation    now, next;   /* next: not healthy yet */
    empm__child   *children;
    int          slots;
    int          ready;              /* the first generation was healthy once */
    int          stopping;           /* 1 drains, 2 stops, 3 at once */
    int          restarts;           /* that stop is for an upgrade */
    int          gave_up;            /* ... or because no child can live */
    uint64_t     first_us;           /* the first one has to be by then; or 0 */
    uint64_t     delay_us;           /* GracefulShutdownDelay ends; 0: none */
    uint64_t     twice_us;           /* from here on a second stop is meant */
    /* what is under way, and when it must be over */
    enum empm__change change;
    int          hard;               /* HUP: the old ones stop, not drain */
    int          need;               /* slots that it has been short of; or 0 */
    int          again, upgrades; /* asked for: a reload's signal, an upgrade */
    pid_t        helper;             /* the probe, or the new program */
    uint64_t     change_us;
    int          late;               /* the helper has been killed for that */
    int          upgrade_fd;         /* the helper says: content, or ready */
    int          ready_fd;           /* we say it to whom has started us */
    uint64_t     ping_us;
    empm__manager manager;
    uint64_t     looked_us;          /* when empm__watchdog_look() did, last */
    uint64_t     full_us;            /* "MaxRequestWorkers" not again before */
    int          pipe[2];            /* from the children */
    empm__pid_file pid_file;
    empm__signal_set signals;
} empm__parent;

/* A signal for a child of ours. Another part of the program may have reaped it:
 * then the number may be a stranger's by now. */
static void empm__child_kill(pid_t pid, int sig)
{
    siginfo_t who;
    if (waitid(P_PID, (id_t)pid, &who, WEXITED | WNOHANG | WNOWAIT) == 0)
        kill(pid, sig);
}

static empm__score_server *empm__parent_board(const empm__parent *p)
{
    return empm__score_server_at(&p->now.s->score);
}

/* ---------------------------------------------------------------------------
 * >>children -- a child is started, told, and replaced
 *
 * The parent keeps its own record of each child and believes the scoreboard
 * only for hints. Children that never served are replaced more and more slowly,
 * all others at once.
 * ------------------------------------------------------------------------- */

/* Those of a generation that serve (`admin`: on admin listeners). */
static int empm__children_serving(const empm__parent *p,
                                  const empm__generation *g,
                                  int admin, int healthy)
{
    int i, n = 0;
    for (i = 0; i < p->slots; i++)
        n += p->children[i].pid != 0 && !p->children[i].leaving &&
             p->children[i].generation == g->s->generation &&
             p->children[i].admin == admin &&
             (!healthy || p->children[i].healthy);
    return n;
}

static int empm__children_alive(const empm__parent *p)
{
    int i, n = 0;
    for (i = 0; i < p->slots; i++)
        n += p->children[i].pid != 0;
    return n;
}

/* The slots that a generation may come to hold. */
static int empm__generation_slots(const empm__generation *g)
{
    return empm__config_children_limit(g->cfg) + empm__server_has_admin(g->s);
}

/* All that a generation begins with have been healthy. */
static int empm__generation_ready(const empm__parent *p,
                                  const empm__generation *g)
{
    return empm__children_serving(p, g, 0, 1) >= g->target &&
           empm__children_serving(p, g, 1, 1) >= empm__server_has_admin(g->s);
}

/* Each child speaks up when fewer than this many of its workers are idle. */
static void empm__children_share_out(empm__parent *p, empm__generation *g)
{
    const int n = empm__children_serving(p, g, 0, 0);
    int i;
    for (i = 0; i < p->slots && n > 0; i++)
        if (p->children[i].generation == g->s->generation)
            empm__store(&empm__score_slot_at(&g->s->score, i)->spare_share,
                        (uint32_t)((g->cfg->min_spare_threads + n - 1) / n));
}

/* Closes what a forked process has inherited and must not hold: pipes to
 * siblings, who have to see our parent's death. */
static void empm__children_forget(empm__parent *p)
{
    int i;
    for (i = 0; i < p->slots; i++)
        if (p->children[i].control >= 0)
            close(p->children[i].control);
    EMPM_FREE(p->children);
    close(p->pipe[0]);
    close(p->signals.fd[0]);
    close(p->signals.fd[1]);
    if (p->upgrade_fd >= 0)
        close(p->upgrade_fd);
    if (p->ready_fd >= 0)
        close(p->ready_fd);
    empm__pid_file_drop(&p->pid_file, 0);
}

/* Until a process watches for the death of its parent by itself, the system
 * does: on, or off. */
static void empm__process_die_with_parent(pid_t parent, int on)
{
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, on ? SIGKILL : 0, 0, 0, 0);
    if (on && getppid() != parent)
        _exit(0);
#else
    (void)parent;
    (void)on;
#endif
}

/* The whole life of a child process. */
static void empm__child_main(empm__parent *p, empm__generation *g, int slot,
                             int admin, int control, const sigset_t *mask)
{
    empm__generation *other = g == &p->now ? &p->next : &p->now;
    empm_server *s = g->s;
    empm__signal_set own;
    size_t k;
    int r;
    empm__process_die_with_parent(p->pid, 1);
    empm__children_forget(p);
    if (empm__signals_take(&own, g->cfg->graceful_stop_signal) < 0) {
        empm__program_no_pipe(g->cfg, "signals");
        _exit(EMPM__EXIT_SICK);
    }
    for (k = 0; k < EMPM__SIGNALS + 1; k++) {  /* the parent decides on these */
        const int sig = empm__signals_at(&own, k);
        if (sig == SIGCHLD)
            signal(sig, SIG_DFL);
        else if (sig > 0 && sig != SIGTERM)
            empm__signals_take_one(sig, 0, NULL);
    }
    s->owns_signals = 1;
    sigprocmask(SIG_SETMASK, mask, NULL);
    s->parent_fd = p->pipe[1];
    s->owner = 0;                    /* unlinks nothing */
    if (other->s != NULL) {          /* its sockets, its files */
        other->s->owner = 0;
        other->s->borrows = 1;
        empm__server_free(other->s);
    }
    /* what is not ours to write cannot be written, not even by accident */
    if (mprotect(s->score.mem, s->score.bytes, PROT_READ) < 0 ||
        mprotect((void *)empm__score_at(&s->score, slot), s->score.child_bytes,
                 PROT_READ | PROT_WRITE) < 0) {
        empm__log(g->cfg, EMPM_LOG_ERROR, 5011, "mprotect of the scoreboard: "
                  "%s: see the system's limit of mappings (vm.max_map_count)",
                  strerror(errno));
        _exit(EMPM__EXIT_SICK);
    }
    if (empm__identity_become(s) < 0)
        _exit(EMPM__EXIT_FATAL);
    /* setuid() would have undone it */
    empm__process_die_with_parent(p->pid, 1);
    if (empm__server_engines_start(s, slot, admin) < 0)
        _exit(EMPM__EXIT_SICK);
    empm__process_die_with_parent(p->pid, 0);
    empm__store(&g->cfg->log_echo, 0);
    if (p->source->detached)
        empm__program_quiet(g->cfg);
    else
        empm__program_stderr_to_log(g->cfg);
    empm__engine_tell_parent(&s->engine, EMPM__SAY_HEALTHY);
    r = empm__program_attend(s, &own, control, NULL);
    if (r == EMPM_ETIMEDOUT)
        _exit(0);
    empm__server_engines_free(s);
    empm__server_free(s);
    _exit(r < 0 ? 1 : 0);
}

static int empm__child_start(empm__parent *p, empm__generation *g, int admin)
{
    empm__score_slot *at;
    int slot, control[2];
    pid_t pid;
    sigset_t old;
    empm__child *child;
    for (slot = 0; slot < p->slots && p->children[slot].pid != 0; slot++)
        ;
    if (slot == p->slots) {          /* drains of single children fill it */
        int k;
        empm__log(g->cfg, EMPM_LOG_ERROR, 485, "scoreboard is full: children "
                  "that drain %s", g == &p->now ? "get 2 s more" : "hold it");
        for (k = 0; k < p->slots && g == &p->now; k++)
            if (p->children[k].leaving && p->children[k].stop_us == 0)
                p->children[k].stop_us = empm__now_us() + 2000000u;
        return EMPM_ESYS;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, control) < 0) {
        empm__log(g->cfg, EMPM_LOG_ALERT, 481, "cannot start a child: "
                  "socketpair: %s", strerror(errno));
        return EMPM_ESYS;
    }
    empm__fd_flags(control[0], 0);
    empm__fd_flags(control[1], 1);   /* who reads nothing does not hold us */
    child = &p->children[slot];
    at = empm__score_slot_at(&g->s->score, slot);
    if (empm__load(&empm__parent_board(p)->top) <= (uint32_t)slot)
        empm__store(&empm__parent_board(p)->top, (uint32_t)slot + 1);
    empm__store(&empm__score_at(&g->s->score, slot)->healthy, 0u);
    empm__store(&empm__score_at(&g->s->score, slot)->stopping, 0u);
    empm__store(&at->leaving, 0u);
    empm__store(&at->admin, (uint32_t)admin);
    empm__store(&at->used, 1u);
    empm__store(&at->generation, g->s->generation);
    pid = empm__process_fork(&old);
    if (pid == 0) {
        close(control[1]);
        empm__child_main(p, g, slot, admin, control[0], &old);
    }
    if (pid < 0)
        empm__log(g->cfg, EMPM_LOG_ALERT, 481, "cannot start a child: fork: %s",
                  strerror(errno));
    close(control[0]);
    if (pid < 0) {
        close(control[1]);
        return EMPM_ESYS;
    }
    memset(child, 0, sizeof *child);
    child->control = control[1];
    child->pid = pid;
    child->admin = admin;
    child->generation = g->s->generation;
    child->born_us = empm__now_us();
    child->pongs = empm__load(&empm__score_at(&g->s->score, slot)->pongs);
    empm__store(&at->pid, (uint32_t)pid);
    empm__log(g->cfg, EMPM_LOG_INFO, 5014, "child %ld of generation %u started "
              "in slot %d", (long)pid, (unsigned)child->generation, slot);
    return EMPM_OK;
}

/* Writes an order to a child. 0: it does not read, and is told later or killed.
 */
static int empm__child_order(const empm__child *child, enum empm__tell order)
{
    const char byte = (char)order;
    return write(child->control, &byte, 1) == 1;
}

/* Tells a child to go: it counts no longer. kill_us: when it is killed. */
static void empm__child_tell_by(empm__parent *p, int slot,
                                enum empm__tell order, uint64_t kill_us)
{
    empm__child *child = &p->children[slot];
    empm__child_order(child, order);
    child->leaving = 1;
    if (child->kill_us == 0 || (kill_us != 0 && kill_us < child->kill_us))
        child->kill_us = kill_us;
    empm__store(&empm__score_slot_at(&p->now.s->score, slot)->leaving, 1u);
}

/* When a child has to be gone that gets this order now. */
static uint64_t empm__child_deadline(const empm__generation *g,
                                     enum empm__tell order)
{
    const int drains = order != EMPM__TELL_STOP &&
                       order != EMPM__TELL_REPLACED;
    return empm__stop_deadline_us(
        g->cfg, drains,
        empm__stop_drain_ms(g->cfg, order != EMPM__TELL_DRAIN), 2000);
}

/* The same, in the time that the settings give it. */
static void empm__child_tell(empm__parent *p, int slot, enum empm__tell order)
{
    empm__child_tell_by(p, slot, order, empm__child_deadline(&p->now, order));
}

/* The children of the generation that serves accept from here on, as they
 * become healthy. One that is only tried never does, so that its end loses
 * nothing. Returns when to try again, as one does not read its orders; 0: all
 * know. */
static uint64_t empm__children_accept(empm__parent *p)
{
    int i, deaf = 0;
    for (i = 0; i < p->slots; i++) {
        empm__child *child = &p->children[i];
        if (child->pid != 0 && child->healthy && !child->accepts &&
            !child->leaving && child->generation == p->now.s->generation) {
            child->accepts = empm__child_order(child, EMPM__TELL_ACCEPT);
            deaf |= !child->accepts;
        }
    }
    return deaf ? empm__now_us() + 100000u : 0;
}

/* Starts what is missing; those that cannot live are started more slowly. */
static void empm__children_replace(empm__parent *p, empm__generation *g)
{
    const uint64_t now = empm__now_us();
    int missing, k;
    if (g->s == NULL || p->stopping || g->spawn_us > now)
        return;
    g->spawn_us = 0;
    for (k = 0; k < 2; k++) {        /* 1: the child for admin listeners */
        missing = (k ? empm__server_has_admin(g->s) : g->target) -
                  empm__children_serving(p, g, k, 0);
        for (; missing > 0; missing--)
            if (empm__child_start(p, g, k) < 0) {
                g->spawn_us = now + 1000000u;
                break;
            }
    }
    empm__children_share_out(p, g);
}

/* A process that shares the listening sockets can make them blocking, or shut
 * them down, for all: that is set right. */
static void empm__parent_endpoints_mend(const empm_server *s)
{
    int k;
    for (k = 0; k < s->nendpoints; k++) {
        const empm__endpoint *l = &s->endpoints[k];
        const int fl = l->fd < 0 ? -1 : fcntl(l->fd, F_GETFL);
        if (fl < 0)
            continue;
        if (!(fl & O_NONBLOCK)) {
            empm__log(s->cfg, EMPM_LOG_WARN, 5008, "Listen %s: a process has "
                      "made it blocking: set right", l->text);
            fcntl(l->fd, F_SETFL, fl | O_NONBLOCK);
        }
        if (!empm__endpoint_is_listening(l->fd))
            empm__log(s->cfg, EMPM_LOG_ERROR, 5008, "Listen %s: a process has "
                      "shut it down: %s", l->text,
                      listen(l->fd, s->cfg->listen_backlog) == 0
                          ? "opened again" : strerror(errno));
    }
}

static void empm__child_died(empm__parent *p, int slot, int status)
{
    empm__child *child = &p->children[slot];
    const empm__score *sb = &p->now.s->score;
    empm__score_child *score = empm__score_at(sb, slot);
    empm__generation *g = p->next.s != NULL &&
                          child->generation == p->next.s->generation ? &p->next
                                                                     : &p->now;
    const uint64_t now = empm__now_us();
    const int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    /* MaxConnectionsPerChild: its end may be seen before its word is heard */
    const int asked = child->leaving || p->stopping ||
                      (status == 0 && empm__load(&score->stopping));
    const int was_old = child->generation < p->now.s->generation;
    const int served = child->healthy || empm__load(&score->healthy);
    const int young = now - child->born_us < 1000000u;
    const uint32_t generation = child->generation;
    int t, left = 0;
    if (sig != 0) {
#ifdef WCOREDUMP
        const int core = WCOREDUMP(status);
#else
        const int core = 0;
#endif
        empm__log(g->cfg, asked && sig == SIGKILL ? EMPM_LOG_WARN
                                                  : EMPM_LOG_ERROR,
                  core ? 51 : 52, "child %ld exit signal %s (%d)%s",
                  (long)child->pid, strsignal(sig), sig,
                  core ? ", core dumped" : "");
    } else
        empm__log(g->cfg, asked ? EMPM_LOG_INFO : EMPM_LOG_ERROR, 5015,
                  "child %ld exited with status %d%s", (long)child->pid,
                  WEXITSTATUS(status),
                  asked || WEXITSTATUS(status) != 0
                      ? "" : ": nobody has asked it to; has a handler called "
                             "exit()?");
    if (!asked) {
        empm__bump(&empm__parent_board(p)->died, 1u);
        empm__parent_endpoints_mend(p->now.s);
    }
    if (!asked && (!served || (young && g == &p->next) ||
                   (sig == 0 && WEXITSTATUS(status) == EMPM__EXIT_SICK))) {
        /* three may fail, then it takes 0.1, 0.2 ... 12.8 s */
        g->last_status = status;
        if (++g->quick_deaths > 3)
            g->spawn_us = now + (100000u << (g->quick_deaths < 11
                                                 ? g->quick_deaths - 4 : 7));
        if (sig == 0 && WEXITSTATUS(status) == EMPM__EXIT_FATAL)
            g->quick_deaths = 99;
    } else if (!asked) {             /* it has served: so will the next one */
        g->quick_deaths = 0;
        if (young && g->spawn_us <= now)
            g->spawn_us = now + EMPM__YOUNG_US;
    }
    close(child->control);
    memset(child, 0, sizeof *child);
    child->control = -1;
    empm__store(&empm__score_slot_at(sb, slot)->pid, 0u);
    empm__store(&score->healthy, 0u);
    empm__score_gauges(sb, slot);    /* or they were shown of the next one */
    empm__exchange_ring(&p->now.s->exchange); /* it may have been woken alone */
    for (t = 0; t < sb->threads; t++)
        empm__store(&empm__score_worker_at(sb, slot, t)->status,
                    (uint32_t)'.');
    for (t = 0; t < p->slots; t++)
        left += p->children[t].pid != 0 &&
                p->children[t].generation == generation;
    if (was_old && left == 0)
        empm__log(p->now.cfg, EMPM_LOG_NOTICE, 5034, "generation %u has ended: "
                  "its log files can be rotated", (unsigned)generation);
}

/* ---------------------------------------------------------------------------
 * >>growth -- how many children, and the end of all
 *
 * Once a second, while anything changes, idle workers are counted over all
 * children; too few start 1, 2, 4 ... children, too many end one. Each
 * WatchdogInterval every child is asked whether it is alive.
 * ------------------------------------------------------------------------- */

/* One look at the idle workers of all children. */
static void empm__children_maintain(empm__parent *p)
{
    empm__generation *g = &p->now;
    const empm_config *cfg = g->cfg;
    const int most = cfg->max_request_workers / cfg->threads_per_child;
    const uint64_t now = empm__now_us();
    int i, idle = 0, spare, starting = 0, below = 0, victim = -1;
    uint32_t fewest = 0, queued = 0, open = 0;
    g->tick_us = 0;
    if (p->stopping)
        return;
    for (i = 0; i < p->slots; i++) {
        const empm__score_child *score = empm__score_at(&g->s->score, i);
        const empm__child *child = &p->children[i];
        uint32_t n, conns;
        if (child->pid == 0 || child->leaving || child->admin ||
            child->generation != g->s->generation)
            continue;
        if (!child->healthy) {
            starting++;
            continue;
        }
        n = empm__load(&score->idle_workers);
        idle += (int)(n < (uint32_t)cfg->threads_per_child
                          ? n : (uint32_t)cfg->threads_per_child);
        below |= n < empm__score_slot_at(&g->s->score, i)->spare_share;
        conns = empm__load(&score->connections);
        open += conns;
        queued += empm__load(&score->queued);
        if (victim < 0 || conns < fewest) {
            victim = i;
            fewest = conns;
        }
    }
    idle += starting * cfg->threads_per_child;
    /* what waits in one child is served by another one */
    spare = idle - (int)empm__min(queued, (size_t)INT_MAX / 2);
    g->tick_us = now + 1000000u;
    if (spare < cfg->min_spare_threads && g->target < most) {
        g->target = g->target + g->rate < most ? g->target + g->rate : most;
        empm__log(cfg, g->rate >= 8 ? EMPM_LOG_NOTICE : EMPM_LOG_INFO, 486,
                  "%d idle workers, %u requests wait for one: %d children from "
                  "now on", idle, queued, g->target);
        g->rate = g->rate < 32 ? g->rate * 2 : 32;
        g->quiet_ticks = 0;
        empm__children_replace(p, g);
    } else if (spare > cfg->max_spare_threads && victim >= 0 && g->target > 1) {
        g->target--;
        g->rate = 1;
        g->quiet_ticks = 0;
        empm__child_tell(p, victim, EMPM__TELL_RESTART);
        empm__children_share_out(p, g);
    } else {
        g->rate = 1;
        if (idle == 0 && victim >= 0 && g->target >= most &&
            p->full_us <= now) {
            p->full_us = now + 60000000u;
            empm__log(cfg, EMPM_LOG_ERROR, 484, "server reached "
                      "MaxRequestWorkers of %d, consider raising it: %u "
                      "requests wait for a worker, %u connections are open",
                      cfg->max_request_workers, queued, open);
        }
        if ((++g->quiet_ticks >= 10 || cfg->processes > 0) && !below)
            g->tick_us = 0;          /* until a child speaks up */
    }
}

/* --- the watchdog --------------------------------------------------------- */

/* Every WatchdogInterval: a child whose main thread and listener have not
 * answered three pings is killed, and so replaced. SIGKILL: TERM does not reach
 * a process that is stopped. */
static void empm__watchdog_look(empm__parent *p)
{
    const uint64_t every = (uint64_t)p->now.cfg->watchdog_interval_ms * 1000u;
    const uint64_t now = empm__now_us(), last = p->looked_us;
    /* We are late ourselves: the machine was suspended, or is overloaded */
    const int late = now - p->ping_us > every / 2;
    int i, ends, busy = 0, idle = 0;
    p->ping_us = every > 0 ? now + every : 0;
    p->looked_us = now;
    if (!p->stopping)
        empm__parent_endpoints_mend(p->now.s);
    for (i = 0; i < p->slots; i++) {
        empm__child *child = &p->children[i];
        if (child->pid == 0 || !child->healthy)
            continue;
        /* one that leaves has its own end, and until then slow hooks may run */
        ends = child->leaving && (child->kill_us != 0 || !empm__load(
                   &empm__score_at(&p->now.s->score, i)->healthy));
        child->missed = empm__watchdog_missed(p->now.s, i, (long)child->pid,
                                              &child->pongs,
                                              child->missed, late || ends);
        if (child->missed >= 3) {
            empm__log(p->now.cfg, EMPM_LOG_ERROR, 5038, "child %ld has not "
                      "answered for three times WatchdogInterval: killed",
                      (long)child->pid);
            child->missed = 0;
            empm__child_kill(child->pid, SIGKILL);
            continue;
        }
        empm__child_order(child, EMPM__TELL_PING);
        if (empm__watchdog_look_for_stuck(p->now.s, i, (long)child->pid, last,
                                          now) &&
            p->now.cfg->stuck_worker_replace && !child->leaving)
            empm__child_tell(p, i, EMPM__TELL_RESTART);
        if (!child->admin && child->generation == p->now.s->generation) {
            const int n = empm__watchdog_idle(p->now.s, i);
            idle += n;
            busy += p->now.cfg->threads_per_child - n;
        }
    }
    empm__program_notify(&p->manager, "STATUS=Serving: %d busy, %d idle "
                         "workers", busy, idle);
}

/* --- stopping ------------------------------------------------------------- */

static void empm__reload_change_end(empm__parent *p)
{
    p->change = EMPM__NO_CHANGE;
    p->change_us = 0;
    p->helper = 0;
    if (p->upgrade_fd >= 0)
        close(p->upgrade_fd);
    p->upgrade_fd = -1;
}

/* The generation that was to be next is not. */
static void empm__reload_drop_candidate(empm__parent *p)
{
    int i;
    if (p->next.s == NULL)
        return;
    for (i = 0; i < p->slots; i++)
        if (p->children[i].pid != 0 &&
            p->children[i].generation == p->next.s->generation) {
            p->children[i].leaving = 1;
            empm__child_kill(p->children[i].pid, SIGKILL);
        }
    empm__server_free(p->next.s);
    empm_config_free(p->next.cfg);
    EMPM_FREE(p->next.cfg);
    memset(&p->next, 0, sizeof p->next);
}

/* Tells all children to go, and stops for good: a second stop kills them. */
static void empm__parent_stop(empm__parent *p, enum empm__tell order)
{
    const uint64_t now = empm__now_us();
    int i;
    if (p->stopping >= 3 || (p->stopping == 1 && order != EMPM__TELL_STOP) ||
        (p->stopping == 2 && now < p->twice_us))
        return;                      /* `timeout` and make both pass one on */
    p->delay_us = p->now.spawn_us = 0;
    empm__store(&empm__parent_board(p)->draining, 1u);
    if (p->stopping == 2) {          /* asked twice */
        p->stopping = 3;
        empm__log(p->now.cfg, EMPM_LOG_NOTICE, 5013,
                  "second stop: children are killed");
        for (i = 0; i < p->slots; i++)
            if (p->children[i].pid != 0)
                empm__child_kill(p->children[i].pid, SIGKILL);
        return;
    }
    if (p->helper > 0 && !p->restarts)
        empm__child_kill(p->helper, p->change == EMPM__UPGRADING ? SIGTERM
                                                                 : SIGKILL);
    empm__reload_drop_candidate(p);
    if (p->change != EMPM__UPGRADING)
        empm__reload_change_end(p);
    p->twice_us = now + 1000000u;
    p->stopping = order == EMPM__TELL_STOP ? 2 : 1;
    if (!p->restarts)                /* else the new one speaks */
        empm__program_notify(&p->manager, "STOPPING=1");
    for (i = 0; i < p->slots; i++)
        if (p->children[i].pid != 0)
            empm__child_tell(p, i, order);
    for (i = 0; i < p->now.s->nendpoints; i++)
        if (p->now.s->endpoints[i].fd >= 0) {
            close(p->now.s->endpoints[i].fd);
            p->now.s->endpoints[i].fd = -1;
        }
}

/* Health is 503 for a while, so that a balancer looks elsewhere; then it
 * ends. */
static void empm__parent_stop_softly(empm__parent *p)
{
    const int ms = p->now.cfg->graceful_shutdown_delay_ms;
    if (p->stopping || p->delay_us != 0)
        return;
    empm__log(p->now.cfg, EMPM_LOG_NOTICE, 492,
              "caught a signal for a graceful stop");
    empm__store(&empm__parent_board(p)->draining, 1u);
    if (p->change == EMPM__UPGRADING && p->helper > 0)
        empm__child_kill(p->helper, SIGTERM); /* else it would serve on */
    if (ms == 0)
        empm__parent_stop(p, EMPM__TELL_DRAIN);
    else
        p->delay_us = empm__now_us() + (uint64_t)ms * 1000u;
}

/* ---------------------------------------------------------------------------
 * >>reload -- a new generation, tried before it serves
 *
 * A reload is read by a process that may crash, then started beside the old
 * children, and committed when all of it is healthy. Until then nothing has
 * changed.
 * ------------------------------------------------------------------------- */

/* Only what stops a reload: its probe has said the rest. */
static void empm__reload_report_errors(enum empm_log_level level,
                                       const char *line, void *user)
{
    if (level <= EMPM_LOG_ERROR)
        empm__server_report_to_log(level, line, user);
}

/* A new generation, without children yet. What is wrong with it is said in the
 * log of the one that serves, what is corrected only by the probe. */
static int empm__generation_new(empm__parent *p, empm__generation *g, int probe)
{
    empm__report rep;
    memset(g, 0, sizeof *g);
    memset(&rep, 0, sizeof rep);
    rep.say = probe ? empm__server_report_to_log : empm__reload_report_errors;
    rep.user = p->now.cfg;
    g->cfg = empm__program_config_new(p->source, &rep);
    if (g->cfg == NULL)
        return EMPM_EINVAL;
    if (g->cfg->log == NULL)
        g->cfg->log = empm__log_stderr;
    if (g->cfg->on_reload == NULL ||
        g->cfg->on_reload(g->cfg, g->cfg->user) == EMPM_OK) {
        empm__identity_default_user(g->cfg);
        if (empm__server_new(g->cfg, 1, p->now.s, &rep, &g->s) == EMPM_OK) {
            const int serving = empm__children_serving(p, &p->now, 0, 0);
            const int most = empm__config_children_limit(g->cfg);
            g->target = g->cfg->start_servers > serving
                            ? g->cfg->start_servers
                            : serving < most ? serving : most;
            g->rate = 1;
            return EMPM_OK;
        }
    } else
        empm__log(p->now.cfg, EMPM_LOG_ERROR, 5032, "on_reload has refused");
    empm_config_free(g->cfg);
    EMPM_FREE(g->cfg);
    memset(g, 0, sizeof *g);
    return EMPM_EINVAL;
}

/* How a process ended, by what waitpid() says. */
static const char *empm__child_ending(int status, char *to, size_t n)
{
    if (WIFSIGNALED(status))
        snprintf(to, n, "signal %s (%d)", strsignal(WTERMSIG(status)),
                 WTERMSIG(status));
    else
        snprintf(to, n, "status %d", WEXITSTATUS(status));
    return to;
}

static void empm__reload_end(empm__parent *p, const char *fmt, ...)
    EMPM__PRINTF(2, 3);

/* The reload has failed, and `fmt` says why, or (NULL) has ended; there may be
 * another one to do. */
static void empm__reload_end(empm__parent *p, const char *fmt, ...)
{
    char why[200];
    const char *failed = fmt != NULL ? why : NULL;
    va_list ap;
    if (fmt != NULL) {
        va_start(ap, fmt);
        vsnprintf(why, sizeof why, fmt, ap);
        va_end(ap);
    }
    empm__reload_change_end(p);
    if (failed != NULL) {
        empm__bump(&empm__parent_board(p)->failed_reloads, 1u);
        empm__log(p->now.cfg, EMPM_LOG_ERROR, 5032, "%s: the generation that "
                  "serves goes on", failed);
    }
    empm__program_notify(&p->manager, "READY=1\nSTATUS=%s",
                         failed != NULL ? failed : "Serving");
}

/* Tries the new configuration in a process of its own. */
static void empm__reload_probe(empm__parent *p)
{
    int fd[2];
    sigset_t old;
    if (empm__fd_pipe(fd, 1) < 0) {
        empm__reload_end(p, "pipe: %s", strerror(errno));
        return;
    }
    p->change = EMPM__PROBING;
    p->change_us = empm__now_us() +
                  (uint64_t)p->now.cfg->start_timeout_ms * 1000u;
    p->late = 0;
    p->upgrade_fd = -1;
    p->helper = empm__process_fork(&old);
    if (p->helper == 0) {
        empm__generation g;
        close(fd[0]);
        empm__children_forget(p);
        p->children = NULL;
        p->slots = 0;
        empm__signals_default(&p->signals, 0);
        empm__process_die_with_parent(p->pid, 1);
        sigprocmask(SIG_SETMASK, &old, NULL);
        if (empm__generation_new(p, &g, 1) < 0)
            _exit(1);
        empm__server_free(g.s);
        _exit(write(fd[1], "c", 1) == 1 ? 0 : 1);
    }
    if (p->helper < 0)
        empm__reload_end(p, "fork: %s", strerror(errno));
    close(fd[1]);
    if (p->helper > 0)
        p->upgrade_fd = fd[0];
    else
        close(fd[0]);
}

static void empm__reload_begin(empm__parent *p, int sig)
{
    empm__log(p->now.cfg, EMPM_LOG_NOTICE, sig == SIGHUP ? 494 : 493,
              sig == SIGHUP ? "SIGHUP received: restarting"
                            : "SIGUSR1 received: graceful restart");
    empm__program_notify(&p->manager, "RELOADING=1\nMONOTONIC_USEC=%llu\n"
                         "STATUS=Reading configuration",
                         (unsigned long long)empm__now_us());
    p->hard = sig == SIGHUP;
    p->need = 0;
    empm__reload_probe(p);
}

/* Those that drain stop: what is asked for now is a restart. */
static void empm__children_stop_drains(empm__parent *p)
{
    int i;
    for (i = 0; i < p->slots; i++)
        if (p->children[i].pid != 0 && p->children[i].leaving)
            empm__child_tell(p, i, EMPM__TELL_REPLACED);
}

/* Is there room for all children of a new generation? */
static int empm__reload_has_room(const empm__parent *p)
{
    const int need = empm__generation_slots(&p->now);
    return p->slots - empm__children_alive(p) >= (need > p->need ? need
                                                                 : p->need);
}

static void empm__reload_await(empm__parent *p)
{
    p->change = EMPM__AWAITING;
    p->change_us = 0;
    empm__log(p->now.cfg, EMPM_LOG_NOTICE, 485, "the scoreboard has no room "
              "for a new generation: it waits for children that drain "
              "(ServerLimit, GracefulRestartTimeout)");
    if (p->hard)
        empm__children_stop_drains(p);
}

static void empm__reload_start(empm__parent *p)
{
    p->helper = 0;
    if (empm__reload_has_room(p)) {
        if (empm__generation_new(p, &p->next, 0) < 0) {
            empm__reload_end(p, "the new generation cannot be made");
            return;
        }
        p->need = empm__generation_slots(&p->next);
        if (!empm__reload_has_room(p))
            empm__reload_drop_candidate(p);
    }
    if (p->next.s == NULL) {
        empm__reload_await(p);
        return;
    }
    p->change = EMPM__STARTING;
    p->change_us = empm__now_us() +
                  (uint64_t)p->now.cfg->start_timeout_ms * 1000u;
    empm__children_replace(p, &p->next);
}

/* What may differ for sockets that were there before. */
static void empm__parent_endpoints_options(const empm_server *s)
{
    empm__endpoint_spec spec;
    int k;
    for (k = 0; k < s->nendpoints; k++) {
        const empm__endpoint *l = &s->endpoints[k];
        if (empm__endpoint_parse(&spec, l->text) != NULL || l->fd < 0 ||
            spec.kind == EMPM__ENDPOINT_FD ||
            spec.kind == EMPM__ENDPOINT_SYSTEMD)
            continue;
        listen(l->fd, s->cfg->listen_backlog);
        if (spec.kind != EMPM__ENDPOINT_UNIX)
            empm__endpoint_buffers(s->cfg, l->fd);
        if (spec.kind == EMPM__ENDPOINT_UNIX &&
            empm__endpoint_unix_rights(spec.host, &l->rights) < 0)
            empm__log(s->cfg, EMPM_LOG_ERROR, 72, "Listen %s: its mode, user "
                      "and group stay as they are: %s", l->text,
                      strerror(errno));
    }
}

/* What this process itself has from the configuration, as it is now. */
static void empm__parent_apply(empm__parent *p, const empm_config *old)
{
    const empm_config *cfg = p->now.cfg;
    empm__pid_file f;
    char path[1200];
    const int names = cfg->pid_file != NULL;
    empm__signals_set_graceful(&p->signals, cfg->graceful_stop_signal);
    if ((cfg->send_buffer_size == 0 && old->send_buffer_size > 0) ||
        (cfg->receive_buffer_size == 0 && old->receive_buffer_size > 0))
        empm__log(cfg, EMPM_LOG_WARN, 5047, "SendBufferSize or "
                  "ReceiveBufferSize 0: sockets that stay keep the old size "
                  "until a restart");
    if (names == (p->pid_file.fd >= 0) &&
        (!names || strcmp(empm__config_path(cfg, cfg->pid_file, path,
                                            sizeof path),
                          p->pid_file.path) == 0))
        return;
    f.fd = -1;
    if (names && empm__pid_file_write(cfg, &f) < 0)
        return;                      /* said; the old one stays */
    empm__pid_file_drop(&p->pid_file, 1);
    p->pid_file = f;
}

/* The new generation is healthy: the old one drains. */
static void empm__reload_commit(empm__parent *p)
{
    const enum empm__tell order = p->hard ? EMPM__TELL_REPLACED
                                          : EMPM__TELL_RESTART;
    const uint64_t kill_us = empm__child_deadline(&p->now, order);
    empm__generation old = p->now;
    int i, k;
    p->now = p->next;
    memset(&p->next, 0, sizeof p->next);
    p->now.ever_healthy = 1;
    p->now.tick_us = empm__now_us() + 1000000u;
    empm__children_accept(p);
    for (i = 0; i < p->slots; i++)
        if (p->children[i].pid != 0 &&
            (p->children[i].generation == old.s->generation ||
             (p->hard && p->children[i].generation < old.s->generation)))
            empm__child_tell_by(p, i, order, kill_us);
    /* what is shared is the new one's, and so are the files of sockets */
    p->now.s->borrows = 0;
    old.s->borrows = 1;
    for (i = 0; i < old.s->nendpoints; i++)
        for (k = 0; k < p->now.s->nendpoints; k++) {
            empm__endpoint *from = &old.s->endpoints[i];
            empm__endpoint *to = &p->now.s->endpoints[k];
            const size_t n = strlen(from->path);
            if (n > 0 && strncmp(to->text, "unix:", 5) == 0 &&
                strcspn(to->text + 5, " \t") == n &&
                memcmp(to->text + 5, from->path, n) == 0) {
                memcpy(to->path, from->path, sizeof to->path);
                from->path[0] = '\0';
            }
        }
    empm__parent_endpoints_options(p->now.s);
    empm__parent_apply(p, old.cfg);
    empm__server_free(old.s);
    empm_config_free(old.cfg);
    EMPM_FREE(old.cfg);
    empm__parent_board(p)->generation = p->now.s->generation;
    empm__parent_board(p)->reloads++;
    empm__parent_board(p)->restarted_s = (int64_t)time(NULL);
    if (p->source->detached)
        empm__program_stderr_to_log(p->now.cfg);
    p->ping_us = p->now.cfg->watchdog_interval_ms > 0
                     ? empm__now_us() +
                           (uint64_t)p->now.cfg->watchdog_interval_ms * 1000u
                     : 0;
    empm__log(p->now.cfg, EMPM_LOG_NOTICE, 489, "generation %u serves: "
              "resuming normal operations", (unsigned)p->now.s->generation);
    empm__reload_end(p, NULL);
}

/* --- logs ----------------------------------------------------------------- */

/* Opens the logs anew. Children may have no right to do so: they get ours. */
static void empm__parent_reopen(empm__parent *p)
{
    empm__logs_swap w;
    int i, r;
    w.n = 0;
    r = empm__logs_swap_open(p->now.s, &w);
    if (p->next.s != NULL && empm__logs_swap_open(p->next.s, &w) < 0)
        r = EMPM_ESYS;
    for (i = 0; i < p->slots && w.n > 0; i++)
        if (p->children[i].pid != 0 &&
            empm__fd_send(p->children[i].control, "l", 1, w.fd,
                          (size_t)w.n * 2, 0) < 0)
            empm__log(p->now.cfg, EMPM_LOG_ERROR, 5045, "child %ld keeps its "
                      "old logs: %s", (long)p->children[i].pid,
                      strerror(errno));
    empm__logs_swap_do(p->now.s, &w);
    if (p->next.s != NULL)
        empm__logs_swap_do(p->next.s, &w);
    empm__logs_swap_close(&w, 0);
    if (r == EMPM_OK)
        empm__log(p->now.cfg, EMPM_LOG_NOTICE, 5045, "the logs are opened "
                  "anew");
}

/* ---------------------------------------------------------------------------
 * >>upgrade -- a new program, on the same sockets
 *
 * The new program inherits listening sockets and the exchange, and says over a
 * pipe that it serves; only then does this one drain.
 * ------------------------------------------------------------------------- */

/* A listen string as the name of a socket. */
static void empm__inherited_escape(char *to, size_t n, const char *text)
{
    size_t k = 0;
    for (; *text != '\0' && k + 4 < n; text++)
        if (*text == ':' || *text == '%')
            k += (size_t)snprintf(to + k, n - k, "%%%02X", (unsigned)*text);
        else
            to[k++] = *text;
    to[k] = '\0';
}

/* The new program cannot be started. The log may stand where a socket is now:
 * who has forked us says so, and why. */
static void empm__upgrade_exec_failed(int ready)
{
    unsigned char text[2];
    ssize_t r;
    text[0] = 'E';
    text[1] = (unsigned char)errno;
    r = write(ready, text, 2);
    (void)r;
    _exit(127);
}

/* In the forked process: the sockets from descriptor 3 on, `ready`, the
 * exchange, and the program. */
static void empm__upgrade_exec(empm__parent *p, int ready)
{
    const empm_server *s = p->now.s;
    const empm__exchange *x = &s->exchange;
    const int others[] = { ready, x->fd[0], x->fd[1], x->bell[0], x->bell[1] };
    const int n = s->nendpoints, all = n + (int)EMPM__COUNT(others);
    char names[EMPM_MAX_LISTEN * 3 * 256] = "", one[3 * 256], number[80];
    int fds[EMPM_MAX_LISTEN + EMPM__COUNT(others)], i;
    for (i = 0; i < all; i++) {      /* first out of the way, then into place */
        fds[i] = fcntl(i < n ? s->endpoints[i].fd : others[i - n],
                       F_DUPFD_CLOEXEC, EMPM__HERITAGE_FD + EMPM_MAX_LISTEN +
                                            (int)EMPM__COUNT(others));
        if (fds[i] < 0)
            empm__upgrade_exec_failed(ready);
    }
    for (i = 0; i < all; i++)
        if (dup2(fds[i], EMPM__HERITAGE_FD + i) < 0)
            empm__upgrade_exec_failed(fds[n]);
    for (i = 0; i < n; i++) {
        const char *text = s->endpoints[i].text;
        if (strncmp(text, "systemd:", 8) == 0)
            text += 8;
        empm__inherited_escape(one, sizeof one, text);
        one[strcspn(one, " \t")] = '\0';     /* the address without options */
        strcat(names, i > 0 ? ":" : "");
        strcat(names, one);
    }
    snprintf(number, sizeof number, "%d", n);
    setenv("LISTEN_FDS", number, 1);
    setenv("LISTEN_FDNAMES", names, 1);
    snprintf(number, sizeof number, "%ld", (long)getpid());
    setenv("LISTEN_PID", number, 1);
    empm__manager_return(&p->manager);
    snprintf(number, sizeof number, "%d", EMPM__HERITAGE_FD + n);
    setenv("EMPM_READY_FD", number, 1);
    i = EMPM__HERITAGE_FD + n + 1;
    snprintf(number, sizeof number, "%u:%d,%d,%d,%d", EMPM__MOVE_VERSION, i,
             i + 1, i + 2, i + 3);
    setenv("EMPM_EXCHANGE", number, 1);
    execvp(p->source->argv[0], p->source->argv);
    empm__upgrade_exec_failed(fds[n]);
}

static void empm__upgrade_begin(empm__parent *p)
{
    int fd[2];
    sigset_t old;
    if (getpid() == 1) {             /* our end would be that of all */
        empm__log(p->now.cfg, EMPM_LOG_ERROR, 5039, "SIGUSR2: process 1 cannot "
                  "be replaced: ignored");
        return;
    }
    if (p->source->argv == NULL || empm__fd_pipe(fd, 1) < 0) {
        empm__log(p->now.cfg, EMPM_LOG_ERROR, 5039, "SIGUSR2: %s: ignored",
                  p->source->argv == NULL ? "an upgrade needs empm_main()"
                                          : strerror(errno));
        return;
    }
    empm__log(p->now.cfg, EMPM_LOG_NOTICE, 5040, "SIGUSR2 received: starting "
              "%s with the listening sockets", p->source->argv[0]);
    p->late = 0;
    p->helper = empm__process_fork(&old);
    if (p->helper == 0) {
        empm__signals_default(&p->signals, 1);   /* nohup is for both */
        sigprocmask(SIG_SETMASK, &p->signals.old_mask, NULL);
        empm__upgrade_exec(p, fd[1]);
    }
    if (p->helper < 0)
        empm__reload_end(p, "fork: %s", strerror(errno));
    close(fd[1]);
    if (p->helper <= 0) {            /* there is none */
        close(fd[0]);
        return;
    }
    p->change = EMPM__UPGRADING;
    p->upgrade_fd = fd[0];
    p->change_us = empm__now_us() +
                  (uint64_t)p->now.cfg->start_timeout_ms * 1000u;
}

/* 'R': the new program serves. 'E' and errno, or the end of file: it never
 * will. */
static void empm__upgrade_heard(empm__parent *p, unsigned char byte)
{
    unsigned char why = 0;
    if (byte == 'E' && read(p->upgrade_fd, &why, 1) == 1)
        empm__log(p->now.cfg, EMPM_LOG_ERROR, 5039, "cannot start %s: %s",
                  p->source->argv[0], strerror(why));
    close(p->upgrade_fd);
    p->upgrade_fd = -1;
    if (byte != 'R' && byte != 'X')
        return;                      /* its end is reaped in a moment */
    empm__log(p->now.cfg, EMPM_LOG_NOTICE, 5040, "pid %ld serves now: this one "
              "drains", (long)p->helper);
    empm__reload_change_end(p);
    p->restarts = 1;
    p->now.s->owner = 0;             /* what has a name is the new one's */
    empm__parent_stop(p, byte == 'X' ? EMPM__TELL_UPGRADE : EMPM__TELL_RESTART);
}

/* ---------------------------------------------------------------------------
 * >>parent -- the loop of the parent
 *
 * It sleeps until a signal, a byte of a child or a deadline, and does what is
 * due. All deadlines stand in one place, so none is forgotten.
 * ------------------------------------------------------------------------- */

/* Is that a process which empm__parent_reap() will ask for? */
static int empm__parent_is_ours(const void *of, pid_t pid)
{
    const empm__parent *p = (const empm__parent *)of;
    int i;
    for (i = 0; i < p->slots && p->children[i].pid != pid; i++)
        ;
    return i < p->slots || p->helper == pid;
}

static void empm__parent_reap(empm__parent *p)
{
    int status, i, content = 0;
    unsigned char byte;
    char how[80];
    pid_t pid;
    /* by pid: other children of this process are not ours to reap */
    for (i = 0; i < p->slots; i++) {
        if (p->children[i].pid == 0)
            continue;
        pid = waitpid(p->children[i].pid, &status, WNOHANG);
        if (pid == p->children[i].pid || (pid < 0 && errno == ECHILD))
            empm__child_died(p, i, pid < 0 ? 0 : status);
    }
    if (getpid() == 1)
        empm__parent_reap_orphans(empm__parent_is_ours, p);
    if (p->helper <= 0)
        return;
    pid = waitpid(p->helper, &status, WNOHANG);
    if (pid == 0 || (pid < 0 && errno != ECHILD))
        return;
    if (p->change == EMPM__PROBING) {
        content = pid > 0 ? status == 0 : read(p->upgrade_fd, &byte, 1) == 1;
        close(p->upgrade_fd);
        p->upgrade_fd = -1;
    }
    byte = 0;                        /* its last word may be unread */
    if (p->upgrade_fd >= 0 && read(p->upgrade_fd, &byte, 1) == 1 && byte == 'E')
        empm__upgrade_heard(p, byte);
    if (content)
        empm__reload_start(p);
    else if (pid < 0)
        empm__reload_end(p, "%s has ended, and another part of this program "
                         "has reaped it", p->change == EMPM__PROBING
                                          ? "the trial of the new configuration"
                                          : "the new program");
    else if (p->late)
        empm__reload_end(p, p->change == EMPM__PROBING
                                ? "the trial of the new configuration takes "
                                  "longer than StartTimeout"
                                : "the new program is not ready after "
                                  "StartTimeout");
    else
        empm__reload_end(p, p->change != EMPM__PROBING
                                ? "the new program has ended with %s; its own "
                                  "messages say why"
                            : WIFSIGNALED(status)
                                ? "the trial of the new configuration crashes: "
                                  "%s"
                                : "the new configuration is not usable (%s)",
                         empm__child_ending(status, how, sizeof how));
}

/* All of the first generation are healthy: whoever waits for us may know. */
static void empm__parent_ready(empm__parent *p)
{
    p->ready = 1;
    empm__children_accept(p);
    p->now.s->owner = getpid();
    empm__parent_endpoints_options(p->now.s);
    /* an upgrade takes the pid file over now, when it will not fail any more */
    if (p->now.cfg->pid_file != NULL && p->pid_file.fd < 0)
        empm__pid_file_write(p->now.cfg, &p->pid_file);
    empm__server_log_serves(p->now.cfg);
    if (p->hello != NULL)
        p->hello(p->now.s);
    empm__program_notify(&p->manager, "READY=1\nMAINPID=%ld\nSTATUS=Serving",
                         (long)getpid());
    if (p->ready_fd >= 0) {
        ssize_t r = write(p->ready_fd, p->now.s->exchange.inherited ? "X" : "R",
                          1);
        (void)r;
        close(p->ready_fd);
        p->ready_fd = -1;
    }
    if (p->source->detached)
        empm__program_quiet(p->now.cfg);
}

/* The first generation is not healthy in time, or its children only die. A
 * server that waits for us wants all of it; else what there is serves. */
static void empm__parent_late(empm__parent *p, int timed_out)
{
    int i;
    if (timed_out && p->now.ever_healthy && p->ready_fd < 0) {
        empm__log(p->now.cfg, EMPM_LOG_ERROR, 2324, "only %d of %d children "
                  "are healthy after StartTimeout",
                  empm__children_serving(p, &p->now, 0, 1), p->now.target);
        empm__parent_ready(p);
        return;
    }
    empm__log(p->now.cfg, EMPM_LOG_EMERG, 2324, "%s: giving up",
              p->now.ever_healthy ? "not all children are healthy after "
                                    "StartTimeout"
              : timed_out         ? "no child is healthy after StartTimeout"
                                  : "no child has ever become healthy");
    p->gave_up = 1;
    empm__parent_stop(p, EMPM__TELL_STOP);
    for (i = 0; i < p->slots; i++)
        if (p->children[i].pid != 0 && !p->children[i].healthy)
            /* hangs; has no client */
            empm__child_kill(p->children[i].pid, SIGKILL);
}

/* A byte from a child: who, we do not ask; the scoreboard tells. */
static void empm__parent_child_spoke(empm__parent *p, unsigned char what)
{
    int i;
    for (i = 0; i < p->slots; i++) {
        const empm__score_child *score = empm__score_at(&p->now.s->score, i);
        if (p->children[i].pid == 0)
            continue;
        if (empm__load(&score->healthy) && !p->children[i].healthy) {
            p->children[i].healthy = 1;
            if (p->children[i].generation == p->now.s->generation &&
                !p->children[i].admin)
                p->now.ever_healthy = 1;
        }
        if (empm__load(&score->stopping) && !p->children[i].leaving) {
            p->children[i].leaving = 1; /* MaxConnectionsPerChild */
            p->children[i].kill_us =
                empm__child_deadline(&p->now, EMPM__TELL_RESTART);
        }
    }
    if (!p->ready && !p->stopping && empm__generation_ready(p, &p->now))
        empm__parent_ready(p);
    if (p->change == EMPM__STARTING && empm__generation_ready(p, &p->next))
        empm__reload_commit(p);
    if (what == EMPM__SAY_IDLE && p->now.tick_us == 0) {
        p->now.quiet_ticks = 0;
        p->now.tick_us = empm__now_us();
    }
}

static void empm__parent_on_signal(empm__parent *p, int sig)
{
    if (sig == SIGWINCH || sig == p->now.cfg->graceful_stop_signal)
        empm__parent_stop_softly(p);
    else if (sig == SIGTERM || sig == SIGINT) {
        if (!p->stopping)
            empm__log(p->now.cfg, EMPM_LOG_NOTICE, 491, "caught %s, shutting "
                      "down", sig == SIGTERM ? "SIGTERM" : "SIGINT");
        empm__parent_stop(p, EMPM__TELL_STOP);
    } else if (sig == SIGURG)
        empm__parent_reopen(p);
    else if (sig == SIGUSR2)
        p->upgrades = 1;
    else if (sig == SIGHUP || (sig == SIGUSR1 && p->again == 0))
        p->again = sig;              /* the most that was asked for */
}

/* The candidate has had its time, or its children cannot live: the reload has
 * failed, and the old children serve on. */
static void empm__parent_candidate_late(empm__parent *p)
{
    char why[160], how[80];
    if (p->next.quick_deaths >= 3)
        snprintf(why, sizeof why, "its children end with %s",
                 empm__child_ending(p->next.last_status, how, sizeof how));
    else
        snprintf(why, sizeof why, "%d of %d children are after StartTimeout",
                 empm__children_serving(p, &p->next, 0, 1), p->next.target);
    empm__reload_drop_candidate(p);
    empm__reload_end(p, "the new generation does not become healthy: %s", why);
}

/* A reload waits for room in the scoreboard. What is asked for meanwhile is
 * added to it; an upgrade goes first, and the reload after it, if it fails. */
static void empm__parent_await_room(empm__parent *p)
{
    if (p->again == SIGHUP && !p->hard) {
        p->hard = 1;
        empm__children_stop_drains(p);
    }
    p->again = 0;                    /* nothing has been read yet */
    if (p->upgrades) {
        p->again = p->hard ? SIGHUP : SIGUSR1;
        empm__reload_change_end(p);
    }
    if (p->change == EMPM__AWAITING && empm__reload_has_room(p))
        empm__reload_probe(p);
}

/* Begins what has been asked for, one change at a time. */
static void empm__parent_begin_change(empm__parent *p)
{
    if (p->upgrades && p->change == EMPM__NO_CHANGE) {
        p->upgrades = 0;
        empm__upgrade_begin(p);
    }
    if (p->again != 0 && p->change == EMPM__NO_CHANGE) {
        const int sig = p->again;
        p->again = 0;
        empm__reload_begin(p, sig);
    }
}

/* What is due of one child: to stop, to be gone, to be healthy. Returns when
 * the next of these is; 0: none. */
static uint64_t empm__parent_child_chores(empm__parent *p, int slot,
                                          uint64_t now)
{
    empm__child *child = &p->children[slot];
    uint64_t at = 0;
    if (child->pid == 0)
        return 0;
    if (child->stop_us != 0 && now >= child->stop_us) {
        child->stop_us = UINT64_MAX; /* it has been told */
        empm__child_tell_by(p, slot, EMPM__TELL_REPLACED, now + 1000000u);
    }
    if (child->kill_us != 0 && now >= child->kill_us) {
        empm__log(p->now.cfg, EMPM_LOG_ERROR, 46, "child %ld did not exit in "
                  "time, sending SIGKILL", (long)child->pid);
        empm__child_kill(child->pid, SIGKILL);
        child->kill_us = 0;
    }
    if (!child->healthy && (!child->leaving || child->kill_us == 0) &&
        child->generation <= p->now.s->generation) {
        const uint64_t due = child->born_us +
                             (uint64_t)p->now.cfg->start_timeout_ms * 1000u;
        if (now >= due) {
            empm__log(p->now.cfg, EMPM_LOG_ERROR, 46, "child %ld is not "
                      "healthy in time, sending SIGKILL", (long)child->pid);
            empm__child_kill(child->pid, SIGKILL);
            child->born_us = now;    /* reaped in a moment */
        } else
            at = due;
    }
    at = empm__time_sooner(at, child->stop_us == UINT64_MAX ? 0
                                                            : child->stop_us);
    return empm__time_sooner(at, child->kill_us);
}

/* Does what is due. Returns when the next thing will be; 0: nothing will. */
static uint64_t empm__parent_chores(empm__parent *p)
{
    const uint64_t now = empm__now_us();
    uint64_t at = 0;
    int i;
    if (!p->ready && !p->stopping &&
        (now >= p->first_us ||
         (!p->now.ever_healthy && p->now.quick_deaths >= 3)))
        empm__parent_late(p, now >= p->first_us);
    if (p->change == EMPM__STARTING &&
        (now >= p->change_us || p->next.quick_deaths >= 3))
        empm__parent_candidate_late(p);
    if (p->change == EMPM__AWAITING)
        empm__parent_await_room(p);
    if (p->change_us != 0 && now >= p->change_us && p->helper > 0) {
        empm__child_kill(p->helper, SIGKILL); /* reaped, and said, there */
        p->late = 1;
        p->change_us = 0;
    }
    if (p->ready && !p->stopping && p->delay_us == 0)
        empm__parent_begin_change(p);
    if (p->delay_us != 0 && now >= p->delay_us)
        empm__parent_stop(p, EMPM__TELL_DRAIN);
    for (i = 0; i < p->slots; i++)
        at = empm__time_sooner(at, empm__parent_child_chores(p, i, now));
    if (p->ready || p->ready_fd < 0)     /* else an older server serves yet */
        at = empm__time_sooner(at, empm__children_accept(p));
    empm__children_replace(p, &p->now);
    empm__children_replace(p, &p->next);
    if (p->now.tick_us != 0 && p->now.tick_us <= now)
        empm__children_maintain(p);
    if (p->ping_us != 0 && p->ping_us <= now)
        empm__watchdog_look(p);
    empm__manager_beat(&p->manager, now);
    {
        const uint64_t times[] = { p->now.tick_us, p->now.spawn_us,
                                   p->next.spawn_us, p->change_us, p->delay_us,
                                   p->ready || p->stopping ? 0 : p->first_us,
                                   p->ping_us, p->manager.at_us };
        for (i = 0; i < (int)EMPM__COUNT(times); i++)
            at = empm__time_sooner(at, times[i]);
    }
    return at;
}

static void empm__parent_loop(empm__parent *p)
{
    for (;;) {
        int fds[3], k;
        uint64_t at;
        unsigned char byte = 0;
        empm__parent_reap(p);
        if (p->stopping && empm__children_alive(p) == 0)
            return;
        at = empm__parent_chores(p);
        fds[0] = p->signals.fd[0];
        fds[1] = p->pipe[0];
        fds[2] = p->change == EMPM__UPGRADING ? p->upgrade_fd : -1;
        k = empm__orders_next_byte(fds, 3, empm__time_left_ms(at), &byte, NULL);
        if (k == 1)
            empm__parent_child_spoke(p, byte);
        else if (k == 0)
            empm__parent_on_signal(p, empm__signals_meant(&p->signals, byte));
        else if (k == 2)
            empm__upgrade_heard(p, byte);
    }
}

/* Forks the children and looks after them until the server is stopped. Frees
 * the configuration and the server. `ready_fd`: gets a byte once all is well;
 * or -1. */
static int empm__parent_run(const empm__source *source, empm_config *cfg,
                            empm_server *s, void (*hello)(const empm_server *),
                            int ready_fd, const empm__pid_file *pid_file,
                            empm__signal_set *signals,
                            const empm__manager *manager)
{
    empm__parent p;
    int i, r = EMPM_OK;
    memset(&p, 0, sizeof p);
    p.source = source;
    p.hello = hello;
    p.pid = getpid();
    p.now.cfg = cfg;
    p.now.s = s;
    p.now.target = cfg->start_servers;
    p.now.rate = 1;
    p.now.tick_us = empm__now_us() + 1000000u;
    p.first_us = empm__now_us() + (uint64_t)cfg->start_timeout_ms * 1000u;
    p.slots = s->score.slots;
    p.pid_file = *pid_file;
    p.ready_fd = ready_fd;
    p.upgrade_fd = -1;
    p.signals = *signals;
    p.manager = *manager;
    if (cfg->watchdog_interval_ms > 0)
        p.ping_us = empm__now_us() +
                    (uint64_t)cfg->watchdog_interval_ms * 1000u;
    p.children = (empm__child *)EMPM_MALLOC((size_t)p.slots *
                                            sizeof *p.children);
    if (p.children == NULL)
        r = EMPM_ENOMEM;
    for (i = 0; r == EMPM_OK && i < p.slots; i++) {
        memset(&p.children[i], 0, sizeof p.children[i]);
        p.children[i].control = -1;
    }
    if (r == EMPM_OK && empm__fd_pipe(p.pipe, 1) < 0)
        r = empm__program_no_pipe(cfg, "what children tell");
    else if (r == EMPM_OK) {
        empm__parent_loop(&p);
        close(p.pipe[0]);
        close(p.pipe[1]);
    }
    if (r == EMPM_OK && p.gave_up)
        r = EMPM_ESYS;
    if (p.ready_fd >= 0)
        close(p.ready_fd);
    empm__pid_file_drop(&p.pid_file, !p.restarts);
    *signals = p.signals;
    EMPM_FREE(p.children);
    empm__server_free(p.now.s);
    empm_config_free(p.now.cfg);
    EMPM_FREE(p.now.cfg);
    return r;
}

#endif /* EVENTMPM_NO_FORK */

/* ---------------------------------------------------------------------------
 * >>program -- from a configuration to a server that runs
 *
 * The one way in for empm_run() and empm_main(): read, check, open, become,
 * serve; on each failure what has been made is undone in reverse.
 * ------------------------------------------------------------------------- */

/* What the program has been started with by an older one of it, or by -k start:
 * a descriptor that gets a byte once all is well. */
static int empm__program_ready_fd(void)
{
    const char *text = getenv("EMPM_READY_FD");
    const int fd = text != NULL ? atoi(text) : -1;
    unsetenv("EMPM_READY_FD");
    return fd > 2 && empm__fd_flags(fd, 1) == 0 ? fd : -1;
}

/* Descriptors 0 to 2 are open: what we open must not become stderr. Where
 * there is no /dev/null a socket is put there that has no peer, and nothing
 * to read. */
static void empm__program_stdio(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
        if (fd < 0 && (fd = socket(AF_UNIX, SOCK_DGRAM, 0)) >= 0)
            shutdown(fd, SHUT_RD);
    } while (fd >= 0 && fd <= 2);
    if (fd > 2)
        close(fd);
}

/* A program from its start to its end. */
typedef struct empm__program {
    const empm__source *source;
    void              (*hello)(const empm_server *);
    empm_config        *cfg;
    empm_server        *s;
    empm__report        rep;
    empm__pid_file      pid_file;
    empm__signal_set    signals;
    empm__manager       manager;
    int                 ready_fd;    /* tells the program before this one */
    int                 upgrades;    /* there is one, and it serves yet */
} empm__program;

/* Logs and signals: from here on what is wrong can be said, and a signal during
 * the start is not lost. */
static int empm__program_begin(empm__program *g)
{
    empm_config *cfg = g->cfg;
    struct rlimit lim;
    int r;
    empm__manager_take(&g->manager);
    if (cfg->log == NULL)
        cfg->log = empm__log_stderr;
    cfg->log_echo = 1;
    g->rep.say = empm__server_report_to_log;
    g->rep.user = cfg;
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        setrlimit(RLIMIT_NOFILE, &lim);
    }
    if (cfg->log == empm__log_stderr &&
        (r = empm__logs_open(cfg, &g->rep)) < 0)
        return r;
    empm__starting = 1;
    if ((r = empm__signals_take(&g->signals, cfg->graceful_stop_signal)) < 0)
        empm__program_no_pipe(cfg, "signals");
    else if (g->source->detached && cfg->log == empm__log_stderr &&
             cfg->error_log == NULL)
        empm__log(cfg, EMPM_LOG_WARN, 5044, "-k start without ErrorLog: what "
                  "comes from here on is lost");
    return r;
}

/* The server, its sockets and its PidFile; then all that can be known to be
 * wrong before the first child. */
static int empm__program_open(empm__program *g)
{
    empm_config *cfg = g->cfg;
    const char *remark = empm__identity_default_user(cfg);
    char path[1200], line[512];
    long pid;
    uid_t uid;
    gid_t gid;
    int r;
    empm__check_childless(cfg, &g->rep);
    if (cfg->pid_file != NULL && !g->upgrades &&
        empm__pid_file_read(empm__config_path(cfg, cfg->pid_file, path,
                                              sizeof path), &pid)) {
        empm__log(cfg, EMPM_LOG_EMERG, 5041, "PidFile %s: already running, "
                  "pid %ld", cfg->pid_file, pid);
        return EMPM_EINVAL;
    }
    r = empm__server_new(cfg, EMPM__FORKS && cfg->processes != 0, NULL,
                         &g->rep, &g->s);
    if (r < 0)
        return r;
    unsetenv("LISTEN_PID");          /* not for what handlers start */
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    unsetenv("EMPM_EXCHANGE");
    if (cfg->pid_file != NULL && !g->upgrades &&
        (r = empm__pid_file_write(cfg, &g->pid_file)) < 0)
        return r;
    if (remark != NULL)
        empm__log(cfg, EMPM_LOG_NOTICE, 5031, EMPM__DEFAULT_USER,
                  cfg->user_name, remark);
    if (geteuid() != 0 && cfg->user_name != NULL &&
        (empm__identity_user(cfg->user_name, &uid, &gid) < 0 ||
         uid != geteuid()))
        empm__log(cfg, EMPM_LOG_WARN, 5031, "User %s is ignored: not started "
                  "as root, uid %ld serves", cfg->user_name, (long)geteuid());
    empm__identity_check_uses(cfg, &g->rep);
    if (g->rep.result < 0)
        return g->rep.result;
    empm__starting = 0;
    empm__check_settings_line(cfg, line, sizeof line);
    empm__log(cfg, EMPM_LOG_NOTICE, 5042, "%s", line);
    return EMPM_OK;
}

/* Serves with threads of this process, until it is told to end. */
static int empm__program_serve_alone(empm__program *g)
{
    empm_server *s = g->s;
    int r;
    if (getpid() != 1)               /* as process 1 it gets orphans */
        signal(SIGCHLD, SIG_DFL);
    s->owns_signals = 1;
    if ((r = empm__identity_become(s)) < 0 ||
        (r = empm__server_engines_start(s, 0, 0)) < 0)
        return r;
    s->owner = getpid();
    if (g->ready_fd >= 0 && write(g->ready_fd, "R", 1) == 1) {
        close(g->ready_fd);
        g->ready_fd = -1;
    }
    empm__server_log_serves(g->cfg);
    if (g->hello != NULL)
        g->hello(s);
    empm__program_notify(&g->manager, "READY=1\nMAINPID=%ld\nSTATUS=Serving",
                         (long)getpid());
    if (g->source->detached)
        empm__program_quiet(g->cfg);
    r = empm__program_attend(s, &g->signals, -1, &g->manager);
    if (r == EMPM_ETIMEDOUT) {       /* what a parent would still do */
        empm__server_sockets_unlink(s);
        empm__pid_file_drop(&g->pid_file, 1);
        _exit(0);
    }
    empm__server_engines_free(s);
    return r;
}

/* `hello`, if not NULL, is called once the server serves. */
static int empm__program_run(const empm__source *source,
                             void (*hello)(const empm_server *))
{
    empm__program g;
    int r;
    memset(&g, 0, sizeof g);
    g.source = source;
    g.hello = hello;
    g.pid_file.fd = -1;
    g.ready_fd = empm__program_ready_fd();
    g.upgrades = g.ready_fd >= 0 && getenv("LISTEN_FDS") != NULL;
    empm__program_stdio();
    g.rep.say = empm__program_say_stderr;
    g.rep.user = source->argv != NULL ? source->argv[0] : NULL;
    if ((g.cfg = empm__program_config_new(source, &g.rep)) == NULL)
        return EMPM_EINVAL;
    if ((r = empm__program_begin(&g)) == EMPM_OK)
        r = empm__program_open(&g);
#ifndef EVENTMPM_NO_FORK
    if (r == EMPM_OK && g.cfg->processes != 0) {     /* all is the parent's */
        r = empm__parent_run(source, g.cfg, g.s, hello, g.ready_fd, &g.pid_file,
                             &g.signals, &g.manager);
        empm__signals_restore(&g.signals);
        empm__manager_return(&g.manager);
        return r;
    }
#endif
    if (r == EMPM_OK)
        r = empm__program_serve_alone(&g);
    empm__starting = 0;
    empm__signals_restore(&g.signals);
    empm__manager_return(&g.manager);
    empm__pid_file_drop(&g.pid_file, 1);
    if (g.ready_fd >= 0)
        close(g.ready_fd);
    if (g.s != NULL)
        empm__server_free(g.s);
    else
        empm__logs_close(g.cfg);
    empm_config_free(g.cfg);
    EMPM_FREE(g.cfg);
    return r;
}

EMPM_API int empm_run(empm_config *cfg)
{
    empm__source source;
    memset(&source, 0, sizeof source);
    source.base = cfg;
    return empm__program_run(&source, NULL);
}

#ifndef EVENTMPM_NO_MAIN

/* ---------------------------------------------------------------------------
 * >>main -- a command line as httpd has it
 * ------------------------------------------------------------------------- */

/* Does any route serve what is below DocumentRoot? */
static int empm__main_serves_root(const empm_config *cfg)
{
    const empm_route *r = cfg->routes;
    while (r != NULL && r->kind != EMPM__ROUTE_END &&
           (r->kind != EMPM__ROUTE_FILES || r->root != NULL))
        r++;
    return r != NULL && r->kind == EMPM__ROUTE_FILES;
}

static void empm__main_hello(const empm_server *s)
{
    int i;
    for (i = 0; i < s->nendpoints; i++) {
        const empm__endpoint *l = &s->endpoints[i];
        if (l->admin)
            printf("Status at ");
        else if (empm__main_serves_root(s->cfg))
            printf("Serving %s at ", s->cfg->document_root);
        else
            printf("Serving at ");
        if (l->port > 0 && strpbrk(l->text, ":") == NULL)
            printf("http://127.0.0.1:%d/\n", l->port);
        else if (l->port > 0 && strncmp(l->text, "fd:", 3) != 0)
            printf("http://%.*s:%d/\n",
                   (int)(strrchr(l->text, ':') - l->text), l->text, l->port);
        else
            printf("%s\n", l->text);
    }
    printf("Ctrl-C stops it.\n");
    fflush(stdout);
}

static const char empm__main_help[] =
    "usage: %s [options] [DIR] [PORT]\n"
    "  DIR                    what to serve: DocumentRoot, default .\n"
    "  PORT, ADDRESS:PORT     the same as -p, default 8080\n"
    "  -p PORT                the same as -c \"Listen PORT\"\n"
    "  -a ADDRESS:PORT        status for you, whatever the workers do: the\n"
    "                         same as a further \"Listen ADDRESS:PORT admin\"\n"
    "  -f FILE                directives, in Apache's syntax\n"
    "  -D NAME                what <IfDefine NAME> in it asks for\n"
    "  -c \"Directive value\"   sets a directive, any number of times, after\n"
    "                         those of the file\n"
    "  -k start|stop|restart|graceful|graceful-stop|reopen|configtest\n"
    "                         starts in the background, or sends a signal to\n"
    "                         the server that PidFile names (restart and\n"
    "                         graceful start one if none runs); the word\n"
    "                         alone means the same\n"
    "  -X                     one process, no forking (debugging)\n"
    "  -t, configtest         checks the settings, prints those that are not\n"
    "                         the defaults, and exits\n"
    "  -S                     ... and prints what it listens to and its "
    "routes\n"
    "  -L                     prints all directives with their defaults, and "
    "exits\n"
    "  -l, -M                 prints which of Apache's modules are in, and "
    "exits\n"
    "  -V, -v, --version      prints version and build, and exits\n"
    "  -h, --help             this text\n"
    "signals: TERM, INT stop, WINCH (without a terminal), QUIT stop\n"
    "  gracefully; HUP, USR1 read the configuration again (HUP gives\n"
    "  running requests StopTimeout; that of a terminal that closes stops\n"
    "  it); USR2 starts the program anew and hands over to it; URG opens\n"
    "  the logs anew\n"
    "directives and their defaults: -L\n";

static void empm__main_usage(const char *name)
{
    printf(empm__main_help, name);
}

static void empm__main_version(void)
{
    printf("Server version: eventmpm/%s\nServer MPM:     event\n"
           "  threaded:     yes (fixed thread count)\n"
           "  forked:       %s\n"
           "  poller:       %s\n", EMPM_VERSION,
#ifdef EVENTMPM_NO_FORK
           "no",
#else
           "yes (variable process count)",
#endif
           EMPM__EPOLL ? "epoll" : "poll");
}

/* Sets "Directive value" of the command line; `lists`: those begun there. */
static void empm__main_set_line(empm_config *cfg, const char *line,
                                uint64_t *lists, empm__report *rep)
{
    const size_t n = strcspn(line, " \t");
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)empm__min(n, 63), line);
    empm__directive_set(cfg, "", name, line + n + strspn(line + n, " \t"),
                        lists, rep);
}

/* -l as httpd prints it, and -M as apachectl. */
static void empm__main_print_modules(int files)
{
    const char *name;
    char file[40];
    int k;
    printf(files ? "Compiled in modules:\n" : "Loaded Modules:\n");
    for (k = 0; (name = empm__wings_module(k, file)) != NULL; k++)
        if (files)
            printf("  %s\n", file);
        else
            printf(" %s_module (static)\n", name);
}

/* -L: all that the table knows, as httpd prints it. */
static void empm__main_print_directives(void)
{
    static const struct { enum empm__kind kind; const char *takes; } kinds[] = {
        { EMPM__KIND_INT, "a number" }, { EMPM__KIND_COUNT, "a number" },
        { EMPM__KIND_MS, "a time: 5 (seconds), 100ms, 1min" },
        { EMPM__KIND_STUCK, "a time and perhaps: replace" },
        { EMPM__KIND_I64, "a number" }, { EMPM__KIND_KB, "a number" },
        { EMPM__KIND_BOOL, "On or Off" },
        { EMPM__KIND_LEVEL, "error, warn, notice, info or debug" },
        { EMPM__KIND_SIGNAL, "a signal, or none" },
        { EMPM__KIND_ETAG, "None, All, or some of INode, MTime and Size" },
        { EMPM__KIND_REAL, "a number such as 2.5" },
        { EMPM__KIND_TEXT, "a text" },
        { EMPM__KIND_TOKENS, "Prod, Major, Minor, Min, OS or Full" },
        { EMPM__KIND_LIST, "a text, any number of times" },
        { EMPM__KIND_READ, "header=N-M,MinRate=R body=N,MinRate=R" }
    };
    char min[24], max[24];
    size_t i, k;
    for (i = 0; i < EMPM__COUNT(empm__directives); i++) {
        const empm__directive *d = &empm__directives[i];
        for (k = 0; kinds[k].kind != d->kind; k++)
            ;
        printf("%s (%s)\n\t%s\n", d->name, kinds[k].takes, d->help);
        if (d->preset != NULL)
            printf("\tDefault: %s\n", d->preset);
        empm__directive_format(d, d->min, min, sizeof min);
        empm__directive_format(d, d->max, max, sizeof max);
        if (d->kind <= EMPM__KIND_KB)
            printf("\tFrom %s to %s\n", min, max);
    }
}

/* -S: what is listened to, what is served, and where the rest is. */
static void empm__main_print_served(const empm_config *cfg)
{
    const char *const names[] = { "ServerRoot", "DocumentRoot", "ErrorLog",
                                  "PidFile", "User", "Group" };
    const char *values[6];
    const empm_route *r;
    int i;
    for (i = 0; i < EMPM_MAX_LISTEN && cfg->listen[i] != NULL; i++)
        printf("Listen %s\n", cfg->listen[i]);
    if (i == 0)
        printf("Listen %s\n", empm__directive_preset("Listen"));
    for (r = cfg->routes; r != NULL && r->kind != EMPM__ROUTE_END; r++)
        if (r->kind == EMPM__ROUTE_FILES)
            printf("Route %s: files of %s\n", r->pattern,
                   r->root != NULL ? r->root : "DocumentRoot");
        else
            printf("Route %s\n", r->pattern);
    values[0] = cfg->server_root;
    values[1] = cfg->document_root;
    values[2] = cfg->error_log;
    values[3] = cfg->pid_file;
    values[4] = cfg->user_name;
    values[5] = cfg->group_name;
    for (i = 0; i < 6; i++)
        if (values[i] != NULL)
            printf("%s: \"%s\"\n", names[i], values[i]);
}

/* --- arguments ------------------------------------------------------------ */

static const struct { const char *what; int sig; } empm__orders[] = {
    { "start", 0 }, { "stop", SIGTERM }, { "restart", SIGHUP },
    { "graceful", SIGUSR1 }, { "graceful-stop", SIGWINCH },
    { "reopen", SIGURG }
};

/* The signal of an order for -k, or -1. */
static int empm__main_order_signal(const char *what)
{
    size_t i;
    for (i = 0; i < EMPM__COUNT(empm__orders); i++)
        if (strcmp(what, empm__orders[i].what) == 0)
            return empm__orders[i].sig;
    return -1;
}

typedef struct empm__args {          /* a command line, while it is read */
    const empm__source *of;
    int         at;                  /* the argument to read next */
    const char *more;                /* or the next letter of "-tX" */
    int         plain;               /* after "--" */
    const char *value;               /* of the option */
} empm__args;

static void empm__args_begin(empm__args *a, const empm__source *of)
{
    memset(a, 0, sizeof *a);
    a->of = of;
    a->at = 1;
}

/* The option that an argument without a dash stands for; '.' is DIR, there or
 * not. */
static int empm__args_operand(const char *text)
{
    empm__endpoint_spec spec;
    struct stat st;
    if (*text != '\0' && text[strspn(text, "0123456789")] == '\0')
        return 'p';
    if (stat(text, &st) == 0 && S_ISDIR(st.st_mode))
        return '.';
    if (strchr(text, ':') != NULL && empm__endpoint_parse(&spec, text) == NULL)
        return 'p';
    return strcmp(text, "configtest") == 0 ? 't'
           : empm__main_order_signal(text) >= 0 ? 'k' : '.';
}

/* The next option, and its value: 0: there is none left; '?': it is not known;
 * ':': it lacks a value. Options and others come in any order. */
static int empm__args_next(empm__args *a)
{
    static const char known[] = "a:c:D:f:hk:lLMp:StvVX";
    const char *option;
    if (a->more == NULL) {
        if (a->at >= a->of->argc)
            return 0;
        a->value = a->of->argv[a->at++];
        if (!a->plain && strcmp(a->value, "--") == 0) {
            a->plain = 1;
            return empm__args_next(a);
        }
        if (a->plain || a->value[0] != '-' || a->value[1] == '\0')
            return empm__args_operand(a->value);
        if (strcmp(a->value, "--help") == 0)
            return 'h';
        if (strcmp(a->value, "--version") == 0)
            return 'V';
        a->more = a->value + 1;
    }
    option = *a->more != ':' ? strchr(known, *a->more) : NULL;
    if (option == NULL) {
        a->more = NULL;
        return '?';
    }
    a->more++;
    if (option[1] != ':') {
        a->more = *a->more != '\0' ? a->more : NULL;
        return *option;
    }
    if (*a->more == '\0' && a->at >= a->of->argc)
        return ':';
    a->value = *a->more != '\0' ? a->more : a->of->argv[a->at++];
    a->more = NULL;
    return *option;
}

/* The configuration of a command line: its file, then its directives, and the
 * admin listeners on top. */
static int empm__main_apply(empm_config *cfg, const empm__source *from,
                            empm__report *rep)
{
    static const char passes[4][4] = { "D", "f", "Xcp", "a." };
    uint64_t lists = 0;
    char line[1024], *dir;
    empm__args a;
#ifndef EVENTMPM_NO_CONFIG_FILES
    empm__defines defines;
    const char *why;
    memset(&defines, 0, sizeof defines);
#endif
    int c, pass;
    for (pass = 0; pass < 4; pass++)
        for (empm__args_begin(&a, from); (c = empm__args_next(&a)) != 0;) {
            if (strchr(passes[pass], c) == NULL)
                continue;
            switch (c) {
#ifndef EVENTMPM_NO_CONFIG_FILES
            case 'D':
                if ((why = empm__define(cfg, &defines, a.value)) != NULL)
                    empm__report_say(rep, EMPM_LOG_ERROR, 5123, "-D %s: %s",
                                     a.value, why);
                break;
            case 'f':
                empm__config_load_with(cfg, &defines, a.value, rep);
                break;
#else
            case 'f':
                empm__report_say(rep, EMPM_LOG_ERROR, 5120, "-f %s: built "
                                 "without files of directives", a.value);
                break;
#endif
            case 'X':
                cfg->processes = 0;
                break;
            case 'c':
                empm__main_set_line(cfg, a.value, &lists, rep);
                break;
            case 'p':
                snprintf(line, sizeof line, "Listen %s", a.value);
                empm__main_set_line(cfg, line, &lists, rep);
                break;
            case '.':                /* relative to where we are */
                cfg->document_root = a.value;
                if (cfg->server_root != NULL &&
                    (dir = realpath(a.value, NULL)) != NULL) {
                    cfg->document_root = empm__config_keep(cfg, dir);
                    free(dir);
                    if (cfg->document_root == NULL)
                        rep->result = EMPM_ENOMEM;
                }
                break;
            case 'a':
                if (cfg->listen[0] == NULL)
                    cfg->listen[0] = empm__directive_preset("Listen");
                snprintf(line, sizeof line, "Listen %s admin", a.value);
                lists = ~UINT64_C(0);
                empm__main_set_line(cfg, line, &lists, rep);
                break;
            }
        }
    return rep->result;
}

/* ---------------------------------------------------------------------------
 * >>configtest -- -t: what would a start say?
 *
 * All settings are checked, and all that is wrong is said in one run; then the
 * settings that differ from the defaults are printed as a file would have them.
 * ------------------------------------------------------------------------- */

static void empm__main_say_all(enum empm_log_level level, const char *line,
                               void *user)
{
    fprintf(stderr, "%s: %s: %s\n", (const char *)user,
            empm__log_level_name(level), line);
}

/* Is exactly this address among the listening sockets of the system? */
static int empm__test_is_bound(const struct sockaddr *a)
{
    static const char *const tables[] = { "/proc/net/tcp", "/proc/net/tcp6" };
    const int v6 = a->sa_family == AF_INET6;
    char want[48], line[512];
    uint32_t words[4];
    uint16_t port;
    int i, n = 0, found = 0;
    FILE *f;
    if (v6) {
        const struct sockaddr_in6 *to =
            (const struct sockaddr_in6 *)(const void *)a;
        memcpy(words, &to->sin6_addr, 16);
        port = to->sin6_port;
    } else {
        const struct sockaddr_in *to =
            (const struct sockaddr_in *)(const void *)a;
        memcpy(words, &to->sin_addr, 4);
        port = to->sin_port;
    }
    for (i = 0; i < (v6 ? 4 : 1); i++)
        n += snprintf(want + n, sizeof want - (size_t)n, "%08X", words[i]);
    snprintf(want + n, sizeof want - (size_t)n, ":%04X ", ntohs(port));
    if ((f = fopen(tables[v6], "re")) == NULL)
        return 0;
    while (fgets(line, sizeof line, f) != NULL)
        found |= strstr(line, want) != NULL && strstr(line, " 0A ") != NULL;
    fclose(f);
    return found;
}

/* Could a running server that reads this configuration have this socket? What
 * it has it takes over; what only overlaps with that it cannot bind. */
static void empm__test_listen(const empm_config *cfg, const char *text,
                              empm__report *rep)
{
    empm__endpoint_spec spec;
    struct addrinfo *list = NULL, *a;
    int made = 0, used = 0, bound = 0;
    if (empm__endpoint_parse(&spec, text) != NULL ||
        spec.kind != EMPM__ENDPOINT_TCP || empm__endpoint_covered(cfg,
                                                                  &spec) >= 0 ||
        empm__endpoint_resolve(&spec, &list) != 0)
        return;                      /* or the start will say it */
    for (a = list; a != NULL; a = a->ai_next) {
        const int fd = empm__endpoint_bind(cfg, a, spec.v6only, 0);
        if (fd >= 0)
            close(fd);
        made |= fd >= 0;
        used |= fd < 0 && errno == EADDRINUSE;
        bound |= empm__test_is_bound(a->ai_addr);
    }
    freeaddrinfo(list);
    if (used && !bound && (!made || spec.host[0] != '\0'))
        empm__report_say(rep, EMPM_LOG_WARN, 5114, "Listen %s overlaps with a "
                         "socket that is in use: if that is this server's, a "
                         "reload cannot do it: stop and start", text);
}

/* `path` is cut to the directory that it is in. */
static void empm__test_directory(const char *directive, const char *name,
                                 char *path, empm__report *rep)
{
    char *end = strrchr(path, '/');
    struct stat st;
    if (end == NULL || end == path)
        return;
    *end = '\0';
    if (stat(path, &st) < 0 ? errno == ENOENT || errno == ENOTDIR
                            : !S_ISDIR(st.st_mode))
        empm__report_say(rep, EMPM_LOG_ERROR, 5134, "%s %s: there is no "
                         "directory %s", directive, name, path);
}

/* A file that the start makes needs a folder: the start would end without. */
static void empm__test_folder(const empm_config *cfg, const char *directive,
                              const char *name, empm__report *rep)
{
    char path[1200];
    const char *full = empm__config_path(cfg, name, path, sizeof path);
    if (*name == '|') {
        snprintf(path, sizeof path, "%s", name + 1 + (name[1] == '|'));
        path[strcspn(path, " \t")] = '\0';
        if (*path == '/' && access(path, X_OK) < 0)
            empm__report_say(rep, EMPM_LOG_ERROR, 5134, "%s %s: %s", directive,
                             name, strerror(errno));
        return;
    }
    if (full != path)
        snprintf(path, sizeof path, "%s", full);
    empm__test_directory(directive, name, path, rep);
}

/* What an address names has to be there: the folder of a unix socket, whose own
 * name is short, and the interface that a zone is. */
static void empm__test_place(const char *text, empm__report *rep)
{
    empm__endpoint_spec spec;
    const struct sockaddr_un *un = NULL;
    const char *zone;
    if (empm__endpoint_parse(&spec, text) != NULL)
        return;                      /* the check has said it */
    zone = spec.kind == EMPM__ENDPOINT_TCP ? strchr(spec.host, '%') : NULL;
    if (zone != NULL && zone[1 + strspn(zone + 1, "0123456789")] != '\0' &&
        if_nametoindex(zone + 1) == 0)
        empm__report_say(rep, EMPM_LOG_ERROR, 5108, "Listen %s: there is no "
                         "interface %s", text, zone + 1);
    if (spec.kind != EMPM__ENDPOINT_UNIX)
        return;
    if (strlen(spec.host) >= sizeof un->sun_path)
        empm__report_say(rep, EMPM_LOG_ERROR, 5108, "Listen %s: the path of a "
                         "unix socket has at most %u bytes", text,
                         (unsigned)sizeof un->sun_path - 1);
    else
        empm__test_directory("Listen", text, spec.host, rep);
}

static void empm__test_folders(const empm_config *cfg, empm__report *rep)
{
    int i;
    for (i = 0; i < EMPM_MAX_LISTEN && cfg->listen[i] != NULL; i++)
        empm__test_place(cfg->listen[i], rep);
    if (cfg->pid_file != NULL)
        empm__test_folder(cfg, "PidFile", cfg->pid_file, rep);
    if (cfg->error_log != NULL && strcmp(cfg->error_log, "stderr") != 0 &&
        empm__log_facility(cfg->error_log) < 0)
        empm__test_folder(cfg, "ErrorLog", cfg->error_log, rep);
    for (i = 0; i < EMPM_MAX_LIST && cfg->custom_log[i] != NULL; i++) {
        const char *rest = cfg->custom_log[i];
        char file[1024];
        if (empm__text_word(&rest, file, sizeof file) == 1)
            empm__test_folder(cfg, "CustomLog", file, rep);
    }
}

/* RequestReadTimeout, from its fields. */
static size_t empm__test_format_stage(char *to, size_t n, const char *stage,
                                      int first, int last, int rate)
{
    size_t at = (size_t)snprintf(to, n, "%s=%dms", stage, first);
    if (last > 0)
        at += (size_t)snprintf(to + at, n - at, "-%dms", last);
    if (rate > 0)
        at += (size_t)snprintf(to + at, n - at, ",MinRate=%d", rate);
    return at;
}

/* Writes the value of a setting as a file gives it; of a list, the i-th. An
 * empty text: it is not set. */
static void empm__test_format(const empm_config *cfg, const empm__directive *d,
                              int i, char *to, size_t n)
{
    const char *text;
    size_t at = 0;
    *to = '\0';
    if (empm__directive_is_number(d)) {
        empm__directive_format(d, empm__directive_number(cfg, d), to, n);
        if (d->kind == EMPM__KIND_STUCK && cfg->stuck_worker_replace)
            snprintf(to + strlen(to), n - strlen(to), " replace");
    } else if (d->kind == EMPM__KIND_REAL) {   /* "%f" is a matter of locale */
        const long long x = (long long)(empm__directive_real(cfg, d) * 1e6 +
                                        0.5);
        snprintf(to, n, "%lld.%06lld", x / 1000000, x % 1000000);
    } else if (d->kind == EMPM__KIND_READ) {
        at = empm__test_format_stage(to, n, "header", cfg->header_timeout_ms,
                                     cfg->header_timeout_max_ms,
                                     cfg->header_min_rate);
        to[at++] = ' ';
        empm__test_format_stage(to + at, n - at, "body", cfg->body_timeout_ms,
                                cfg->body_timeout_max_ms, cfg->body_min_rate);
    } else if (d->kind == EMPM__KIND_LIST) {
        text = ((const char *const *)(const void *)((const char *)cfg +
                                                    d->offset))[i];
        snprintf(to, n, "%s", text != NULL ? text : "");
    } else if ((text = empm__directive_text(cfg, d)) != NULL) {
        const int quotes = *text == '\0' ||
                           text[strcspn(text, " \t\"'\\")] != '\0';
        to[0] = '"';
        for (at = (size_t)quotes; *text != '\0' && at + 4 < n;
             to[at++] = *text++)
            if (quotes && (*text == '"' || *text == '\\'))
                to[at++] = '\\';
        snprintf(to + at, n - at, "%s", quotes ? "\"" : "");
    }
}

/* What differs from the defaults, as a file that could be loaded. */
static void empm__test_print_settings(const empm_config *cfg)
{
    const empm_config presets = empm_defaults();
    char is[8192], was[8192];
    size_t k;
    int i;
    for (k = 0; k < EMPM__COUNT(empm__directives); k++) {
        const empm__directive *d = &empm__directives[k];
        const int n = d->kind == EMPM__KIND_LIST ? (int)d->max : 1;
        if (d != empm__directive_first(d))
            continue;                /* another name */
        for (i = 0; i < n; i++) {
            empm__test_format(cfg, d, i, is, sizeof is);
            empm__test_format(&presets, d, i, was, sizeof was);
            if (*is != '\0' && strcmp(is, was) != 0)
                printf("%s %s\n", d->name, is);
        }
    }
    fflush(stdout);
}

/* Checks everything, so that one run tells all that is to be mended, and prints
 * what is set. `list`: what is served (-S) instead. */
static int empm__test_settings(const char *name, const empm__source *source,
                               int list)
{
    empm__report rep;
    empm_config settings, *const cfg = &settings;
    const char *remark;
    char line[1024];
    struct rlimit lim;
    int r;
    memset(&rep, 0, sizeof rep);
    rep.say = empm__main_say_all;
    rep.user = (void *)(uintptr_t)name;
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        setrlimit(RLIMIT_NOFILE, &lim);
    }
    settings = *source->base;
    settings.arena = NULL;
    r = source->apply(cfg, source, &rep);
    if ((remark = empm__identity_default_user(cfg)) != NULL)
        empm__report_say(&rep, EMPM_LOG_NOTICE, 5031, EMPM__DEFAULT_USER,
                         cfg->user_name, remark);
    empm__check_childless(cfg, &rep);
    empm__check_all(cfg, NULL, &rep);
    empm__test_folders(cfg, &rep);
    empm__identity_check_uses(cfg, &rep);
    if (r == EMPM_OK)
        r = rep.result;
    if (list)
        empm__main_print_served(cfg);
    else if (r == EMPM_OK)
        empm__test_print_settings(cfg);
    if (r == EMPM_OK) {
        int i;
        for (i = 0; i < EMPM_MAX_LISTEN && cfg->listen[i] != NULL; i++)
            empm__test_listen(cfg, cfg->listen[i], &rep);
        empm__check_settings_line(cfg, line, sizeof line);
        fprintf(stderr, "%s: %s\nSyntax OK\n", name, line);
    }
    empm_config_free(cfg);
    return r;
}

/* ---------------------------------------------------------------------------
 * >>control -- -k: orders to a server that runs
 *
 * An order is a signal to the process that PidFile names. A start in the
 * background returns when the server serves, or says why it does not.
 * ------------------------------------------------------------------------- */

/* Goes on in the background; the foreground waits until it serves. Returns -1
 * there where it goes on, else what main() shall return. */
static int empm__main_detach(void)
{
    char text[32];
    int fd[2], null;
    pid_t pid;
    if (pipe(fd) < 0)
        return 1;
    fflush(NULL);
    pid = fork();
    if (pid != 0) {
        char byte = 0;
        ssize_t n;
        close(fd[1]);
        do
            n = pid > 0 ? read(fd[0], &byte, 1) : 0;
        while (n < 0 && errno == EINTR);
        return n == 1 && byte == 'R' ? 0 : 1;
    }
    close(fd[0]);
    setsid();
    null = open("/dev/null", O_RDWR);
    if (null > 2) {
        dup2(null, 0);
        dup2(null, 1);               /* programs of logs would keep it open */
        close(null);
    }
    snprintf(text, sizeof text, "%d", fd[1]);
    setenv("EMPM_READY_FD", text, 1);
    return -1;
}

static void empm__main_say_refusal(enum empm_log_level level, const char *line,
                                   void *user)
{
    if (level <= EMPM_LOG_ERROR)
        empm__program_say_stderr(level, line, user);
}

/* Carries out -k. Returns -1 if the server is to be started now, else what
 * main() shall return. Warnings are left to the start or the reload; an order
 * that reads nothing anew needs no more than to know which server is meant. */
static int empm__main_control(const char *name, const char *what,
                              const empm__source *source)
{
    const char *base = strrchr(name, '/') != NULL ? strrchr(name, '/') + 1
                                                  : name;
    empm__report rep;
    empm_config *cfg;
    char path[1200];
    long pid = 0;
    int runs = 0, sig = empm__main_order_signal(what), r = 1;
    if (sig < 0) {
        fprintf(stderr, "%s: -k takes start, stop, restart, graceful, "
                "graceful-stop, reopen or configtest\n", name);
        return 1;
    }
    memset(&rep, 0, sizeof rep);
    rep.say = empm__main_say_refusal;
    rep.user = (void *)(uintptr_t)name;
    if ((cfg = empm__program_config_new(source, &rep)) == NULL)
        return 1;
    empm__identity_default_user(cfg);
    if (cfg->pid_file == NULL)
        fprintf(stderr, "%s: -k needs PidFile: -c \"PidFile FILE\", or a line "
                "in the file of -f\n", name);
    else if (sig == SIGTERM || sig == SIGWINCH || sig == SIGURG ||
             empm__check_all(cfg, NULL, &rep) == EMPM_OK) {
        runs = empm__pid_file_read(empm__config_path(cfg, cfg->pid_file, path,
                                                     sizeof path), &pid);
        /* heard with a terminal, too; but the server that runs may have been
         * started with another one, and this one would kill it */
        if (sig == SIGWINCH && runs && cfg->graceful_stop_signal > 0 &&
            (empm__process_status(pid, "SigCgt:", 16, ~UINT64_C(0)) >>
                 (cfg->graceful_stop_signal - 1) & 1))
            sig = cfg->graceful_stop_signal;
        if (sig == SIGTERM && cfg->graceful_stop_signal == SIGTERM)
            sig = SIGINT;            /* TERM is the graceful one */
        r = 0;
        if (runs && sig == 0)
            printf("%s (pid %ld) already running\n", base, pid);
        else if (runs && kill((pid_t)pid, sig) < 0) {
            fprintf(stderr, "%s: sending signal to server: %s\n", base,
                    strerror(errno));
            r = 1;
        } else if (!runs && (sig == SIGHUP || sig == SIGUSR1)) {
            printf("%s not running, trying to start\n", base);
            r = -1;
        } else if (!runs && sig == 0)
            r = -1;
        else if (!runs && pid == 0)
            printf("%s (no pid file) not running\n", base);
        else if (!runs)
            printf("%s (pid %ld?) not running\n", base, pid);
    }
    empm_config_free(cfg);
    EMPM_FREE(cfg);
    return r;
}

EMPM_API int empm_main(empm_config *cfg, int argc, char **argv)
{
    const char *name = argc > 0 ? argv[0] : "server", *control = NULL;
    const char *wrong = NULL;
    empm__source source;
    struct stat st;
    empm__args a;
    int test = 0, list = 0, folders = 0, c, r = -1;
    empm__program_stdio();
    memset(&source, 0, sizeof source);
    source.base = cfg;
    source.apply = empm__main_apply;
    source.argc = argc;
    source.argv = argv;
    empm__args_begin(&a, &source);
    while (r < 0 && wrong == NULL && (c = empm__args_next(&a)) != 0)
        switch (c) {
        case 'h':
            empm__main_usage(name);
            r = 0;
            break;
        case 'V': case 'v':
            empm__main_version();
            r = 0;
            break;
        case 'l': case 'M':
            empm__main_print_modules(c == 'l');
            r = 0;
            break;
        case 'L':
            empm__main_print_directives();
            r = 0;
            break;
        case 'k':
            test |= strcmp(a.value, "configtest") == 0;
            control = a.value;
            break;
        case 'S': case 't':
            test = 1;
            list |= c == 'S';
            break;
        case '.':
            if (stat(a.value, &st) < 0 || !S_ISDIR(st.st_mode))
                wrong = "is no directory, no port and no ADDRESS:PORT";
            else if (folders++ > 0)
                wrong = "is a second directory, and one is served";
            else if (!empm__main_serves_root(cfg))
                wrong = "has no meaning: no route serves DocumentRoot";
            break;
        case ':':
            wrong = "lacks what belongs to it";
            break;
        case '?':
            wrong = "is no option";
            break;
        }
    if (r < 0 && wrong != NULL) {
        fprintf(stderr, "%s: %s %s\ntry %s -h\n", name,
                a.value, wrong, name);
        r = 1;
    }
    if (r < 0 && test)
        r = empm__test_settings(name, &source, list) == EMPM_OK ? 0 : 1;
    else if (r < 0 && control != NULL && getenv("EMPM_READY_FD") == NULL) {
        r = empm__main_control(name, control, &source);
        if (r < 0)
            r = empm__main_detach();
        source.detached = r < 0;
    }
    if (r < 0)
        r = empm__program_run(&source, source.detached
                              ? NULL : empm__main_hello) == EMPM_OK
                ? 0 : 1;
    empm_config_free(cfg);
    return r;
}

#endif /* EVENTMPM_NO_MAIN */

#endif /* EVENTMPM_IMPLEMENTED */
#endif /* EVENTMPM_IMPLEMENTATION */

/* ===========================================================================
 * APPENDIX
 * ======================================================================== */

/* ---------------------------------------------------------------------------
 * >>letters -- what a format of CustomLog and LogFormat may contain
 *
 *   %h %a        the client's address; %{c}h %{c}a: the connection's
 *   %A           the server's address
 *   %l %L        always "-"
 *   %u           the note REMOTE_USER
 *   %t           when the request began, "[29/Nov/2026:02:51:51 +0000]".
 *                %{FORMAT}t: FORMAT for strftime(), or one of sec, msec, usec,
 *                msec_frac, usec_frac; "end:" before it takes the time of the
 *                end instead, "begin:" changes nothing
 *   %r           the request line
 *   %m %U %q %H  its method, path (as it was sent), query with '?', protocol
 *   %s           the status; 499 if the client left before its request was
 *                whole or before there was a status. %>s and %<s are the same
 *   %b %B        bytes of the body that were sent; for none "-" and 0
 *   %I %O %S     bytes received, sent, both together
 *   %D           microseconds that the request took
 *   %T           the same in seconds; %{s}T %{ms}T %{us}T name the unit
 *   %X           X: aborted; +: the connection is kept; -: it is closed
 *   %k           number of requests before this one on the connection
 *   %v %V        ServerName; the host that the request asks for, else the same
 *   %p           the server's port, also %{canonical}p %{local}p; %{remote}p:
 *                the client's
 *   %P           the process, also %{pid}P; %{tid}P %{hextid}P: the worker's
 *                number
 *   %f           the file that a request to EMPM_FILES means
 *   %R           the pattern of the route
 *   %{Field}i    a field of the request; %{Field}o: of the response
 *   %{name}C     a cookie
 *   %{Name}n     a note (empm_note()); %{Name}e: a note or, if there is none,
 *                the variable of the environment
 *   %%           a percent sign
 *
 * %400,501{Field}i prints for these statuses only, %!200,304{Field}i for all
 * others, and "-" elsewhere; so with each letter, eight statuses at most.
 * ------------------------------------------------------------------------- */

/* ---------------------------------------------------------------------------
 * >>messages -- the numbers in the error log, as in "EMPM0484: ..."
 *
 * A number below 5000 is Apache's own for the same message (AH00484). Messages
 * that load can repeat are limited, per number and child, to ten lines a minute
 * (one for those about the child itself); then one line counts the others.
 *
 *   0046  a child did not end in time and was killed
 *   0051  a signal or a crash ended a child, with a core dump
 *   0052  a signal or a crash ended a child; it is replaced
 *   0072  Listen: the address is in use or not one of this host
 *   0091  ErrorLog cannot be opened, or its program not started
 *   0111  ${NAME} in a configuration is not in the environment
 *   0112  DocumentRoot, or the folder of EMPM_FILES, is no directory: 404
 *   0481  no child can be started: see the limits of processes, memory, files
 *   0484  all workers are busy: MaxRequestWorkers may be too low
 *   0485  no slot for a child: draining ones get 2 s more, or a reload waits
 *   0486  few workers are idle: more children are started
 *   0489  the server, or its next generation, serves
 *   0491  the server stops
 *   0492  the server stops gracefully
 *   0493  the server restarts gracefully
 *   0494  the server restarts at once
 *   0497  ServerLimit is too high                  0499  ... is too low
 *   0501  ServerLimit cannot change in a reload
 *   0502  ThreadLimit is too high                  0504  ... is too low
 *   0506  ThreadLimit cannot change in a reload
 *   0507  ThreadsPerChild is above ThreadLimit     0509  ... is too low
 *   0511  MaxRequestWorkers is below ThreadsPerChild
 *   0513  ... is no multiple of ThreadsPerChild    0515  ... needs ServerLimit
 *   0517  StartServers is too low                  0519  MinSpareThreads is
 *   0521  MaxClients is the old name of MaxRequestWorkers
 *   0543  this system has no such User
 *   0544  this system has no such Group, or Group is set without User
 *   0545  MaxRequestsPerChild is the old name of MaxConnectionsPerChild
 *   0646  a log cannot be written, for a full disk or a full pipe: lines are
 *         lost, and no request waits for it
 *   0649  a CustomLog cannot be opened, or its program not started
 *   2324  children die before they serve, or StartTimeout is over: giving up
 *   2436  ThreadStackSize is not possible here
 *   5001  no memory for a request: 503, or the connection is closed
 *   5002  a handler misuses its request, or its answer cannot be finished
 *   5003  a client takes nothing, or too little, for Timeout: it is dropped
 *   5004  SpoolDirectory cannot be written: no right, or a full disk
 *   5005  MaxSpoolBytes or MaxBodyMemory is reached: clients get 503
 *   5006  a state that cannot occur: please report it
 *   5007  on_child_start or on_thread_start has failed: the child gives up
 *   5008  a listening socket cannot be watched, or another program changed it
 *   5009  accepting pauses: no descriptors, or MaxOpenConnections is reached
 *   5010  MaxOpenFiles is reached: large bodies, or files, get 503
 *   5011  a child cannot be made: no threads, memory or epoll for it
 *   5012  handlers outlast StopTimeout: the process ends under them
 *   5013  second stop: the process ends at once
 *   5014  a child has started                      5015  ... has ended
 *   5016  a file cannot be opened or read: clients get 503 or 500
 *   5017  a socket fails, not by its client's doing: it is closed
 *   5018  a request fails after its answer has begun
 *   5019  epoll_wait or poll fails: the child ends if that goes on
 *   5020  a unix socket that listens has been shut down: only a restart helps
 *   5030  a process without children cannot be reloaded or upgraded
 *   5031  started as root without User: nobody serves; or started as another
 *         user: User is ignored
 *   5032  a reload or an upgrade has failed: the old children serve on
 *   5034  an old generation has ended: its log files can be rotated
 *   5035  User, Group or ChrootDir cannot be applied
 *   5036  PidFile cannot be written
 *   5037  a handler takes longer than StuckWorkerTimeout
 *   5038  a child has not answered its watchdog and was killed; or, without
 *         children, the listener has not
 *   5039  an upgrade cannot be started
 *   5040  an upgrade: which process starts, which one serves
 *   5041  PidFile names a server that runs
 *   5042  the settings that are in force
 *   5043  the serving user has no access to a directory: the command that helps
 *   5044  -k start without ErrorLog: later messages are lost
 *   5045  the logs are opened anew
 *   5046  a connection cannot be passed on to another child
 *   5047  a reload cannot take back a setting
 *   5048  a pipe cannot be made: the process ends
 *   5049  settings that have no meaning without children
 *   5101  a setting is out of range
 *   5102  ServerField or ServerTokens is no valid value of a field
 *   5103  LimitRequestHead is small beside LimitRequestLine
 *   5104  no memory at start
 *   5105  a route is not valid, or two routes conflict
 *   5106  DocumentRoot cannot be opened            5107  SpoolDirectory is none
 *   5108  Listen is not valid, or cannot be used  5109  ... is given twice
 *   5110  StartServers is above the limit by MaxRequestWorkers
 *   5111  MaxSpareThreads is too close to MinSpareThreads
 *   5112  SendBufferSize or ReceiveBufferSize is too small
 *   5113  this Listen is redundant: another one already covers its IPv4 port
 *   5114  Listen overlaps with a socket in use
 *   5115  AddType is not valid
 *   5120  Include or a configuration file: not found, or nested too deep
 *   5121  a directive of Apache has no meaning here
 *   5122  there is no such directive               5123  ... has a bad value
 *   5124  a line of the configuration is too long
 *   5125  a section is unknown, not closed or not opened, or has no condition
 *   5126  a directive or section of Apache is not supported: what to do instead
 *   5130  RLIMIT_NOFILE allows fewer connections or files than are set
 *   5131  the stacks of all threads can exceed the memory
 *   5132  ListenBacklog is above the limit of the system
 *   5133  there are more threads than the system allows
 *   5134  a directory that is set, or the directory of a log, PidFile or unix
 *         socket, or the program of a log does not exist
 *   5301  RemoteIPTrustedProxy is no address and no network
 *   5302  RemoteIPHeader is no name of a field
 *   5303  RemoteIPHeader is set, and this build has no support for it
 *   5304  a proxy sent no PROXY header, or a bad one
 *   5305  a peer that is not trusted sent a PROXY header
 *   5306  MaxConnectionsPerPeer is reached: connections are refused
 *   5400  CustomLog or LogFormat is not valid
 *   5401  ... has a format that is not valid
 *   5402  ErrorLog is no file, |program, stderr or syslog:facility
 *   5403  no memory for a line of a CustomLog
 *   5500  SharedStoreSize is too small or too large
 *   5501  SharedStoreSize is set, and this build has no store
 *   5502  no memory for the shared store
 *   5503  SharedStoreSize cannot change in a reload
 * ------------------------------------------------------------------------- */

/* ---------------------------------------------------------------------------
 * >>haproxy -- a configuration for several servers behind one balancer
 *
 *     global
 *         maxconn 20000                     # needs 40,000 descriptors and some
 *     defaults
 *         mode http
 *         timeout connect 2s
 *         timeout client 30s
 *         timeout server 60s                # longer than the slowest handler
 *         timeout http-request 10s
 *         timeout http-keep-alive 5s        # less than KeepAliveTimeout here
 *         retries 3
 *         option redispatch 1               # each retry asks another node
 *         retry-on conn-failure empty-response
 *     frontend www
 *         bind :80
 *         default_backend nodes
 *     backend nodes
 *         balance leastconn
 *         http-request disable-l7-retry unless METH_GET
 *         option httpchk GET /health
 *         default-server check inter 1s fall 2 rise 1 send-proxy-v2
 *         server node1 10.0.0.11:8080
 *         server node2 10.0.0.12:8080
 *
 * Each node, with HAProxy on 10.0.0.1 and empm_health_page on /health, has
 *
 *     Listen 8080 proxy
 *     RemoteIPTrustedProxy 10.0.0.1
 *     KeepAliveTimeout 20
 *     GracefulShutdownDelay 3
 *
 * HAProxy closes idle connections before a node does: only HAProxy knows that
 * no request is on its way. A node that stops gracefully answers 503 to /health
 * during GracefulShutdownDelay, then answers all that it has accepted and
 * refuses new connections, which HAProxy sends to another node: no request is
 * lost. With a node that dies go its unfinished requests; HAProxy
 * sends those with GET again. Nodes with copies of the same files need
 * "FileETag MTime Size": the inode, which the default includes, differs.
 * ------------------------------------------------------------------------- */

/* ===========================================================================
 * HISTORY
 *   0.1.0  2026-11  the event-MPM engine and HTTP/1.1
 *
 * LICENCE: choose one.
 * ---------------------------------------------------------------------------
 * A. Public domain (Unlicense, see unlicense.org)
 *
 * This is free and unencumbered software released into the public domain.
 *
 * Anyone is free to copy, modify, publish, use, compile, sell, or distribute
 * this software, either in source code form or as a compiled binary, for any
 * purpose, commercial or non-commercial, and by any means.
 *
 * In jurisdictions that recognize copyright laws, the author or authors of this
 * software dedicate any and all copyright interest in the software to the
 * public domain. We make this dedication for the benefit of the public at large
 * and to the detriment of our heirs and successors. We intend this dedication
 * to be an overt act of relinquishment in perpetuity of all present and future
 * rights to this software under copyright law.
 *
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
 * IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
 * FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
 * AUTHORS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN
 * ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION
 * WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
 * ---------------------------------------------------------------------------
 * B. MIT License
 *
 * Copyright (c) 2026 the eventmpm.h authors
 *
 * Permission is hereby granted, free of charge, to any person obtaining a copy
 * of this software and associated documentation files (the "Software"), to deal
 * in the Software without restriction, including without limitation the rights
 * to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
 * copies of the Software, and to permit persons to whom the Software is
 * furnished to do so, subject to the following conditions:
 *
 * The above copyright notice and this permission notice shall be included in
 * all copies or substantial portions of the Software.
 *
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
 * IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
 * FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
 * AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
 * LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
 * OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
 * SOFTWARE.
 * ======================================================================== */
