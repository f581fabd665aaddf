// The program of a pod's sandbox container: sleeps, and reaps where pods share a PID namespace.
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void done(int s) { (void)s; _exit(0); }
static void reap(int s) { (void)s; while (waitpid(-1, 0, WNOHANG) > 0); }

int main(void) {
	signal(SIGINT, done);
	signal(SIGTERM, done);
	signal(SIGCHLD, reap);
	for (;;) pause();
}
