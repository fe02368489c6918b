# eventmpm.h needs no build: copy it. This file builds what surrounds it.
#
#   make                build the example
#   make run            ... and serve the current directory (PORT=8080 DIR=.)
#   make run-tls        the same as https://, with a certificate made by openssl
#   make test           build and test, with epoll and with poll()
#   make test-long      the same, with the tests that take minutes
#   make test-faults    each call of the C library fails, at each moment, with
#                       each error; `make test` has a part of this matrix.
#                       FAULTS=serve.pread: rows with this in their name
#   make test-asan      test, with the sanitizers of addresses, leaks and
#                       undefined behaviour
#   make test-tsan      test, with the one of threads
#   make test-valgrind  test, under valgrind's memcheck
#   make test-headers   compile the header in every dialect, switch by switch,
#                       and hold the rules of its text
#   make test-model     check the model of the hand-over with spin;
#                       test-model-long: larger shapes of it, too
#   make fuzz           random clients and handlers, FUZZ_SECONDS=60 for each
#                       target, with libFuzzer where clang has it
#   make bench          measure this server and the floor, in two minutes
#   make compare        ... and nginx, Apache, lighttpd, h2o where installed
#   make install        PREFIX=/usr/local, DESTDIR=
#   make clean
#   make help           this list
#
# TESTS="name ..." runs the tests with these names only; JOBS=3 at a time, since
# tests mostly wait. Each test target ends with "N passed, N failed, N skipped",
# and fails if anything did.

CC      ?= cc
CFLAGS  ?= -O2 -g
PREFIX  ?= /usr/local
PORT    ?= 8080
DIR     ?= .
FAULTS  ?= all
JOBS    ?= 3
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= conn api route fmt fcgi forms hpack h2 ws oom $(TLS_TARGET)
export CC CFLAGS CPPFLAGS LDFLAGS LDLIBS TESTS JOBS FUZZ_SECONDS FUZZ_TARGETS
# HTTPS is built and tested where BearSSL is installed.
BEARSSL  = '\#include <bearssl.h>'
ifneq ($(shell echo $(BEARSSL) | $(CC) -E -x c - 2>/dev/null),)
TLS      = -DEVENTMPM_TLS_BEARSSL
TLS_LIBS = -lbearssl
TLS_TARGET = tls
endif
export TLS TLS_LIBS
BUILD = $(CC) $(CPPFLAGS) $(CFLAGS) $(TLS) $(MORE) -pthread $(LDFLAGS) -o $@ \
        $< $(LDLIBS) $(TLS_LIBS)

all: build/example_server

run: build/example_server
	build/example_server -p $(PORT) $(DIR)

run-tls: build/example_server build/localhost.pem
	build/example_server -p $(PORT) -s build/localhost.pem \
	    build/localhost.key $(DIR)

build/localhost.pem: | build
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
	    -keyout build/localhost.key -out $@ -days 30 -subj /CN=localhost \
	    -addext subjectAltName=DNS:localhost

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

# --- tests ------------------------------------------------------------------

test-long test-model-long: export LONG = --long
# Both pollers at once; the second one is shown behind.
test test-long: build/test_epoll build/test_poll
	@.ci/show poll build/test_poll -j $(JOBS) $(LONG) $(TESTS) >/dev/null & \
	    .ci/show epoll build/test_epoll -j $(JOBS) $(LONG) $(TESTS); \
	    wait; echo "--- poll"; cat build/poll.log
	@.ci/count epoll poll

# What does not hold is listed as "FAULT ROW"; that row alone, with the server's
# log: build/test_epoll -d --faults ROW faults.
test-faults: build/test_epoll build/test_poll
	@.ci/show faults_epoll build/test_epoll --faults $(FAULTS) faults.
	@.ci/show faults_poll build/test_poll --faults $(FAULTS) faults.
	@grep -h '^FAULT' build/faults_*.log | sort | uniq -c
	@.ci/count faults_epoll faults_poll

test-asan: export ASAN_OPTIONS = detect_stack_use_after_return=1
test-tsan: export TSAN_OPTIONS = die_after_fork=0
test-asan test-tsan: test-%: build/test_%
	@.ci/show $* build/test_$* -j $(JOBS) $(TESTS)
	@.ci/count $*

test-valgrind: build/test_epoll
	@.ci/show valgrind .ci/valgrind
	@.ci/count valgrind

test-headers:
	@.ci/show text .ci/text
	@.ci/show headers .ci/headers
	@.ci/count text headers

test-model test-model-long:
	@.ci/show model .ci/model
	@.ci/count model

fuzz:
	@.ci/show fuzz .ci/fuzz
	@.ci/count fuzz

# --- figures ----------------------------------------------------------------

compare: BENCH = --compare --json build/bench.json --plot build/bench.svg
bench compare: build/bench
	build/bench $(BENCH)

# --- what is built ----------------------------------------------------------

# -O1: compiling takes half of what it takes at -O2; at -O0 a third of that,
# and tests take as long. -g1 has the lines that a sanitizer names, and takes a
# sixth of the time away.
build/test_epoll: MORE = -O1
build/test_poll: MORE = -O0 -DEVENTMPM_POLL
build/test_asan: MORE = -O1 -g1 -fsanitize=address,undefined \
                        -fno-sanitize-recover=all -fno-omit-frame-pointer
build/test_tsan: MORE = -O1 -g1 -fsanitize=thread

build/test_%: test_eventmpm.c eventmpm.h | build
	$(BUILD)

build/%: %.c eventmpm.h | build
	$(BUILD)

build:
	mkdir -p build

# --- the rest ---------------------------------------------------------------

install:
	mkdir -p $(DESTDIR)$(PREFIX)/include
	cp eventmpm.h $(DESTDIR)$(PREFIX)/include/eventmpm.h
	chmod 644 $(DESTDIR)$(PREFIX)/include/eventmpm.h

clean:
	rm -rf build

.PHONY: all run run-tls help install clean bench compare fuzz \
        test test-long test-faults test-asan test-tsan test-valgrind \
        test-headers test-model test-model-long
