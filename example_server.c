/* example_server.c - what eventmpm.h looks like from a handler's side.
 *
 *     cc example_server.c -o example_server
 *     ./example_server -p 8080 .            serves the current directory
 *
 * and beside the files, each a handler of a few lines:
 *
 *     curl localhost:8080/hello/world                 a value from the path
 *     curl --data-binary @FILE localhost:8080/echo    the body, sent back
 *     curl 'localhost:8080/sleep?ms=500'              a handler that blocks
 *     curl 'localhost:8080/stream?bytes=1000000'      a response of any length
 *     curl -N 'localhost:8080/events?count=5'         server-sent events
 *     curl -u demo:demo -d @FILE localhost:8080/private/echo   with a password
 *     curl localhost:8080/visits                      one count of all children
 *     curl localhost:8080/server-status               how the server is
 *
 * -h lists the options. Public domain or MIT, as eventmpm.h is.
 */
#define EVENTMPM_IMPLEMENTATION          /* in one file, and before the rest */
#include "eventmpm.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The number in the query field `name`: from min to max, `fallback` if there is
 * no such field, -1 if it is anything else. */
static int64_t query_number(empm_request *req, const char *name,
                            int64_t fallback, int64_t min, int64_t max)
{
    const char *value = empm_query(req, name);
    char *end;
    int64_t n;

    if (value == NULL)
        return fallback;
    n = strtoll(value, &end, 10);        /* a longer one becomes LLONG_MAX */
    return end != value && *end == '\0' && n >= min && n <= max ? n : -1;
}

/* ---------------------------------------------------------------------------
 * GET /hello/{name} -- what is written is the answer
 * ------------------------------------------------------------------------- */

static int hello(empm_request *req, void *user)
{
    (void)user;
    empm_printf(req, "Hello, %s!\n", empm_path_value(req, "name"));
    return EMPM_OK;
}

/* ---------------------------------------------------------------------------
 * POST /echo -- the whole body, however it came: in one piece, chunked, slowly.
 * It has arrived before this runs, so that no client can make a worker wait.
 * ------------------------------------------------------------------------- */

static int echo(empm_request *req, void *user)
{
    const char *type = empm_header(req, "Content-Type");
    size_t len;
    const char *body = empm_body(req, &len);

    (void)user;
    empm_set_header(req, "Content-Type",
                    type != NULL ? type : "application/octet-stream");
    return empm_write(req, body, len);
}

/* ---------------------------------------------------------------------------
 * GET /sleep?ms=N -- a handler may block: only its own worker waits. One that
 * works for long looks now and then whether anybody still wants the answer.
 * ------------------------------------------------------------------------- */

static int nap(empm_request *req, void *user)
{
    int64_t ms = query_number(req, "ms", 1000, 0, 3600 * 1000);
    int64_t left = ms;

    (void)user;
    if (ms < 0)
        return 400;
    while (left > 0) {
        struct timespec slice = { 0, 0 };
        int step = left < 50 ? (int)left : 50;

        /* a half-closed client only has no more to say: it still listens */
        if (empm_should_stop(req) & ~EMPM_STOP_HALF_CLOSED)
            return 503;
        slice.tv_nsec = step * 1000000L;
        nanosleep(&slice, NULL);
        left -= step;
    }
    empm_printf(req, "slept for %ld ms\n", (long)ms);
    return EMPM_OK;
}

/* ---------------------------------------------------------------------------
 * GET /stream?bytes=N -- more than anybody wants in memory: the server asks for
 * the next piece whenever the client has taken the last one. With &chunked its
 * length is not told in advance.
 * ------------------------------------------------------------------------- */

struct text {
    int64_t sent, bytes;
};

static long stream_next(empm_request *req, void *buf, size_t cap, void *user)
{
    static const char line[] = "0123456789 abcdefghijklmnopqrstuvwxyz "
                               "ABCDEFGHIJKLMNOPQRSTUVWX.\n";
    struct text *s = (struct text *)user;
    char *out = (char *)buf;
    long n = 0;

    (void)req;
    while ((size_t)n < cap && s->sent < s->bytes)
        out[n++] = line[s->sent++ % 64];
    return n;                            /* 0 is the end */
}

