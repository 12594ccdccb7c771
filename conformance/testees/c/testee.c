/* testee.c - executes the requests of the conformance judge with the C library alone, and reports
 * the results. The protocol is in conformance/README.md. Every request runs in a thread of its own.
 * Lists and entries live as long as the program.
 */
#include <microsandbox.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 64

/* A field of a message, followed by a NUL. */
struct field {
    char *text;
    size_t len;
};

/* An id, an action, and then names and values. */
struct request {
    struct field *fields;
    size_t count;
};

/* A sandbox or an exec, by the id of the request that created it. */
struct entry {
    struct entry *next;
    long long id;
    msb_sandbox *sandbox;
    char *name; /* of the sandbox */
    msb_exec *exec;
    msb_sink *sink;
    bool taken; /* the sink */
};

static struct entry *entries;
static pthread_mutex_t entries_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t output_lock = PTHREAD_MUTEX_INITIALIZER;

static void *allocate(size_t count, size_t size)
{
    void *allocated = calloc(count + 1, size);
    if (!allocated)
        abort();
    return allocated;
}

/* Returns all values of a name, after which NULL follows. */
static const char **all(const struct request *request, const char *name, size_t *count)
{
    const char **values = allocate(request->count, sizeof *values);
    *count = 0;
    for (size_t at = 2; at + 1 < request->count; at += 2)
        if (!strcmp(request->fields[at].text, name))
            values[(*count)++] = request->fields[at + 1].text;
    return values;
}

/* Returns a value, NULL if there is none. */
static const char *text(const struct request *request, const char *name)
{
    for (size_t at = 2; at + 1 < request->count; at += 2)
        if (!strcmp(request->fields[at].text, name))
            return request->fields[at + 1].text;
    return NULL;
}

static long long number(const struct request *request, const char *name)
{
    const char *value = text(request, name);
    return value ? atoll(value) : 0;
}

static bool is(const struct request *request, const char *name, const char *wanted)
{
    const char *value = text(request, name);
    return value && !strcmp(value, wanted);
}

/* Returns variables `NAME=value`. */
static const char **variables(const struct request *request, size_t *count)
{
    const char **env = all(request, "env", count);
    *count /= 2;
    for (size_t at = 0; at < *count; at++) {
        char *variable = allocate(strlen(env[2 * at]) + strlen(env[2 * at + 1]) + 1, 1);
        sprintf(variable, "%s=%s", env[2 * at], env[2 * at + 1]);
        env[at] = variable;
    }
    return env;
}

/* Writes one reply, uninterrupted: a word, and values of these types: d a number, b a truth, s a
 * text, m memory and its length. */
static void reply(const struct request *request, const char *word, const char *types, ...)
{
    struct field fields[24] = {request->fields[0], {(char *)(size_t)word, strlen(word)}};
    char numbers[24][24];
    size_t count = 2;
    va_list values;
    va_start(values, types);
    for (; *types; types++, count++) {
        struct field *field = &fields[count];
        field->text = numbers[count];
        if (*types == 'd')
            snprintf(numbers[count], sizeof *numbers, "%" PRId64, va_arg(values, int64_t));
        else if (*types == 'b')
            strcpy(numbers[count], va_arg(values, int) ? "true" : "false");
        else
            field->text = va_arg(values, char *);
        field->len = *types == 'm' ? va_arg(values, size_t) : strlen(field->text);
    }
    va_end(values);
    pthread_mutex_lock(&output_lock);
    for (size_t at = 0; at < count; at++)
        printf("%zu%c", fields[at].len, at + 1 < count ? ' ' : '\n');
    for (size_t at = 0; at < count; at++)
        if (fields[at].len) /* an empty one may be NULL */
            fwrite(fields[at].text, 1, fields[at].len, stdout);
    fflush(stdout);
    pthread_mutex_unlock(&output_lock);
}

/* Ends a request whose only result is whether it failed. */
static void done(const struct request *request, msb_status status, const msb_error *error)
{
    if (status < 0)
        reply(request, "error", "ss", msb_status_name(status), error->message);
    else
        reply(request, "ok", "");
}

static struct entry *new_entry(const struct request *request)
{
    struct entry *entry = allocate(1, sizeof *entry);
    entry->id = atoll(request->fields[0].text);
    return entry;
}

static void publish(struct entry *entry)
{
    pthread_mutex_lock(&entries_lock);
    entry->next = entries;
    entries = entry;
    pthread_mutex_unlock(&entries_lock);
}

static struct entry *find(const struct request *request, const char *what)
{
    long long id = number(request, what);
    pthread_mutex_lock(&entries_lock);
    struct entry *entry = entries;
    while (entry && entry->id != id)
        entry = entry->next;
    pthread_mutex_unlock(&entries_lock);
    return entry;
}

