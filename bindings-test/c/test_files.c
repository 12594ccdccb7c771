/* test_files.c - promises K1 to K3 from C: files in a sandbox, by msb_fs_*. */
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static msb_fs_request request(uint32_t op, const char *path)
{
    msb_fs_request request = MSB_FS_REQUEST_INIT;

    request.op = op;
    request.path = path;
    return request;
}

static msb_fs *begin(const msb_fs_request *request)
{
    msb_fs *fs = NULL;

    CHECK_OK(msb_fs_start(shared(), request, &fs, &err));
    CHECK(fs != NULL);
    return fs;
}

/* Performs an operation that must succeed; release the result. */
static msb_fs_result perform(const msb_fs_request *request)
{
    msb_fs_result result = MSB_FS_RESULT_INIT;
    msb_fs *fs = begin(request);

    CHECK_OK(msb_fs_wait(fs, -1, &result, &err));
    CHECK_INT(msb_handle_close(fs), MSB_OK);
    return result;
}

static void done(const msb_fs_request *request)
{
    msb_fs_result result = perform(request);

    CHECK(!result.entries && !result.path && result.len == 0);
    msb_fs_result_release(&result);
}

/* Sends all bytes. */
static void send_all(msb_fs *fs, const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t sent = 0;
        CHECK_OK(msb_fs_send(fs, data, len, -1, &sent, &err));
        CHECK(sent > 0 && sent <= len);
        data += sent;
        len -= sent;
    }
}

static void write_file(const msb_fs_request *request, const void *data, size_t len)
{
    msb_fs_result result = MSB_FS_RESULT_INIT;
    msb_fs *fs = begin(request);

    send_all(fs, data, len);
    CHECK_OK(msb_fs_finish(fs, &err));
    CHECK_OK(msb_fs_wait(fs, -1, &result, &err));
    msb_fs_result_release(&result);
    CHECK_INT(msb_handle_close(fs), MSB_OK);
}

static void write_text(const char *path, const char *text)
{
    msb_fs_request write = request(MSB_FS_OP_WRITE, path);

    write_file(&write, text, strlen(text));
}

/* Reads a file of at most `size` bytes; returns its length. */
static size_t read_file(const msb_fs_request *request, uint8_t *buffer, size_t size)
{
    msb_fs *fs = begin(request);
    size_t len = 0, received = 0;
    msb_status rc;

    while ((rc = msb_fs_recv(fs, -1, buffer + len, size - len, &received, &err)) == MSB_OK)
        len += received;
    CHECK_INT(rc, MSB_EOF);
    CHECK_INT(msb_handle_close(fs), MSB_OK);
    return len;
}

static void check_text(const char *path, const char *text)
{
    msb_fs_request read = request(MSB_FS_OP_READ, path);
    char buffer[256];
    size_t len = read_file(&read, (uint8_t *)buffer, sizeof buffer - 1);

    buffer[len] = 0;
    CHECK_TEXT(buffer, text);
}

/* Performs an operation that must fail on a file. */
static void fails(const msb_fs_request *request, msb_status status, int number, const char *name,
                  const char *path)
{
    msb_fs_result result = MSB_FS_RESULT_INIT, same = result;
    msb_fs_failure failure = MSB_FS_FAILURE_INIT;
    msb_fs *fs = begin(request);

    for (int i = 0; i < 2; i++) {
        CHECK_STATUS(msb_fs_wait(fs, -1, &result, &err), status);
        CHECK_INT(err.os_error, number);
        CHECK_INT(err.origin, MSB_ORIGIN_AGENT);
    }
    CHECK(memcmp(&result, &same, sizeof result) == 0);
    CHECK_OK(msb_fs_failed(fs, &failure, &err));
    CHECK_INT(msb_handle_close(fs), MSB_OK);
    CHECK_INT(failure.os_error, number);
    CHECK_TEXT(failure.os_error_name, name);
    CHECK_TEXT(failure.path, path);
    CHECK(failure.operation[0] != 0);
    msb_fs_failure_release(&failure);
    CHECK(!failure.path && !failure.operation && !failure.owner);
    msb_fs_failure_release(&failure);
}

