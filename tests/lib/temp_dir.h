/* A fresh directory for one test, on a real disk if TMPDIR or /tmp is on one, removed with all that is
 * in it at the end. */
#ifndef VEX_TESTS_LIB_TEMP_DIR_H
#define VEX_TESTS_LIB_TEMP_DIR_H

#define VEX_TEMP_PATH_MAX 256u

struct vex_temp_dir {
    char path[VEX_TEMP_PATH_MAX];
    int fd;
};

/* Ends the program if there is no room for one: no test can go on without. */
void vex_temp_dir_make(struct vex_temp_dir *directory);
void vex_temp_dir_remove(struct vex_temp_dir *directory);

#endif
