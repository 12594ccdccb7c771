/* testee.c - executes the requests of the conformance judge with the C library alone, and
 * reports the results.
 *
 * The protocol is in conformance/README.md. Its lines contain no escapes and no spaces, so a field
 * is found by searching its name. Every request runs in a thread of its own.
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

struct bytes {
    const void *data;
    size_t len;
};

struct request {
    long long id;
    char *line;
    struct bytes *parts; /* each followed by a NUL */
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

static void *must(void *allocated)
{
    if (!allocated)
        abort();
    return allocated;
}

/* Returns the value of a field, NULL if the line has none. */
static const char *field(const struct request *request, const char *name)
{
    char key[32];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *found = strstr(request->line, key);
    return found ? found + strlen(key) : NULL;
}

static bool word(const struct request *request, const char *name, const char *wanted)
{
    const char *value = field(request, name);
    size_t len = strlen(wanted);
    return value && value[0] == '"' && !strncmp(value + 1, wanted, len) && value[1 + len] == '"';
}

static long long number(const struct request *request, const char *name, long long without)
{
    const char *value = field(request, name);
    return value ? atoll(value) : without;
}

/* Returns all numbers of a list, however deep, also quoted ones; skips words. The caller frees it.
 * */
static long long *numbers(const struct request *request, const char *name, size_t *count)
{
    const char *value = field(request, name);
    long long *list = must(malloc((value ? strlen(value) : 1) * sizeof *list));
    int depth = 0;
    *count = 0;
    while (value && (*value == '[' || depth > 0)) {
        char *end;
        if (*value == '-' || (*value >= '0' && *value <= '9'))
            list[(*count)++] = (long long)strtoull(value, &end, 10), value = end;
        else
            depth += (*value == '[') - (*value == ']'), value++;
    }
    return list;
}

/* Returns the bytes of a part; NULL if the line has none. */
static const struct bytes *part(const struct request *request, const char *name)
{
    return field(request, name) ? &request->parts[number(request, name, 0)] : NULL;
}

static const char *text(const struct request *request, const char *name)
{
    const struct bytes *bytes = part(request, name);
    return bytes ? bytes->data : NULL;
}

/* Writes one reply, uninterrupted. */
__attribute__((format(printf, 4, 5))) static void
reply(const struct request *request, const struct bytes *parts, size_t count, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    pthread_mutex_lock(&output_lock);
    printf("{\"id\":%lld,", request->id);
    vprintf(format, arguments);
    fputs(",\"parts\":[", stdout);
    for (size_t at = 0; at < count; at++)
        printf("%s%zu", at ? "," : "", parts[at].len);
    fputs("]}\n", stdout);
    for (size_t at = 0; at < count; at++)
        if (parts[at].len) /* an empty part may be NULL */
            fwrite(parts[at].data, 1, parts[at].len, stdout);
    fflush(stdout);
    pthread_mutex_unlock(&output_lock);
    va_end(arguments);
}

static const char *kind_of(msb_status status)
{
    static const struct {
        msb_status status;
        const char *kind;
    } kinds[] = {
        {MSB_E_INVALID, "invalid_argument"}, {MSB_E_PIPE, "broken_pipe"},
        {MSB_E_CLOSED, "closed"},            {MSB_E_HANDLE, "closed"}, /* no longer valid */
        {MSB_E_NO_PROCESS, "no_such_process"}, {MSB_E_NO_SESSION, "no_such_session"},
        {MSB_E_NOT_A_TERMINAL, "not_a_terminal"},
    };
    for (size_t at = 0; at < sizeof kinds / sizeof *kinds; at++)
        if (kinds[at].status == status)
            return kinds[at].kind;
    return msb_status_name(status);
}

static void refuse(const struct request *request, const char *kind, const char *message)
{
    struct bytes bytes = {message, strlen(message)};
    reply(request, &bytes, 1, "\"done\":{\"error\":{\"kind\":\"%s\",\"message\":0}}", kind);
}

/* Ends a request whose only result is whether it failed. */
static void done(const struct request *request, msb_status status, const msb_error *error)
{
    if (status < 0)
        refuse(request, kind_of(status), error->message);
    else
        reply(request, NULL, 0, "\"done\":\"ok\"");
}

static struct entry *add(const struct request *request)
{
    struct entry *entry = must(calloc(1, sizeof *entry));
    entry->id = request->id;
    return entry;
}

static void publish(struct entry *entry)
{
    pthread_mutex_lock(&entries_lock);
    entry->next = entries;
    entries = entry;
    pthread_mutex_unlock(&entries_lock);
}

