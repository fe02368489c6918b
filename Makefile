# eventmpm.h needs no build: copy it. This file builds what surrounds it.
#
#   make run            serve the current directory (PORT=8080 DIR=.)
#   make test           build and test, with epoll and with poll()
#   make test-long      the same, with the tests that take minutes
#   make test-faults    each call of the C library fails, at each moment, with
#                       each error: the whole matrix; `make test` has a part.
#                       FAULTS=serve.pread: rows with this in their name
#   make test-asan      ... under AddressSanitizer, LeakSanitizer and
#                       UndefinedBehaviorSanitizer
#   make test-tsan      ... under ThreadSanitizer
#   make test-valgrind  ... under valgrind's memcheck
#   make test-headers   compile the header in every dialect, switch by switch
#   make fuzz           random clients and handlers, FUZZ_SECONDS=60 for each
#                       target, with libFuzzer where clang has it
#   make test-model     check the model of the hand-over with spin
#   make bench          measure this server and the floor, under two minutes
#   make compare        ... and nginx, Apache, lighttpd, h2o where installed
#   make install        PREFIX=/usr/local, DESTDIR=
#   make clean
#
# TESTS="name ..." runs the tests with these names only. Each test target ends
# with one line, "N passed, N failed, N skipped", and fails if anything did.

CC      ?= cc
CFLAGS  ?= -O2 -g
PREFIX  ?= /usr/local
DESTDIR ?=
PORT    ?= 8080
DIR     ?= .
TESTS   ?=
FAULTS  ?= all
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= conn api route fmt oom

WARN = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion \
       -Wcast-qual
BUILD_TEST = $(CC) $(CPPFLAGS) $(CFLAGS) -pthread $(LDFLAGS) -o $@ \
             test_eventmpm.c $(LDLIBS)

all: build/example_server

run: build/example_server
	build/example_server -p $(PORT) $(DIR)

build:
	mkdir -p build

build/example_server: example_server.c eventmpm.h | build
	$(CC) $(CPPFLAGS) $(CFLAGS) -pthread $(LDFLAGS) -o $@ example_server.c $(LDLIBS)

# --- how tests run and are counted ------------------------------------------

# $(call show,NAME,COMMAND) runs a command in the open and keeps what it says,
# and its exit status, for the count.
show = @echo "--- $(1)"; rm -f build/$(1).log; \
       { $(2); echo "exit $$?" >build/$(1).exit; } 2>&1 | tee build/$(1).log; \
       cat build/$(1).exit >>build/$(1).log

# Adds up the last "N passed, N failed[, N skipped]" of every log. One that has
# no such line, or ended badly with nothing failed, is one more failure.
define COUNT
function take() {
    if (!told || (exit_status != 0 && f == 0)) {
        print log_name ": ended with status " exit_status
        f++
    }
    P += p; F += f; S += s
    p = f = s = told = 0; exit_status = "unknown"
}
FNR == 1 { if (NR > 1) take(); log_name = FILENAME }
/^[0-9]+ passed, [0-9]+ failed/ {
    p = $$1; f = $$3; s = ($$6 ~ /^skipped/) ? $$5 : 0; told = 1
}
/^exit [0-9]+$$/ { exit_status = $$2 }
END { take(); print P " passed, " F " failed, " S " skipped"; exit F > 0 }
endef
export COUNT
count = @awk "$$COUNT" $(patsubst %,build/%.log,$(1))

# --- tests ------------------------------------------------------------------

test: build/test_epoll build/test_poll
	$(call show,epoll,build/test_epoll $(TESTS))
	$(call show,poll,build/test_poll $(TESTS))
	$(call count,epoll poll)

test-long: build/test_epoll build/test_poll
	$(call show,epoll,build/test_epoll --long $(TESTS))
	$(call show,poll,build/test_poll --long $(TESTS))
	$(call count,epoll poll)

# What does not hold is listed as "FAULT ROW"; that row alone, with the server's
# log: build/test_epoll -d --faults ROW faults.
test-faults: build/test_epoll build/test_poll
	$(call show,faults_epoll,build/test_epoll --faults $(FAULTS) faults.)
	$(call show,faults_poll,build/test_poll --faults $(FAULTS) faults.)
	@grep -h '^FAULT' build/faults_epoll.log build/faults_poll.log | sort | uniq -c
	$(call count,faults_epoll faults_poll)

