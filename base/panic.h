/*
 * Assertions. VEX_ASSERT states what this program promises itself; it stays on in release builds,
 * because a daemon that goes on after a broken promise writes the damage to disk. Never use it on
 * bytes that come from a caller, a socket, a file or shared memory: those get a status.
 * VEX_CHECK_DEEP is for promises that cost more than O(1) to check; debug and sanitizer builds
 * only.
 */
#ifndef VEX_BASE_PANIC_H
#define VEX_BASE_PANIC_H

_Noreturn void vex_panic(const char *file, int line, const char *condition);

#define VEX_ASSERT(condition) ((condition) ? (void)0 : vex_panic(__FILE__, __LINE__, #condition))

#ifdef VEX_DEEP_CHECKS
#define VEX_CHECK_DEEP(condition) VEX_ASSERT(condition)
#else
#define VEX_CHECK_DEEP(condition) ((void)sizeof(!(condition)))
#endif

#endif