/* Entries exist until they are forgotten, after all other requests on them. */
static struct entry *find(const struct request *request, const char *what, bool remove)
{
    long long id = number(request, what, 0);
    pthread_mutex_lock(&entries_lock);
    struct entry **place = &entries;
    while (*place && (*place)->id != id)
        place = &(*place)->next;
    struct entry *entry = *place;
    if (entry && remove)
        *place = entry->next;
    pthread_mutex_unlock(&entries_lock);
    return entry;
}

/* Returns an array of texts, for variables `NAME=value`. */
static char **texts(const struct request *request, const char *name, size_t *count)
{
    size_t each = strcmp(name, "env") ? 1 : 2;
    long long *list = numbers(request, name, count);
    *count /= each;
    char **array = must(calloc(*count + 1, sizeof *array));
    for (size_t at = 0; at < *count; at++) {
        const struct bytes *first = &request->parts[list[each * at]];
        const struct bytes *last = &request->parts[list[each * at + each - 1]];
        array[at] = must(malloc(first->len + last->len + 2));
        sprintf(array[at], each == 2 ? "%s=%s" : "%s", (const char *)first->data,
                (const char *)last->data);
    }
    free(list);
    return array;
}

static void free_texts(char **array)
{
    for (char **each = array; each && *each; each++)
        free(*each);
    free(array);
}

static void create(const struct request *request)
{
    msb_error error = MSB_ERROR_INIT;
    msb_sandbox_options options = MSB_SANDBOX_OPTIONS_INIT;
    struct entry *entry = add(request);
    options.name = text(request, "name");
    options.image = text(request, "image");
    options.workdir = text(request, "workdir");
    options.shell = text(request, "shell");
    options.user = text(request, "user");
    char **env = texts(request, "env", &options.env_len);
    options.env = (const char *const *)env;
    entry->name = must(strdup(options.name));
    msb_status status = msb_sandbox_create(&options, &entry->sandbox, &error);
    if (status >= 0)
        status = msb_sandbox_wait_ready(entry->sandbox, -1, &error);
    free_texts(env);
    publish(entry);
    done(request, status, &error);
}

static void remove_sandbox(const struct request *request)
{
    msb_error error = MSB_ERROR_INIT;
    struct entry *entry = find(request, "sandbox", true);
    msb_status status = msb_sandbox_stop(entry->sandbox, 0, &error);
    if (status >= 0)
        status = msb_handle_close(entry->sandbox);
    if (status >= 0)
        status = msb_sandbox_remove(entry->name, 0, &error);
    free(entry->name);
    free(entry);
    done(request, status, &error);
}

/* Replies how a command ended; with `output`, also what was collected. */
static void ending(const struct request *request, uint32_t kind, const msb_exec_exit *exit,
                   const msb_exec_failure *failure, struct bytes lost, const msb_output *output)
{
    if (kind == MSB_EVENT_FAILED) {
        struct bytes parts[] = {{failure->message, strlen(failure->message)},
                                {failure->path, strlen(failure->path)}};
        reply(request, parts, 2,
              "\"done\":{\"failed\":{\"kind\":\"%s\",\"stage\":\"%s\",\"errno\":%d,"
              "\"errno_name\":\"%s\",\"message\":0,\"path\":1}}",
              failure->kind_name, failure->stage, failure->os_error, failure->os_error_name);
        return;
    }
    if (kind != MSB_EVENT_EXITED) {
        reply(request, &lost, 1, "\"done\":{\"error\":{\"kind\":\"stream_lost\",\"message\":0}}");
        return;
    }
    char more[256] = "";
    struct bytes parts[2] = {{"", 0}, {"", 0}};
    if (output) {
        parts[0] = (struct bytes){output->stdout_data, output->stdout_len};
        parts[1] = (struct bytes){output->stderr_data, output->stderr_len};
        snprintf(more, sizeof more,
                 ",\"output\":{\"stdout\":0,\"stderr\":1,\"stdout_total\":%" PRIu64
                 ",\"stderr_total\":%" PRIu64 ",\"truncated\":%s,\"writer_left\":%s}",
                 output->stdout_total, output->stderr_total,
                 output->flags & MSB_OUTPUT_TRUNCATED ? "true" : "false",
                 output->flags & MSB_EVENT_WRITER_LEFT ? "true" : "false");
    }
    reply(request, parts, output ? 2 : 0,
          "\"done\":{\"exited\":{\"code\":%d,\"signal\":%d,\"core\":%s,\"timed_out\":%s,"
          "\"cpu_us\":%" PRIu64 ",\"wall_us\":%" PRIu64 ",\"max_rss\":%" PRIu64 "%s}}",
          exit->code, exit->signal, exit->flags & MSB_EXIT_CORE_DUMPED ? "true" : "false",
          exit->flags & MSB_EXIT_TIMED_OUT ? "true" : "false",
          (exit->user_ns + exit->system_ns) / 1000, exit->wall_ns / 1000, exit->max_rss, more);
}