static void create(const struct request *request)
{
    msb_error error = MSB_ERROR_INIT;
    msb_sandbox_options options = MSB_SANDBOX_OPTIONS_INIT;
    struct entry *entry = new_entry(request);
    options.name = entry->name = strdup(text(request, "name"));
    options.image = text(request, "image");
    options.workdir = text(request, "workdir");
    options.shell = text(request, "shell");
    options.user = text(request, "user");
    options.env = variables(request, &options.env_len);
    msb_status status = msb_sandbox_create(&options, &entry->sandbox, &error);
    if (status >= 0)
        status = msb_sandbox_wait_ready(entry->sandbox, -1, &error);
    publish(entry);
    done(request, status, &error);
}

static void remove_sandbox(const struct request *request, struct entry *entry)
{
    msb_error error = MSB_ERROR_INIT;
    msb_status status = msb_sandbox_stop(entry->sandbox, 0, &error);
    if (status >= 0)
        status = msb_handle_close(entry->sandbox);
    if (status >= 0)
        status = msb_sandbox_remove(entry->name, 0, &error);
    done(request, status, &error);
}

/* Replies how a command ended; with `output`, also what was collected. */
static void ending(const struct request *request, uint32_t kind, const msb_exec_exit *exit,
                   const msb_exec_failure *failure, struct field lost, const msb_output *output)
{
    static const msb_output none = MSB_OUTPUT_INIT;
    if (kind == MSB_EVENT_FAILED) {
        reply(request, "failed", "ssdsss", failure->kind_name, failure->stage,
              (int64_t)failure->os_error, failure->os_error_name, failure->message, failure->path);
        return;
    }
    if (kind != MSB_EVENT_EXITED) {
        reply(request, "error", "sm", "stream_lost", lost.text, lost.len);
        return;
    }
    const msb_output *it = output ? output : &none;
    reply(request, output ? "collected" : "exited", output ? "ddbbsdddbmmddbb" : "ddbbsddd",
          (int64_t)exit->code, (int64_t)exit->signal, exit->flags & MSB_EXIT_CORE_DUMPED,
          exit->flags & MSB_EXIT_TIMED_OUT, "", (int64_t)(exit->user_ns + exit->system_ns) / 1000,
          (int64_t)exit->wall_ns / 1000, (int64_t)exit->max_rss, false, it->stdout_data,
          it->stdout_len, it->stderr_data, it->stderr_len, (int64_t)it->stdout_total,
          (int64_t)it->stderr_total, it->flags & MSB_OUTPUT_TRUNCATED,
          it->flags & MSB_EVENT_WRITER_LEFT);
}

static void collect(const struct request *request, msb_exec *exec)
{
    msb_error error = MSB_ERROR_INIT;
    msb_output output = MSB_OUTPUT_INIT;
    msb_status status = msb_exec_collect(exec, -1, &output, &error);
    if (status < 0)
        done(request, status, &error);
    else
        ending(request, output.kind, output.exit, output.failure,
               (struct field){(char *)(size_t)output.lost, output.lost_len}, &output);
    msb_output_release(&output);
}

static void wait_for(const struct request *request, msb_exec *exec)
{
    msb_error error = MSB_ERROR_INIT;
    msb_event event = MSB_EVENT_INIT;
    msb_status status = msb_exec_wait(exec, -1, &event, &error);
    if (status < 0)
        done(request, status, &error);
    else
        ending(request, event.kind, event.exit, event.failure,
               (struct field){(char *)(size_t)event.data, event.len}, NULL);
    msb_event_release(&event);
}

/* Keeps an exec that was started, and replies with its session. */
static void started(const struct request *request, struct entry *entry)
{
    msb_error error = MSB_ERROR_INIT;
    char session[MSB_SESSION_ID_LEN];
    msb_status status = msb_exec_id(entry->exec, session, &error);
    publish(entry);
    if (status < 0)
        done(request, status, &error);
    else
        reply(request, "started", "s", session);
}