TEST(test_k1_files_are_written_listed_read_and_removed)
{
    static const char *names[] = {"b", "line\nbreak", "space x", "\xff\xfe"};
    msb_fs_request op = request(MSB_FS_OP_MKDIR, "/tmp/k1/deep/dir");
    msb_fs_result result;
    char path[64];

    op.flags = MSB_FS_PARENTS;
    done(&op);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "/tmp/k1/deep/dir/%s", names[i]);
        write_text(path, names[i]);
        check_text(path, names[i]);
    }
    op = request(MSB_FS_OP_LIST, "/tmp/k1/deep/dir");
    result = perform(&op);
    CHECK_INT(result.len, sizeof names / sizeof *names);
    for (size_t i = 0; i < result.len; i++) {
        CHECK_INT(result.entries[i]->struct_size, sizeof(msb_fs_entry));
        CHECK_TEXT(result.entries[i]->name, names[i]);
        CHECK_INT(result.entries[i]->kind, MSB_FS_KIND_FILE);
        CHECK_INT(result.entries[i]->size, strlen(names[i]));
    }
    msb_fs_result_release(&result);
    CHECK(!result.entries && !result.owner && result.len == 0);
    msb_fs_result_release(&result);
    op = request(MSB_FS_OP_REMOVE_DIR, "/tmp/k1");
    fails(&op, MSB_E_FILESYSTEM, ENOTEMPTY, "ENOTEMPTY", "/tmp/k1");
    op.flags = MSB_FS_RECURSIVE;
    done(&op);
    CHECK_TEXT(sh("ls -d /tmp/k1 2>/dev/null || echo gone"), "gone\n");
}

TEST(test_k1_directories_are_listed_by_pages)
{
    msb_fs_request op = request(MSB_FS_OP_OPEN_DIR, "/tmp/k1-pages");
    msb_fs_result result;
    uint64_t dir;
    size_t seen = 0, pages = 0, len;

    sh("mkdir /tmp/k1-pages; cd /tmp/k1-pages; for i in 1 2 3 4 5 6 7; do : >$i; done");
    result = perform(&op);
    dir = result.dir;
    msb_fs_result_release(&result);
    do {
        op = request(MSB_FS_OP_READ_DIR, NULL);
        op.dir = dir;
        op.limit = 3;
        result = perform(&op);
        len = result.len;
        CHECK(len <= 3);
        seen += len;
        pages++;
        msb_fs_result_release(&result);
    } while (len > 0);
    CHECK_INT(seen, 7);
    CHECK(pages >= 3);
    op = request(MSB_FS_OP_CLOSE_DIR, NULL);
    op.dir = dir;
    done(&op);
    sh("rm -r /tmp/k1-pages");
}

TEST(test_k1_attributes_and_links_are_read_and_changed)
{
    msb_fs_request op = request(MSB_FS_OP_SET_STAT, "/tmp/k1-file");
    msb_fs_result result;

    write_text("/tmp/k1-file", "12345");
    op.set = MSB_FS_SET_MODE | MSB_FS_SET_UID | MSB_FS_SET_GID | MSB_FS_SET_SIZE |
             MSB_FS_SET_ACCESSED | MSB_FS_SET_MODIFIED;
    op.mode = 0640;
    op.uid = 12;
    op.gid = 34;
    op.size = 3;
    op.accessed_s = 1;
    op.accessed_ns = 5;
    op.modified_s = -2;
    op.modified_ns = 0; /* gVisor has no fraction before 1970 */
    done(&op);
    op = request(MSB_FS_OP_SET_STAT, "/tmp/k1-file");
    op.set = MSB_FS_SET_UID;
    op.uid = 56;
    done(&op);
    op = request(MSB_FS_OP_SYMLINK, "/tmp/k1-link");
    op.to = "k1-file";
    done(&op);
    op = request(MSB_FS_OP_STAT, "/tmp/k1-link");
    result = perform(&op);
    CHECK(result.len == 1 && result.entries[0]->name == NULL);
    CHECK_INT(result.entries[0]->kind, MSB_FS_KIND_FILE);
    CHECK_INT(result.entries[0]->type_letter, '-');
    CHECK_INT(result.entries[0]->mode, 0640);
    CHECK(result.entries[0]->uid == 56 && result.entries[0]->gid == 34);
    CHECK_INT(result.entries[0]->size, 3);
    CHECK(result.entries[0]->accessed_s == 1 && result.entries[0]->accessed_ns == 5);
    CHECK_INT(result.entries[0]->modified_s, -2);
    CHECK_INT(result.entries[0]->modified_ns, 0);
    msb_fs_result_release(&result);
    op.flags = MSB_FS_NO_FOLLOW;
    result = perform(&op);
    CHECK_INT(result.entries[0]->kind, MSB_FS_KIND_SYMLINK);
    msb_fs_result_release(&result);
    op = request(MSB_FS_OP_READ_LINK, "/tmp/k1-link");
    result = perform(&op);
    CHECK_TEXT(result.path, "k1-file");
    msb_fs_result_release(&result);
    op = request(MSB_FS_OP_REAL_PATH, "/tmp/../tmp/k1-link");
    result = perform(&op);
    CHECK_TEXT(result.path, "/tmp/k1-file");
    msb_fs_result_release(&result);
    sh("rm /tmp/k1-file /tmp/k1-link");
}

