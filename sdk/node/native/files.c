/* files.c - operations on the files of a sandbox. */
#include "addon.h"
#include <stdlib.h>
#include <string.h>

enum { PIECE = 128 << 10 };

static napi_value entry_value(napi_env env, const msb_fs_entry *entry)
{
    napi_value value = object(env);
    const double seconds[] = {(double)entry->accessed_s, (double)entry->modified_s,
                              (double)entry->changed_s, (double)entry->created_s};
    const uint32_t rest[] = {entry->accessed_ns, entry->modified_ns, entry->changed_ns,
                             entry->created_ns};
    static const char *const names[] = {"accessed", "modified", "changed", "created"};

    if (entry->name)
        set(env, value, "name", copied(env, entry->name, strlen(entry->name)));
    set(env, value, "kind", number(env, entry->kind));
    set(env, value, "size", number(env, (double)entry->size));
    set(env, value, "allocated", number(env, (double)entry->allocated));
    set(env, value, "links", number(env, (double)entry->links));
    set(env, value, "mode", number(env, entry->mode));
    set(env, value, "uid", number(env, entry->uid));
    set(env, value, "gid", number(env, entry->gid));
    for (size_t at = 0; at < 4; at++)
        set(env, value, names[at], number(env, seconds[at] * 1e3 + rest[at] / 1e6));
    return value;
}

/* fsStart(sandbox, {op, flags, set, path, to, user, ...}) */
static napi_value fs_start(napi_env env, napi_callback_info info)
{
    msb_fs_request request = MSB_FS_REQUEST_INIT;
    msb_error err = MSB_ERROR_INIT;
    struct lent lent = {NULL};
    napi_value argument[2] = {NULL}, from;
    msb_fs *fs = NULL;
    msb_status status;

    arguments(env, info, 2, argument);
    from = argument[1];
    request.op = (uint32_t)field(env, from, "op");
    request.flags = (uint32_t)field(env, from, "flags");
    request.set = (uint32_t)field(env, from, "set");
    request.path = lend(env, &lent, from, "path", NULL);
    request.to = lend(env, &lent, from, "to", NULL);
    request.user = lend(env, &lent, from, "user", NULL);
    request.offset = field(env, from, "offset");
    request.length = field(env, from, "length");
    request.size = field(env, from, "size");
    request.mode = (uint32_t)field(env, from, "mode");
    request.uid = (uint32_t)field(env, from, "uid");
    request.gid = (uint32_t)field(env, from, "gid");
    request.accessed_s = (int64_t)real(env, from, "accessedS");
    request.modified_s = (int64_t)real(env, from, "modifiedS");
    request.accessed_ns = (uint32_t)field(env, from, "accessedNs");
    request.modified_ns = (uint32_t)field(env, from, "modifiedNs");
    status = msb_fs_start(to_cell(env, argument[0])->handle, &request, &fs, &err);
    lent_release(&lent);
    return failed(env, status, &err) ? NULL : cell_value(env, fs);
}

/* fsWait(fs): the result, undefined while it is pending. */
static napi_value fs_wait(napi_env env, napi_callback_info info)
{
    msb_fs_result result = MSB_FS_RESULT_INIT;
    msb_error err = MSB_ERROR_INIT;
    napi_value fs = NULL, value, entries = NULL;
    msb_status status;

    arguments(env, info, 1, &fs);
    status = msb_fs_wait(to_cell(env, fs)->handle, 0, &result, &err);
    if (failed(env, status, &err))
        return NULL;
    if (status != MSB_OK)
        return undefined(env);
    value = object(env);
    set(env, value, "exists", boolean(env, result.exists));
    if (result.path)
        set(env, value, "path", copied(env, result.path, strlen(result.path)));
    MUST(napi_create_array_with_length(env, result.len, &entries));
    for (size_t at = 0; at < result.len; at++)
        MUST(napi_set_element(env, entries, (uint32_t)at, entry_value(env, result.entries[at])));
    set(env, value, "entries", entries);
    msb_fs_result_release(&result);
    return value;
}

/* fsRecv(fs): content, null at the end, undefined if there is none yet. */
static napi_value fs_recv(napi_env env, napi_callback_info info)
{
    msb_error err = MSB_ERROR_INIT;
    napi_value fs = NULL, value = NULL;
    uint8_t *buffer = allocate(PIECE, 1);
    size_t received = 0;
    msb_status status;

    arguments(env, info, 1, &fs);
    status = msb_fs_recv(to_cell(env, fs)->handle, 0, buffer, PIECE, &received, &err);
    if (!failed(env, status, &err)) {
        value = status == MSB_OK    ? copied(env, buffer, received)
                : status == MSB_EOF ? null(env)
                                    : undefined(env);
    }
    free(buffer);
    return value;
}

/* fsSend(fs, buffer, offset): how many bytes were sent, undefined if there is no room. */
static napi_value fs_send(napi_env env, napi_callback_info info)
{
    msb_error err = MSB_ERROR_INIT;
    size_t len = 0, offset, sent = 0;
    napi_value argument[3] = {NULL};
    void *data = NULL;
    msb_status status;

    arguments(env, info, 3, argument);
    MUST(napi_get_buffer_info(env, argument[1], &data, &len));
    offset = (size_t)to_u64(env, argument[2]);
    status = msb_fs_send(to_cell(env, argument[0])->handle,
                         len > offset ? (const uint8_t *)data + offset : NULL,
                         len > offset ? len - offset : 0, 0, &sent, &err);
    if (failed(env, status, &err))
        return NULL;
    return status == MSB_OK ? number(env, (double)sent) : undefined(env);
}

static napi_value fs_finish(napi_env env, napi_callback_info info)
{
    msb_error err = MSB_ERROR_INIT;
    napi_value fs = NULL;

    arguments(env, info, 1, &fs);
    return failed(env, msb_fs_finish(to_cell(env, fs)->handle, &err), &err) ? NULL : undefined(env);
}

/* fsFailed(fs): the path on which it failed, undefined if there is none. */
static napi_value fs_failed(napi_env env, napi_callback_info info)
{
    msb_fs_failure failure = MSB_FS_FAILURE_INIT;
    napi_value fs = NULL, value;

    arguments(env, info, 1, &fs);
    if (msb_fs_failed(to_cell(env, fs)->handle, &failure, NULL) != MSB_OK)
        return undefined(env);
    value = copied(env, failure.path, strlen(failure.path));
    msb_fs_failure_release(&failure);
    return value;
}

const napi_property_descriptor file_functions[] = {
    FUNCTION("fsStart", fs_start), FUNCTION("fsWait", fs_wait),     FUNCTION("fsRecv", fs_recv),
    FUNCTION("fsSend", fs_send),   FUNCTION("fsFinish", fs_finish), FUNCTION("fsFailed", fs_failed),
};
const size_t file_functions_len = sizeof file_functions / sizeof *file_functions;