static int stream(empm_request *req, void *user)
{
    struct text *s = (struct text *)empm_alloc(req, sizeof *s);
    const char *chunked = empm_query(req, "chunked");

    (void)user;
    if (s == NULL)
        return 503;
    s->sent = 0;
    s->bytes = query_number(req, "bytes", 1 << 20, 0, (int64_t)1 << 50);
    if (s->bytes < 0)
        return 400;
    return empm_stream(req, chunked != NULL ? -1 : s->bytes, stream_next, s);
}

/* ---------------------------------------------------------------------------
 * GET /events?count=N -- one event per second. Between two of them the request
 * is suspended and holds no worker: thousands of these cost sockets only.
 * ------------------------------------------------------------------------- */

struct ticker {
    int sent, count;
};

static int tick(empm_request *req, enum empm_why why, void *user)
{
    struct ticker *t = (struct ticker *)user;

    if (why == EMPM_HALF_CLOSED)
        return EMPM_SUSPENDED;           /* it still reads: wait on */
    if (why == EMPM_GONE || why == EMPM_STOPPING)
        return EMPM_OK;                  /* this ends the response */
    t->sent++;
    empm_printf(req, "id: %d\ndata: tick %d of %d\n\n", t->sent, t->sent,
                t->count);
    if (t->sent == t->count || empm_suspend(req, 1000, tick, t) == 0)
        return EMPM_OK;
    return EMPM_SUSPENDED;
}

static int events(empm_request *req, void *user)
{
    struct ticker *t = (struct ticker *)empm_alloc(req, sizeof *t);

    (void)user;
    if (t == NULL)
        return 503;
    t->sent = 0;
    t->count = (int)query_number(req, "count", 10, 1, 86400);
    if (t->count < 0)
        return 400;
    empm_set_header(req, "Content-Type", "text/event-stream");
    empm_set_header(req, "Cache-Control", "no-store");
    return tick(req, EMPM_RESUMED, t);
}

/* ---------------------------------------------------------------------------
 * POST /private/echo -- on_head runs before any of the body is asked for, so a
 * stranger's upload costs nothing; members may send more than the others.
 * ------------------------------------------------------------------------- */

static char password[] = "Basic ZGVtbzpkZW1v";    /* demo:demo in base64 */

static int members_only(empm_request *req, void *user)
{
    const char *given = empm_header(req, "Authorization");

    if (given != NULL && strcmp(given, (const char *)user) == 0)
        return EMPM_OK;
    empm_set_header(req, "WWW-Authenticate", "Basic realm=\"example\"");
    return 401;
}

/* ---------------------------------------------------------------------------
 * GET /visits -- children share no variables, but they share the store
 * ------------------------------------------------------------------------- */

static int visits(empm_request *req, void *user)
{
    int64_t n;

    (void)user;
    if (empm_store_add(empm_server_of(req), "visits", 6, 1, 0, &n) != EMPM_OK)
        return 503;
    empm_printf(req, "visit %ld\n", (long)n);
    return EMPM_OK;
}

int main(int argc, char **argv)
{
    static const empm_route routes[] = {
        EMPM_ROUTE("GET /hello/{name}",  hello,            NULL),
        EMPM_ROUTE("POST /echo",         echo,             NULL),
        EMPM_ROUTE("GET /sleep",         nap,              NULL),
        EMPM_ROUTE("GET /stream",        stream,           NULL),
        EMPM_ROUTE("GET /events",        events,           NULL),
        EMPM_ROUTE("GET /visits",        visits,           NULL),
        EMPM_ROUTE("GET /server-status", empm_status_page, NULL),
        EMPM_ROUTE_WITH("POST /private/echo", echo, password,
                        members_only, NULL, 32 << 20, 0, 0),
        EMPM_FILES("GET /", NULL),       /* the DIR of the command line */
        EMPM_ROUTES_END
    };
    empm_config cfg = empm_defaults();

    cfg.routes = routes;
    cfg.shared_store_size = 64 << 10;    /* -c "SharedStoreSize ..." changes it */
    return empm_main(&cfg, argc, argv);  /* until ^C, or kill -TERM */
}