TEST(test_k1_files_are_copied_renamed_and_found)
{
    msb_fs_request op = request(MSB_FS_OP_COPY, "/tmp/k1-a");
    msb_fs_result result;

    write_text("/tmp/k1-a", "text");
    op.to = "/tmp/k1-b";
    done(&op);
    op = request(MSB_FS_OP_RENAME, "/tmp/k1-b");
    op.to = "/tmp/k1-a";
    op.flags = MSB_FS_NO_REPLACE;
    fails(&op, MSB_E_FILESYSTEM, EEXIST, "EEXIST", "/tmp/k1-a");
    op.to = "/tmp/k1-c";
    done(&op);
    check_text("/tmp/k1-c", "text");
    op = request(MSB_FS_OP_EXISTS, "/tmp/k1-b");
    result = perform(&op);
    CHECK_INT(result.exists, 0);
    msb_fs_result_release(&result);
    op.path = "/tmp/k1-c";
    result = perform(&op);
    CHECK_INT(result.exists, 1);
    msb_fs_result_release(&result);
    op = request(MSB_FS_OP_REMOVE, "/tmp/k1-c");
    done(&op);
    op.path = "/tmp/k1-a";
    done(&op);
    fails(&op, MSB_E_NO_PATH, ENOENT, "ENOENT", "/tmp/k1-a");
}

TEST(test_k4_files_are_copied_between_host_and_sandbox)
{
    char folder[] = "/tmp/msb-files-XXXXXX", path[64];
    msb_fs_request op = request(MSB_FS_OP_COPY_TO_HOST, "/tmp/k4-file");

    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/file", folder);
    write_text("/tmp/k4-file", "text");
    op.to = path;
    done(&op);
    op = request(MSB_FS_OP_COPY_FROM_HOST, path);
    op.to = "/tmp/k4-copy";
    done(&op);
    check_text("/tmp/k4-copy", "text");
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
    sh("rm /tmp/k4-file /tmp/k4-copy");
}