test-asan: build/test_asan
	$(call show,asan,ASAN_OPTIONS=detect_stack_use_after_return=1 build/test_asan $(TESTS))
	$(call count,asan)

test-tsan: build/test_tsan
	$(call show,tsan,TSAN_OPTIONS=die_after_fork=0 build/test_tsan $(TESTS))
	$(call count,tsan)

define VALGRIND
command -v valgrind >/dev/null || {
    echo "skipped: no valgrind"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}
# glibc keeps what it has read of resolv.conf until the process ends
printf '{\n resolv_conf\n Memcheck:Leak\n ...\n fun:__resolv_conf_load\n}\n' \
    >build/valgrind.supp
valgrind -q --error-exitcode=9 --fair-sched=yes --leak-check=full \
    --show-leak-kinds=definite --errors-for-leak-kinds=definite \
    --suppressions=build/valgrind.supp build/test_epoll $(TESTS)
endef
export VALGRIND

test-valgrind: build/test_epoll
	$(call show,valgrind,sh -c "$$VALGRIND")
	$(call count,valgrind)

build/test_epoll: test_eventmpm.c eventmpm.h | build
	$(BUILD_TEST)

build/test_poll: test_eventmpm.c eventmpm.h | build
	$(BUILD_TEST) -DEVENTMPM_POLL

build/test_asan: test_eventmpm.c eventmpm.h | build
	$(BUILD_TEST) -O1 -fsanitize=address,undefined -fno-sanitize-recover=all \
	              -fno-omit-frame-pointer

build/test_tsan: test_eventmpm.c eventmpm.h | build
	$(BUILD_TEST) -O1 -fsanitize=thread

# --- fuzzers ------------------------------------------------------------------

# libFuzzer keeps what it finds in build/fuzz; else the seed is printed, for
# build/test_fuzz --fuzz TARGET --seed S --runs 1
define FUZZ
mkdir -p build/fuzz && cd build/fuzz
failed=0 passed=0
if clang -fsanitize=fuzzer,address,undefined -DEMPM_FUZZ -O1 -g -pthread -w \
    -fno-sanitize-recover=all -o fuzzer ../../test_eventmpm.c 2>/dev/null; then
    kind=libFuzzer
else
    kind=seeds
    $(CC) $(CPPFLAGS) $(CFLAGS) -pthread $(LDFLAGS) -o test_fuzz \
        ../../test_eventmpm.c $(LDLIBS) || exit 1
fi
for target in $(FUZZ_TARGETS); do
    mkdir -p $$target
    echo "--- $$target, $(FUZZ_SECONDS) s, $$kind"
    if [ $$kind = libFuzzer ]; then
        FUZZ=$$target ./fuzzer -max_total_time=$(FUZZ_SECONDS) -max_len=600 \
            -verbosity=0 -print_funcs=0 -print_final_stats=1 -artifact_prefix=$$target/ $$target
    else
        ./test_fuzz --fuzz $$target --seconds $(FUZZ_SECONDS) --seed $$(date +%s)
    fi && passed=$$((passed + 1)) || failed=$$((failed + 1))
done
echo "$$passed passed, $$failed failed"
[ $$failed = 0 ]
endef
export FUZZ

fuzz: | build
	$(call show,fuzz,sh -c "$$FUZZ")
	$(call count,fuzz)

# Every compiler x dialect x switch, with the warnings as errors; and the example,
# as its first line says to build it.
define HEADERS
rm -rf build/headers && mkdir -p build/headers && cd build/headers
printf '#include "eventmpm.h"\n' >declared.c
printf '#define EVENTMPM_IMPLEMENTATION\n#include "eventmpm.h"\n' >defined.c
printf '#include <stdlib.h>\n' >probe.c
for compiler in $(filter-out cc gcc clang,$(CC)) cc gcc clang 'gcc -m32' \
                musl-gcc g++ clang++ 'g++ -m32'; do
    case $$compiler in
    cc)   language=c dialects= ;;
    *++*) language=c++ dialects='c++11 gnu++20' ;;
    *)    language=c dialects='c99 gnu2x' ;;
    esac
    if ! $$compiler -x $$language -c probe.c 2>/dev/null; then
        echo "skipped: no $$compiler"
        continue
    fi
    for dialect in $$dialects; do
        strict="$$compiler -std=$$dialect -x $$language $(WARN) -I../.. -c"
        echo "$$strict declared.c"
        echo "$$strict -O2 defined.c"
        [ "$$compiler" = gcc ] && echo "$$strict -Wlogical-op defined.c"
        for switch in $(SWITCHES); do
            echo "$$strict -D$$switch defined.c"
        done
        echo "$$strict $(SWITCHES:%=-D%) defined.c"
        echo "$$strict ../../example_server.c"
    done
    echo "$$compiler -x $$language ../../example_server.c"