static void collect(const struct request *request, msb_exec *exec)
{
    msb_error error = MSB_ERROR_INIT;
    msb_output output = MSB_OUTPUT_INIT;
    msb_status status = msb_exec_collect(exec, -1, &output, &error);
    struct bytes lost = {output.lost, output.lost_len};
    if (status < 0)
        done(request, status, &error);
    else
        ending(request, output.kind, output.exit, output.failure, lost, &output);
    msb_output_release(&output);
}

static void wait_for(const struct request *request, msb_exec *exec)
{
    msb_error error = MSB_ERROR_INIT;
    msb_event event = MSB_EVENT_INIT;
    msb_status status = msb_exec_wait(exec, -1, &event, &error);
    struct bytes lost = {event.data, event.len};
    if (status < 0)
        done(request, status, &error);
    else
        ending(request, event.kind, event.exit, event.failure, lost, NULL);
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
        reply(request, NULL, 0, "\"done\":{\"started\":{\"session\":\"%s\"}}", session);
}

/* Returns why C cannot express what a command needs, or NULL: a NUL ends a text, `=` a variable's
 * name, and zero is the default. */
static const char *cannot(const struct request *request)
{
    static const char *const fields[] = {"cmd", "script", "cwd", "args", "env"};
    static const char *const options[] = {"timeout_ms", "max_output", "rows", "cols"};
    const char *why = NULL;
    for (size_t at = 0; at < sizeof fields / sizeof *fields; at++) {
        size_t count;
        long long *list = numbers(request, fields[at], &count);
        if (at < 3 && field(request, fields[at]))
            list[count++] = number(request, fields[at], 0);
        for (size_t k = 0; k < count; k++) {
            const struct bytes *bytes = &request->parts[list[k]];
            if (memchr(bytes->data, 0, bytes->len))
                why = "nul";
            else if (at == 4 && k % 2 == 0 && memchr(bytes->data, '=', bytes->len))
                why = "equals";
        }
        free(list);
    }
    for (size_t at = 0; at < sizeof options / sizeof *options; at++)
        if (number(request, options[at], 1) == 0)
            why = "zero";
    return why;
}

/* Runs or starts a command. */
static void command(const struct request *request)
{
    msb_error error = MSB_ERROR_INIT;
    msb_exec_options options = MSB_EXEC_OPTIONS_INIT;
    const struct bytes *stdin_bytes = part(request, "stdin");
    bool script = field(request, "script");
    const char *why = cannot(request);
    if (why) {
        reply(request, NULL, 0, "\"done\":{\"cannot\":\"%s\"}", why);
        return;
    }
    options.flags = (script ? MSB_EXEC_SHELL : 0) | (field(request, "tty") ? MSB_EXEC_TTY : 0) |
                    (field(request, "wait_for_eof") ? MSB_EXEC_WAIT_FOR_EOF : 0);
    options.cmd = text(request, script ? "script" : "cmd");
    options.cwd = text(request, "cwd");
    options.user = text(request, "user");
    options.stdin_data = stdin_bytes ? stdin_bytes->data : NULL;
    options.stdin_len = stdin_bytes ? stdin_bytes->len : 0;
    options.timeout_ns = (uint64_t)number(request, "timeout_ms", 0) * 1000000;
    /* Zero would be the default; a nanosecond is equivalent to none. */
    options.drain_ns = (uint64_t)number(request, "drain_ms", 0) * 1000000;
    if (field(request, "drain_ms") && !options.drain_ns)
        options.drain_ns = 1;
    options.max_output = (uint64_t)number(request, "max_output", 0);
    options.rows = (uint16_t)number(request, "rows", 0);
    options.cols = (uint16_t)number(request, "cols", 0);
    size_t count;
    long long *list = numbers(request, "rlimits", &count);
    options.rlimits_len = count / 3;
    msb_rlimit *rlimits = must(calloc(options.rlimits_len + 1, sizeof *rlimits));
    for (size_t at = 0; at < options.rlimits_len; at++) {
        rlimits[at].resource = (uint32_t)list[3 * at];
        rlimits[at].soft = (uint64_t)list[3 * at + 1]; /* -1 is UINT64_MAX */
        rlimits[at].hard = (uint64_t)list[3 * at + 2];
    }
    options.rlimits = rlimits;
    char **args = texts(request, "args", &options.args_len);
    char **env = texts(request, "env", &options.env_len);
    options.args = (const char *const *)args;
    options.env = (const char *const *)env;
    struct entry *entry = add(request), *sandbox = find(request, "sandbox", false);
    msb_sink **sink = field(request, "stdin_pipe") ? &entry->sink : NULL;
    msb_status status = msb_exec_stream(sandbox->sandbox, &options, &entry->exec, sink, &error);
    if (status >= 0 && word(request, "do", "start")) {
        started(request, entry);
    } else {
        if (status < 0)
            done(request, status, &error);
        else
            collect(request, entry->exec);
        msb_handle_close(entry->exec);
        free(entry);
    }
    free_texts(env);
    free_texts(args);
    free(rlimits);
    free(list);
}