/* Runs or starts a command. */
static void command(const struct request *request, msb_sandbox *sandbox, bool starts)
{
    msb_error error = MSB_ERROR_INIT;
    msb_exec_options options = MSB_EXEC_OPTIONS_INIT;
    const char *script = text(request, "script");
    options.flags = (script ? MSB_EXEC_SHELL : 0) | (text(request, "tty") ? MSB_EXEC_TTY : 0) |
                    (text(request, "wait_for_eof") ? MSB_EXEC_WAIT_FOR_EOF : 0);
    options.cmd = script ? script : text(request, "cmd");
    options.args = all(request, "arg", &options.args_len);
    options.env = variables(request, &options.env_len);
    options.cwd = text(request, "cwd");
    options.user = text(request, "user");
    for (size_t at = 2; at < request->count; at += 2)
        if (!strcmp(request->fields[at].text, "stdin")) {
            options.stdin_data = (const uint8_t *)request->fields[at + 1].text;
            options.stdin_len = request->fields[at + 1].len;
        }
    options.timeout_ns = (uint64_t)number(request, "timeout_ms") * 1000000;
    options.drain_ns = (uint64_t)number(request, "drain_ms") * 1000000;
    if (is(request, "drain_ms", "0")) /* which is the default; a nanosecond is equivalent */
        options.drain_ns = 1;
    options.max_output = (uint64_t)number(request, "max_output");
    options.rows = (uint16_t)number(request, "rows");
    options.cols = (uint16_t)number(request, "cols");
    const char **limits = all(request, "rlimit", &options.rlimits_len);
    msb_rlimit *rlimits = allocate(options.rlimits_len /= 4, sizeof *rlimits);
    for (size_t at = 0; at < options.rlimits_len; at++, limits += 4)
        rlimits[at] = (msb_rlimit){.resource = (uint32_t)atoi(limits[1]),
                                   .soft = strtoull(limits[2], NULL, 10), /* -1 is infinity */
                                   .hard = strtoull(limits[3], NULL, 10)};
    options.rlimits = rlimits;
    struct entry *entry = new_entry(request);
    msb_sink **sink = text(request, "stdin_pipe") ? &entry->sink : NULL;
    msb_status status = msb_exec_stream(sandbox, &options, &entry->exec, sink, &error);
    if (status < 0) {
        done(request, status, &error);
    } else if (starts) {
        started(request, entry);
    } else {
        collect(request, entry->exec);
        msb_handle_close(entry->exec);
    }
}

static void reattach(const struct request *request, msb_sandbox *sandbox)
{
    msb_error error = MSB_ERROR_INIT;
    struct entry *entry = new_entry(request);
    msb_status status = msb_exec_reattach(sandbox, text(request, "session"), MSB_FROM_NOW,
                                          &entry->exec, NULL, &error);
    if (status < 0)
        done(request, status, &error);
    else
        started(request, entry);
}

static void listed(const struct request *request, msb_sandbox *sandbox)
{
    msb_error error = MSB_ERROR_INIT;
    msb_exec_entries list = MSB_EXEC_ENTRIES_INIT;
    const char *state = "unknown";
    msb_status status = msb_exec_list(sandbox, &list, &error);
    for (size_t at = 0; status >= 0 && at < list.len; at++)
        if (is(request, "session", list.entries[at]->id))
            state = list.entries[at]->exit ? "ended" : "running";
    if (status < 0)
        done(request, status, &error);
    else
        reply(request, "state", "s", state);
    msb_exec_entries_release(&list);
}

/* Reports an event, releases it, and returns whether the judge waits for its kind. */
static bool report(const struct request *request, msb_event *event)
{
    static const char *const kinds[] = {"end",         "started", "stdout", "stderr",
                                        "stdin_error", "exited",  "failed", "lost"};
    const char *kind = kinds[event->kind];
    bool data = event->kind == MSB_EVENT_STDOUT || event->kind == MSB_EVENT_STDERR;
    reply(request, "event", data ? "sm" : "s", kind, event->data, event->len);
    msb_event_release(event);
    return event->kind == 0 || is(request, "until", "any") || is(request, "until", kind);
}

static void receive(const struct request *request, msb_exec *exec)
{
    msb_error error = MSB_ERROR_INIT;
    /* As many at once as are available, if every event is waited for. */
    bool all_of_them = is(request, "until", "end"), over = false;
    msb_status status = MSB_OK;
    while (!over && status >= 0) {
        msb_event events[BATCH];
        size_t len = 1;
        for (size_t at = 0; at < BATCH; at++)
            events[at] = (msb_event)MSB_EVENT_INIT;
        status = all_of_them ? msb_exec_recv_many(exec, -1, events, BATCH, &len, &error)
                             : msb_exec_recv(exec, -1, events, &error);
        if (status == MSB_EOF)
            len = 1; /* an event of kind 0 */
        for (size_t at = 0; status >= 0 && at < len; at++)
            over = report(request, &events[at]);
    }
    done(request, status, &error);
}

