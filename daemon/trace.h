/* Lines for the operator, on stderr: journald or the embedded daemon's vexd.log collect them. */
#ifndef VEX_DAEMON_TRACE_H
#define VEX_DAEMON_TRACE_H

/* One line with a UTC time stamp; a line break is added. */
void vex_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