TEST(test_k1_errors_have_a_kind_an_errno_and_a_path)
{
    msb_fs_request op = request(MSB_FS_OP_READ, "/tmp/k1-none\n");
    msb_fs_result result = MSB_FS_RESULT_INIT;
    msb_fs_failure failure = MSB_FS_FAILURE_INIT;
    msb_fs *fs;

    fails(&op, MSB_E_NO_PATH, ENOENT, "ENOENT", "/tmp/k1-none\n");
    op = request(MSB_FS_OP_LIST, "/etc/passwd");
    fails(&op, MSB_E_FILESYSTEM, ENOTDIR, "ENOTDIR", "/etc/passwd");
    sh("umask 077; mkdir /tmp/k1-secret; : >/tmp/k1-secret/file");
    op = request(MSB_FS_OP_STAT, "/tmp/k1-secret/file");
    op.user = "1000";
    fails(&op, MSB_E_PERMISSION, EACCES, "EACCES", "/tmp/k1-secret/file");
    sh("rm -r /tmp/k1-secret");
    op = request(MSB_FS_OP_STAT, "relative");
    fs = begin(&op);
    CHECK_STATUS(msb_fs_wait(fs, -1, &result, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_fs_failed(fs, &failure, &err), MSB_EOF);
    CHECK_INT(msb_handle_close(fs), MSB_OK);
}

TEST(test_k2_cancelled_write_leaves_the_old_content)
{
    msb_fs_request op = request(MSB_FS_OP_WRITE, "/tmp/k2-file");
    msb_fs *fs;

    write_text("/tmp/k2-file", "old");
    fs = begin(&op);
    send_all(fs, (const uint8_t *)"new", 3);
    check_text("/tmp/k2-file", "old");
    CHECK_INT(msb_handle_close(fs), MSB_OK);
    check_text("/tmp/k2-file", "old");
    wait_until("test \"$(ls -a /tmp | grep -c k2-file)\" = 1");
    op.flags = MSB_FS_APPEND;
    write_file(&op, "er", 2);
    check_text("/tmp/k2-file", "older");
    op.flags = MSB_FS_IN_PLACE;
    op.offset = 1;
    write_file(&op, "LD", 2);
    check_text("/tmp/k2-file", "oLDer");
    op = request(MSB_FS_OP_READ, "/tmp/k2-file");
    op.offset = 1;
    op.length = 3;
    {
        uint8_t buffer[8];
        CHECK_INT(read_file(&op, buffer, sizeof buffer), 3);
        CHECK(memcmp(buffer, "LDe", 3) == 0);
    }
    sh("rm /tmp/k2-file");
}

TEST(test_k3_large_files_pass_whole_and_descriptors_wake)
{
    size_t size = (size_t)(8 << 20) / harness_scale(), len = 0, sent = 0, received = 0;
    msb_fs_request op = request(MSB_FS_OP_WRITE, "/tmp/k3-file");
    uint8_t *data = malloc(size + 1), *back = malloc(size + 1);
    msb_fs_result result = MSB_FS_RESULT_INIT;
    msb_fs *fs = begin(&op);
    int32_t fd = -1;
    msb_status rc;

    if (!data || !back)
        abort();
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7 + (i >> 11));
    CHECK_OK(msb_handle_fd(fs, &fd, &err));
    while (len < size) {
        rc = msb_fs_send(fs, data + len, size - len, 0, &sent, &err);
        if (rc == MSB_AGAIN)
            CHECK(readable(fd, 20000));
        else {
            CHECK_INT(rc, MSB_OK);
            len += sent;
        }
    }
    CHECK_OK(msb_fs_finish(fs, &err));
    CHECK_OK(msb_fs_finish(fs, &err));
    CHECK_STATUS(msb_fs_send(fs, data, 1, -1, &sent, &err), MSB_E_INVALID);
    while ((rc = msb_fs_wait(fs, 0, &result, &err)) == MSB_AGAIN)
        CHECK(readable(fd, 20000));
    CHECK_INT(rc, MSB_OK);
    msb_fs_result_release(&result);
    CHECK_INT(msb_handle_close(fs), MSB_OK);
    op.op = MSB_FS_OP_READ;
    fs = begin(&op);
    CHECK_OK(msb_handle_fd(fs, &fd, &err));
    for (len = 0; (rc = msb_fs_recv(fs, 0, back + len, size + 1 - len, &received, &err)) != MSB_EOF;)
        if (rc == MSB_AGAIN)
            CHECK(readable(fd, 20000));
        else {
            CHECK_INT(rc, MSB_OK);
            len += received;
        }
    CHECK_INT(len, size);
    CHECK(memcmp(data, back, size) == 0);
    CHECK_INT(msb_handle_close(fs), MSB_OK);
    sh("rm /tmp/k3-file");
    free(data);
    free(back);
}

static void *close_it(void *fs)
{
    CHECK_INT(msb_handle_close(fs), MSB_OK);
    return NULL;
}