static void give_up(const struct request *request, msb_exec *exec)
{
    msb_error error = MSB_ERROR_INIT;
    msb_status status = MSB_OK;
    bool ended = false;
    for (long long left = number(request, "times"); left > 0 && status >= 0; left--) {
        msb_event event = MSB_EVENT_INIT;
        msb_output output = MSB_OUTPUT_INIT;
        if (is(request, "on", "collect"))
            status = msb_exec_collect(exec, 0, &output, &error);
        else if (is(request, "on", "wait"))
            status = msb_exec_wait(exec, 0, &event, &error);
        else if ((status = msb_exec_recv(exec, 0, &event, &error)) == MSB_OK || status == MSB_EOF)
            report(request, &event);
        ended |= status != MSB_AGAIN;
        msb_event_release(&event);
        msb_output_release(&output);
    }
    if (status < 0)
        done(request, status, &error);
    else
        reply(request, "yes", "b", ended);
}

static void write_all(const struct request *request, msb_sink *sink)
{
    msb_error error = MSB_ERROR_INIT;
    struct field rest = request->fields[request->count - 1]; /* the data */
    size_t written = 0;
    msb_status status;
    do {
        status = msb_sink_write(sink, (uint8_t *)rest.text, rest.len, -1, &written, &error);
        rest = (struct field){rest.text + written, rest.len - written};
    } while (status >= 0 && rest.len);
    done(request, status, &error);
}

static void take_stdin(const struct request *request, struct entry *entry)
{
    bool there = entry->sink && !entry->taken;
    entry->taken = true;
    reply(request, "yes", "b", there);
}

static void *act(void *argument)
{
    struct request *request = argument;
    msb_error error = MSB_ERROR_INIT;
    const char *action = request->fields[1].text;
    struct entry *sandbox = find(request, "sandbox"), *entry = find(request, "exec");
    uint16_t rows = (uint16_t)number(request, "rows"), cols = (uint16_t)number(request, "cols");
#define IS(name) (!strcmp(action, name))
    if (IS("hello"))
        reply(request, "hello", "ssss", "bare", "nul", "equals", "zero");
    else if (IS("create"))
        create(request);
    else if (IS("remove"))
        remove_sandbox(request, sandbox);
    else if (IS("run") || IS("start"))
        command(request, sandbox->sandbox, IS("start"));
    else if (IS("reattach"))
        reattach(request, sandbox->sandbox);
    else if (IS("listed"))
        listed(request, sandbox->sandbox);
    else if (IS("recv"))
        receive(request, entry->exec);
    else if (IS("wait"))
        wait_for(request, entry->exec);
    else if (IS("collect"))
        collect(request, entry->exec);
    else if (IS("give_up"))
        give_up(request, entry->exec);
    else if (IS("take_stdin"))
        take_stdin(request, entry);
    else if (IS("write"))
        write_all(request, entry->sink);
    else if (IS("close_stdin"))
        done(request, msb_handle_close(entry->sink), &error);
    else if (IS("close"))
        done(request, msb_handle_close(entry->exec), &error);
    else if (IS("signal"))
        done(request, msb_exec_signal(entry->exec, (int32_t)number(request, "signal"),
                                      MSB_SIGNAL_GROUP, &error), &error);
    else if (IS("kill"))
        done(request, msb_exec_signal(entry->exec, 9, MSB_SIGNAL_TREE, &error), &error);
    else if (IS("resize"))
        done(request, msb_exec_resize(entry->exec, rows, cols, &error), &error);
    else if (IS("forget")) /* each may have been closed before */
        msb_handle_close(entry->exec), msb_handle_close(entry->sink), done(request, MSB_OK, &error);
    else
        reply(request, "error", "ss", "testee", "no such action");
    while (request->count)
        free(request->fields[--request->count].text);
    free(request->fields);
    free(request);
    return NULL;
}

/* Reads one request; NULL at the end. */
static struct request *next(void)
{
    static char *line, *rest;
    static size_t room;
    ssize_t len = getline(&line, &room, stdin);
    if (len <= 0)
        return NULL;
    struct request *request = allocate(1, sizeof *request);
    request->fields = allocate((size_t)len, sizeof *request->fields);
    for (rest = line; *rest != '\n' && *rest; rest += *rest == ' ') {
        struct field *field = &request->fields[request->count++];
        field->len = strtoull(rest, &rest, 10);
        field->text = allocate(field->len, 1);
    }
    for (size_t at = 0; at < request->count; at++)
        if (fread(request->fields[at].text, 1, request->fields[at].len, stdin) !=
            request->fields[at].len)
            abort();
    return request;
}

int main(void)
{
    pthread_attr_t detached;
    pthread_t thread;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    for (struct request *request; (request = next());)
        if (pthread_create(&thread, &detached, act, request))
            abort();
    exit(0);
}
