/* test_running.c - promises A: the environment of a command, and its exit status. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void exits_with(const char *text, int code, int signal)
{
    msb_exec_options options = script(text);
    struct outcome outcome = run_command(&options);

    CHECK_INT(outcome.ending, MSB_EVENT_EXITED);
    CHECK_INT(outcome.exit.code, code);
    CHECK_INT(outcome.exit.signal, signal);
    CHECK_INT(outcome.exit.flags & ~(uint32_t)MSB_EXIT_CORE_DUMPED, 0);
    CHECK_INT(outcome.end_flags, 0);
    forget(&outcome);
}

TEST(test_a1_every_exit_code_is_a_result)
{
    exits_with("exit 0", 0, 0);
    exits_with("exit 1", 1, 0);
    exits_with("exit 255", 255, 0);
    exits_with("kill -TERM $$", -1, SIGTERM);
    exits_with("kill -KILL $$", -1, SIGKILL);
    exits_with("kill -SEGV $$", -1, SIGSEGV);
}

TEST(test_a2_arguments_arrive_unchanged)
{
    const char *args[] = {"[%s]", "", " ", "a  b", "$HOME", "*", ";", "a\nb", "'\"\\", "\xff\xfe\x80", ""};
    msb_exec_options options = command("printf");
    struct outcome outcome;

    SET_ARRAY(options, args, args);
    outcome = run_command(&options);
    CHECK_TEXT(outcome.out.data, "[][ ][a  b][$HOME][*][;][a\nb]['\"\\][\xff\xfe\x80][]");
    forget(&outcome);
}

TEST(test_a3_a_name_is_looked_up_in_the_commands_own_path)
{
    const char *env[] = {"PATH=/work:/bin"};
    msb_exec_options options = command("hello");
    struct outcome outcome;

    SET_ARRAY(options, env, env);
    outcome = run_command(&options);
    CHECK_TEXT(outcome.out.data, "hello from /\n");
    forget(&outcome);
    options = command("./hello");
    options.cwd = "/work";
    outcome = run_command(&options);
    CHECK_TEXT(outcome.out.data, "hello from /work\n");
    forget(&outcome);
}

TEST(test_a6_script_gets_its_arguments)
{
    const char *args[] = {"name", "one", "two words"};
    msb_exec_options options = script("echo \"$0|$1|$2\"");
    struct outcome outcome;

    SET_ARRAY(options, args, args);
    outcome = run_command(&options);
    CHECK_TEXT(outcome.out.data, "name|one|two words\n");
    forget(&outcome);
}

TEST(test_a7_variables_are_set_once_and_the_last_one_wins)
{
    const char *env[] = {"A=1", "EMPTY=", "A=2", "EQUALS=a=b", "BYTES=\xff"};
    msb_exec_options options = script("env | grep -c ^A=; echo \"$A|${EMPTY-unset}|$EQUALS|$BYTES\"");
    struct outcome outcome;

    SET_ARRAY(options, env, env);
    outcome = run_command(&options);
    CHECK_TEXT(outcome.out.data, "1\n2||a=b|\xff\n");
    forget(&outcome);
    CHECK_TEXT(sh("echo $A $HOME $USER $LOGNAME ${TERM-none}; env | grep -c MSB_"
                  " || true"), "/root root root none\n0\n");
}

TEST(test_a8_directory_and_user_are_the_commands)
{
    msb_exec_options options = script("pwd; id -u; id -g; id -G; echo $HOME");
    struct outcome outcome;

    options.cwd = "/home";
    options.user = "app";
    outcome = run_command(&options);
    CHECK_TEXT(outcome.out.data, "/home\n1000\n1000\n1000 2000\n/home/app\n");
    forget(&outcome);
    options = script("id -u; id -g");
    options.user = "app:data";
    outcome = run_command(&options);
    CHECK_TEXT(outcome.out.data, "1000\n2000\n");
    forget(&outcome);
    options.user = "1234:5678";
    outcome = run_command(&options);
    CHECK_TEXT(outcome.out.data, "1234\n5678\n");
    forget(&outcome);
    CHECK_TEXT(sh("pwd; id -u"), "/\n0\n");
}

TEST(test_a8_what_the_command_leaves_open_is_the_sandboxs)
{
    const char *env[] = {"A=sandbox", "B=sandbox"}, *own[] = {"B=command"}, *labels[] = {"k=v"};
    msb_sandbox_options options = sandbox_named("defaults");
    msb_exec_options exec = script("echo $A $B $(pwd) $(id -u) $(hostname) $0");
    struct outcome outcome = {0};
    msb_sandbox *sandbox = NULL;

    SET_ARRAY(options, env, env);
    SET_ARRAY(options, labels, labels);
    options.workdir = "/home";
    options.user = "app";
    options.hostname = "guest";
    options.shell = "/bin/ash";
    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    CHECK_OK(msb_sandbox_wait_ready(sandbox, -1, &err));
    SET_ARRAY(exec, env, own);
    finish(start(sandbox, &exec, NULL), &outcome);
    CHECK_TEXT(outcome.out.data, "sandbox command /home 1000 guest /bin/ash\n");
    forget(&outcome);
    exec.user = "root";
    exec.cwd = "/tmp";
    finish(start(sandbox, &exec, NULL), &outcome);
    CHECK_TEXT(outcome.out.data, "sandbox command /tmp 0 guest /bin/ash\n");
    forget(&outcome);
    sandbox_end(sandbox, "defaults");
}

TEST(test_a9_limits_hold)
{
    msb_rlimit limits[] = {{7, 0, 77, 78}, {4, 0, 0, UINT64_MAX}};
    msb_exec_options options = script("ulimit -Sn; ulimit -Hn; ulimit -Hc; ulimit -Sc");
    struct outcome outcome;

    limits[1].hard = 0;
    SET_ARRAY(options, rlimits, limits);
    outcome = run_command(&options);
    CHECK_TEXT(outcome.out.data, "77\n78\n0\n0\n");
    forget(&outcome);
}

TEST(test_a10_input_is_dev_null_by_default)
{
    const char *args[] = {"/proc/self/fd/0"};
    msb_exec_options options = command("readlink");
    struct outcome outcome;

    SET_ARRAY(options, args, args);
    outcome = run_command(&options);
    CHECK_TEXT(outcome.out.data, "/dev/null\n");
    forget(&outcome);
    options = command("cat");
    outcome = run_command(&options);
    CHECK_INT(outcome.exit.code, 0);
    CHECK_INT(outcome.out.len, 0);
    forget(&outcome);
}

TEST(test_a12_hundred_commands_leak_nothing)
{
    pid_t agent = agent_of(shared());
    int ours, theirs;
    long threads;

    sh("true");
    ours = open_descriptors(0);
    theirs = agent ? open_descriptors(agent) : 0;
    threads = status_kib(0, "Threads:");
    for (int i = 0; i < 100; i++)
        sh("echo x");
    /* Threads that are ending may take a moment. */
    for (int i = 0; i < 200 && (open_descriptors(0) > ours || status_kib(0, "Threads:") > threads ||
                                (agent && open_descriptors(agent) > theirs)); i++)
        sleep_ms(10);
    CHECK_SAY(open_descriptors(0) <= ours, "%d, not %d", open_descriptors(0), ours);
    CHECK_SAY(status_kib(0, "Threads:") <= threads, "%ld, not %ld", status_kib(0, "Threads:"),
              threads);
    if (agent)
        CHECK_SAY(open_descriptors(agent) <= theirs, "%d, not %d", open_descriptors(agent), theirs);
    CHECK_TEXT(sh("grep -c 'State:.Z' /proc/[0-9]*/status | grep -v ':0$' | wc -l"), "0\n");
}