TEST(test_k3_unread_stream_neither_grows_nor_hangs_when_closed)
{
    msb_fs_request op = request(MSB_FS_OP_WRITE, "/tmp/k3-closed");
    msb_fs_result result = MSB_FS_RESULT_INIT;
    msb_fs *fs = begin(&op);
    helper closer = helper_start(close_it, fs);
    msb_status rc = msb_fs_wait(fs, -1, &result, NULL);

    helper_join(closer);
    CHECK(rc == MSB_E_CLOSED || rc == MSB_E_HANDLE);
    sh("dd if=/dev/zero of=/tmp/k3-closed bs=1M count=64 2>/dev/null");
    op.op = MSB_FS_OP_READ;
    {
        int32_t fd = -1;
        long before = status_kib(0, "VmRSS:");
        fs = begin(&op);
        CHECK_OK(msb_handle_fd(fs, &fd, &err));
        CHECK(readable(fd, 20000));
        sh("true"); /* what was in flight has arrived */
        CHECK(harness_scale() > 1 || status_kib(0, "VmRSS:") - before < 16 << 10);
        CHECK_INT(msb_handle_close(fs), MSB_OK);
    }
    sh("rm /tmp/k3-closed");
}

TEST(test_i_operations_on_files_refuse_what_they_lack)
{
    msb_fs_request op = request(MSB_FS_OP_STAT, "/"), bad;
    msb_fs_result result = MSB_FS_RESULT_INIT;
    msb_fs_failure failure = MSB_FS_FAILURE_INIT;
    uint8_t byte = 0;
    size_t len = 77;
    msb_fs *fs = NULL;

    CHECK_STATUS(msb_fs_start(shared(), NULL, &fs, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_fs_start(shared(), &op, NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_fs_start(NULL, &op, &fs, &err), MSB_E_HANDLE);
    for (uint32_t number = 0; number < 20; number++) {
        bad = request(number, NULL);
        if (number != MSB_FS_OP_READ_DIR && number != MSB_FS_OP_CLOSE_DIR)
            CHECK_STATUS(msb_fs_start(shared(), &bad, &fs, &err), MSB_E_INVALID);
        bad = request(number, "/");
        bad.flags = 1u << 8;
        CHECK_STATUS(msb_fs_start(shared(), &bad, &fs, &err), MSB_E_INVALID);
        bad = request(number, "/");
        bad.set = 1u << 6;
        CHECK_STATUS(msb_fs_start(shared(), &bad, &fs, &err), MSB_E_INVALID);
    }
    bad = request(MSB_FS_OP_RENAME, "/");
    CHECK_STATUS(msb_fs_start(shared(), &bad, &fs, &err), MSB_E_INVALID);
    bad = request(MSB_FS_OP_SET_STAT, "/");
    bad.set = MSB_FS_SET_MODIFIED;
    bad.modified_ns = 1000000000;
    CHECK_STATUS(msb_fs_start(shared(), &bad, &fs, &err), MSB_E_INVALID);
    bad = request(MSB_FS_OP_WRITE, "/tmp/none");
    bad.set = MSB_FS_SET_UID;
    CHECK_STATUS(msb_fs_start(shared(), &bad, &fs, &err), MSB_E_INVALID);
    bad = request(MSB_FS_OP_STAT, "/");
    bad.struct_size = 1;
    CHECK_STATUS(msb_fs_start(shared(), &bad, &fs, &err), MSB_E_INVALID);
    CHECK(fs == NULL);
    fs = begin(&op);
    CHECK_STATUS(msb_fs_wait(fs, -2, &result, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_fs_wait(fs, -1, NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_fs_recv(fs, -1, &byte, 1, &len, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_fs_recv(fs, -1, NULL, 1, &len, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_fs_recv(fs, -1, &byte, 0, &len, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_fs_send(fs, &byte, 1, -1, &len, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_fs_send(fs, NULL, 1, -1, &len, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_fs_finish(fs, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_fs_failed(fs, NULL, &err), MSB_E_INVALID);
    CHECK_INT(msb_handle_close(fs), MSB_OK);
    CHECK_STATUS(msb_fs_wait(fs, -1, &result, &err), MSB_E_HANDLE);
    CHECK_STATUS(msb_fs_recv(fs, -1, &byte, 1, &len, &err), MSB_E_HANDLE);
    CHECK_STATUS(msb_fs_send(fs, &byte, 1, -1, &len, &err), MSB_E_HANDLE);
    CHECK_STATUS(msb_fs_finish(fs, &err), MSB_E_HANDLE);
    CHECK_STATUS(msb_fs_failed(fs, &failure, &err), MSB_E_HANDLE);
    CHECK_INT(len, 77);
}