/* Copies the session's id, 32 digits, from the line. */
static void session_of(const struct request *request, char *session)
{
    snprintf(session, MSB_SESSION_ID_LEN, "%s", field(request, "session") + 1);
}

static void reattach(const struct request *request)
{
    msb_error error = MSB_ERROR_INIT;
    char session[MSB_SESSION_ID_LEN];
    struct entry *entry = add(request), *sandbox = find(request, "sandbox", false);
    session_of(request, session);
    msb_status status = msb_exec_reattach(sandbox->sandbox, session, MSB_FROM_NOW, &entry->exec,
                                          NULL, &error);
    if (status >= 0) {
        started(request, entry);
        return;
    }
    free(entry);
    done(request, status, &error);
}

static void listed(const struct request *request)
{
    msb_error error = MSB_ERROR_INIT;
    msb_exec_entries list = MSB_EXEC_ENTRIES_INIT;
    char session[MSB_SESSION_ID_LEN];
    const char *state = "unknown";
    session_of(request, session);
    msb_status status = msb_exec_list(find(request, "sandbox", false)->sandbox, &list, &error);
    for (size_t at = 0; status >= 0 && at < list.len; at++)
        if (!strcmp(list.entries[at]->id, session))
            state = list.entries[at]->exit ? "ended" : "running";
    if (status < 0)
        done(request, status, &error);
    else
        reply(request, NULL, 0, "\"done\":{\"state\":\"%s\"}", state);
    msb_exec_entries_release(&list);
}

/* Reports an event, releases it, and returns the name of its kind. */
static const char *report(const struct request *request, msb_event *event)
{
    static const char *const kinds[] = {"end",         "started", "stdout", "stderr",
                                        "stdin_error", "exited",  "failed", "lost"};
    struct bytes data = {event->data, event->len};
    const char *kind = kinds[event->kind];
    if (event->kind == MSB_EVENT_STDOUT || event->kind == MSB_EVENT_STDERR)
        reply(request, &data, 1, "\"event\":\"%s\",\"data\":0", kind);
    else
        reply(request, NULL, 0, "\"event\":\"%s\"", kind);
    msb_event_release(event);
    return kind;
}

static void receive(const struct request *request, msb_exec *exec)
{
    msb_error error = MSB_ERROR_INIT;
    /* Receives every event: as many at once as are available. */
    bool all = word(request, "until", "end"), one = word(request, "until", "any"), over = false;
    msb_status status = MSB_OK;
    while (!over && status >= 0) {
        msb_event events[BATCH];
        size_t len = 1;
        for (size_t at = 0; at < BATCH; at++)
            events[at] = (msb_event)MSB_EVENT_INIT;
        status = all ? msb_exec_recv_many(exec, -1, events, BATCH, &len, &error)
                     : msb_exec_recv(exec, -1, events, &error);
        over = one || status == MSB_EOF;
        if (status == MSB_EOF)
            len = 1; /* an event of kind 0 */
        for (size_t at = 0; status >= 0 && at < len; at++)
            over |= word(request, "until", report(request, &events[at]));
    }
    done(request, status, &error);
}