done >commands
echo "$(CC) $(WARN) -pthread ../../bench.c" >>commands
grep '^skipped' commands
grep -v '^skipped' commands | xargs -P 2 -I @ sh -c \
    'object=$$(mktemp ./XXXXXX); @ -Werror -o $$object || echo "FAILED: @"; rm $$object' \
    >output 2>&1
cat output
awk -v failed="$$(grep -c '^FAILED' output)" '
    /^skipped/ { s++ }
    END { print NR - s - failed " passed, " failed " failed, " s + 0 " skipped"
          exit failed > 0 }' commands
endef
export HEADERS
SWITCHES = EVENTMPM_POLL EVENTMPM_NO_FILES EVENTMPM_NO_STATUS \
           EVENTMPM_NO_PROXY EVENTMPM_NO_STORE EVENTMPM_NO_CONFIG_FILES \
           EVENTMPM_NO_ACCESS_LOG EVENTMPM_NO_FORK EVENTMPM_NO_MAIN

test-headers: | build
	$(call show,headers,sh -c "$$HEADERS")
	$(call count,headers)

# The model of the hand-over is kept in test_eventmpm.c, with a list of runs. Rows
# "ok" must be free of errors; "FAIL" rows break one rule, which must be noticed.
define MODEL
command -v spin >/dev/null || {
    echo "skipped: no spin"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}
rm -rf build/model && mkdir -p build/model && cd build/model
awk '/^#endif.*>>model end/ { on = 0 } on; /^#if 0.*>>model/ { on = 1 }' \
    ../../test_eventmpm.c >handover.pml
awk '/^ \*   (ok|FAIL) +(safe|live) / { sub(/^ \* */, ""); print }' \
    handover.pml | xargs -P 2 -I @ sh -c "$$MODEL_RUN" run @ | tee verdicts
awk '/^passed/ { p++ } END { print p + 0 " passed, " NR - p " failed"
                             exit p < NR || NR == 0 }' verdicts
endef
export MODEL

define MODEL_RUN
set -- $$1
want=$$1 mode=$$2
name=$$(echo "$$*" | tr -d ' ')
shift 2
case $$mode in
safe) compile=-DSAFETY search= ;;
live) compile=-DNP search=-l ;;
esac
[ $$want = ok ] && compile="-O1 $$compile"       # the others are soon over
mkdir $$name && cd $$name && spin -a $$* ../handover.pml >out 2>&1 &&
    $(CC) $$compile -w -DCOLLAPSE -DMEMLIM=4000 pan.c -o pan >>out 2>&1 &&
    ./pan -E -n -m400000 $$search >>out 2>&1
got="broken: see build/model/$$name/out"
grep -q '^State-vector.*errors: 0$$' out && got=ok
grep -q '^State-vector.*errors: [1-9]' out && got=FAIL
grep -qi 'memory limit\|max search depth too small\|truncated' out &&
    got=incomplete
rm -f pan*
[ "$$got" = $$want ] && verdict=passed || verdict="FAILED, $$got:"
echo "$$verdict $$want $$mode $$*," $$(awk '/states, stored/ { print $$1 }' out) states
endef
export MODEL_RUN

test-model: | build
	$(call show,model,sh -c "$$MODEL")
	$(call count,model)

# --- figures ----------------------------------------------------------------

build/bench: bench.c eventmpm.h | build
	$(CC) $(CPPFLAGS) $(CFLAGS) -pthread $(LDFLAGS) -o $@ bench.c $(LDLIBS)

bench: build/bench
	build/bench

compare: build/bench
	build/bench --compare --json build/bench.json --plot build/bench.svg

# --- the rest ---------------------------------------------------------------

install:
	mkdir -p $(DESTDIR)$(PREFIX)/include
	cp eventmpm.h $(DESTDIR)$(PREFIX)/include/eventmpm.h
	chmod 644 $(DESTDIR)$(PREFIX)/include/eventmpm.h

clean:
	rm -rf build

.PHONY: all run test fuzz test-long test-faults test-asan test-tsan test-valgrind \
        test-headers test-model bench compare install clean