TEST(test_b3_exit_reports_resource_usage)
{
    msb_exec_options options = script("i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; sleep 0.1");
    struct outcome outcome = run_command(&options);

    CHECK_SAY(outcome.exit.user_ns > 1000000, "%" PRIu64, outcome.exit.user_ns);
    CHECK_SAY(outcome.exit.wall_ns > 100000000, "%" PRIu64, outcome.exit.wall_ns);
    CHECK_SAY(outcome.exit.max_rss > 100000, "%" PRIu64, outcome.exit.max_rss);
    CHECK(outcome.exit.wall_ns < UINT64_C(60000000000));
    forget(&outcome);
}

TEST(test_b8_terminal_has_the_requested_size)
{
    msb_exec_options options = script("stty size; echo err >&2; tty >/dev/null && echo $TERM | wc -l");
    struct outcome outcome;

    options.flags |= MSB_EXEC_TTY;
    options.rows = 33;
    options.cols = 117;
    outcome = run_command(&options);
    CHECK_TEXT(outcome.out.data, "33 117\r\nerr\r\n1\r\n");
    CHECK_INT(outcome.err.len, 0);
    forget(&outcome);
    options.rows = options.cols = 0;
    outcome = run_command(&options);
    CHECK_SAY(strncmp(outcome.out.data, "24 80\r\n", 7) == 0, "%s", outcome.out.data);
    forget(&outcome);
}

TEST(test_d3_timeout_kills_all_processes_and_is_reported)
{
    msb_exec_options options =
        script("echo before; setsid sleep 600 & echo $! >/tmp/d3; sleep 600");
    struct outcome outcome;
    int64_t begin = now_ms();

    options.timeout_ns = 300 * 1000000;
    outcome = run_command(&options);
    CHECK_INT(outcome.ending, MSB_EVENT_EXITED);
    CHECK_INT(outcome.exit.flags, MSB_EXIT_TIMED_OUT);
    CHECK_INT(outcome.exit.code, -1);
    CHECK_INT(outcome.exit.signal, SIGKILL);
    CHECK_TEXT(outcome.out.data, "before\n");
    CHECK_SAY(now_ms() - begin >= 300, "%" PRId64, now_ms() - begin);
    if (harness_scale() == 1)
        CHECK_SAY(now_ms() - begin < 2000, "%" PRId64, now_ms() - begin);
    forget(&outcome);
    wait_until("! kill -0 $(cat /tmp/d3) 2>/dev/null || grep -q ') Z ' /proc/$(cat /tmp/d3)/stat");
}