static void give_up(const struct request *request, msb_exec *exec)
{
    msb_error error = MSB_ERROR_INIT;
    msb_status status = MSB_OK;
    bool ended = false;
    for (long long left = number(request, "times", 0); left > 0 && status >= 0; left--) {
        msb_event event = MSB_EVENT_INIT;
        msb_output output = MSB_OUTPUT_INIT;
        if (word(request, "on", "collect"))
            status = msb_exec_collect(exec, 0, &output, &error);
        else if (word(request, "on", "wait"))
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
        reply(request, NULL, 0, "\"done\":{\"ended\":%s}", ended ? "true" : "false");
}

static void write_all(const struct request *request, msb_sink *sink)
{
    msb_error error = MSB_ERROR_INIT;
    struct bytes rest = *part(request, "data");
    size_t written = 0;
    msb_status status;
    do {
        status = msb_sink_write(sink, rest.data, rest.len, -1, &written, &error);
        rest = (struct bytes){(const char *)rest.data + written, rest.len - written};
    } while (status >= 0 && rest.len);
    done(request, status, &error);
}

static void on_exec(const struct request *request)
{
    msb_error error = MSB_ERROR_INIT;
    struct entry *entry = find(request, "exec", word(request, "do", "forget"));
    if (!entry) {
        refuse(request, "testee", "no such exec");
    } else if (word(request, "do", "recv")) {
        receive(request, entry->exec);
    } else if (word(request, "do", "wait")) {
        wait_for(request, entry->exec);
    } else if (word(request, "do", "collect")) {
        collect(request, entry->exec);
    } else if (word(request, "do", "give_up")) {
        give_up(request, entry->exec);
    } else if (word(request, "do", "take_stdin")) {
        bool there = entry->sink && !entry->taken;
        entry->taken = true;
        reply(request, NULL, 0, "\"done\":{\"sink\":%s}", there ? "true" : "false");
    } else if (word(request, "do", "write")) {
        write_all(request, entry->sink);
    } else if (word(request, "do", "close_stdin")) {
        done(request, msb_handle_close(entry->sink), &error);
    } else if (word(request, "do", "close")) {
        done(request, msb_handle_close(entry->exec), &error);
    } else if (word(request, "do", "signal")) {
        int32_t signal = (int32_t)number(request, "signal", 0);
        done(request, msb_exec_signal(entry->exec, signal, MSB_SIGNAL_GROUP, &error), &error);
    } else if (word(request, "do", "kill")) {
        done(request, msb_exec_signal(entry->exec, 9, MSB_SIGNAL_TREE, &error), &error);
    } else if (word(request, "do", "resize")) {
        uint16_t rows = (uint16_t)number(request, "rows", 0);
        uint16_t cols = (uint16_t)number(request, "cols", 0);
        done(request, msb_exec_resize(entry->exec, rows, cols, &error), &error);
    } else if (word(request, "do", "forget")) {
        /* Each may have been closed before. */
        msb_handle_close(entry->exec);
        msb_handle_close(entry->sink);
        free(entry);
        done(request, MSB_OK, &error);
    } else {
        refuse(request, "testee", "no such action");
    }
}

static void *act(void *argument)
{
    struct request *request = argument;
    if (word(request, "do", "hello"))
        reply(request, NULL, 0, "\"done\":{\"hello\":{\"bare\":true}}");
    else if (word(request, "do", "create"))
        create(request);
    else if (word(request, "do", "remove"))
        remove_sandbox(request);
    else if (word(request, "do", "run") || word(request, "do", "start"))
        command(request);
    else if (word(request, "do", "reattach"))
        reattach(request);
    else if (word(request, "do", "listed"))
        listed(request);
    else
        on_exec(request);
    size_t count;
    free(numbers(request, "parts", &count));
    while (count--)
        free((void *)request->parts[count].data);
    free(request->parts);
    free(request->line);
    free(request);
    return NULL;
}

/* Reads one request; NULL at the end. */
static struct request *next(void)
{
    struct request *request = must(calloc(1, sizeof *request));
    size_t room = 0, count;
    if (getline(&request->line, &room, stdin) <= 0) {
        free(request->line);
        free(request);
        return NULL;
    }
    request->id = number(request, "id", 0);
    long long *lengths = numbers(request, "parts", &count);
    request->parts = must(calloc(count + 1, sizeof *request->parts));
    for (size_t at = 0; at < count; at++) {
        char *data = must(malloc((size_t)lengths[at] + 1));
        request->parts[at] = (struct bytes){data, fread(data, 1, (size_t)lengths[at], stdin)};
        data[request->parts[at].len] = 0;
    }
    free(lengths);
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
