/*
 * Stand-ins for NVIDIA's daemons, told apart by the name they are called by. Each does what a hand-over meets of the real
 * one: it has the card's nodes open, has the real one's name, and ends by the way in which the real one is ended.
 *
 *   nvidia-persistenced                  has every card's node open; ends by SIGTERM
 *   nvidia-cuda-mps-control -d | -f      MPS's control daemon, in the background or not; has no card open, its server does
 *   nvidia-cuda-mps-control              reads commands from stdin and hands them to the daemon of CUDA_MPS_PIPE_DIRECTORY
 *   nvidia-cuda-mps-server               has every card's node open; started and ended by the control daemon
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static int is_card(const struct dirent *entry)
{
	const char *number = entry->d_name + strlen("nvidia");

	return !strncmp(entry->d_name, "nvidia", strlen("nvidia")) && *number && strspn(number, "0123456789") == strlen(number);
}

/* A daemon whose card is not there does not run, as the real ones. */
static void open_cards(void)
{
	struct dirent **cards;
	int i, count = scandir("/dev", &cards, is_card, alphasort), opened = 0;
	char path[300];

	for (i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "/dev/%s", cards[i]->d_name);
		if (open(path, O_RDWR) >= 0)
			opened++;
	}
	if (!opened)
		fail("no card can be opened");
}

static char control[300], pid_file[300];

static void in_pipe_directory(void)
{
	const char *folder = getenv("CUDA_MPS_PIPE_DIRECTORY");

	folder = folder ? folder : "/tmp/nvidia-mps";
	mkdir(folder, 0755);
	snprintf(control, sizeof(control), "%s/control", folder);
	snprintf(pid_file, sizeof(pid_file), "%s/nvidia-cuda-mps-control.pid", folder);
}

static int serve(int background)
{
	char line[80];
	FILE *commands, *said;
	pid_t server;

	in_pipe_directory();
	if (mkfifo(control, 0666))
		fail("an instance of this daemon is already running");
	if (background && daemon(0, 0))
		fail("daemon");
	server = fork();
	if (!server) {
		execl("/usr/bin/nvidia-cuda-mps-server", "nvidia-cuda-mps-server", NULL);
		_exit(127);
	}
	said = fopen(pid_file, "w");
	fprintf(said, "%d\n", getpid());
	fclose(said);
	/* Open for writing, too: else it would read an end after each client. */
	commands = fopen(control, "r+");
	while (commands && fgets(line, sizeof(line), commands) && strcmp(line, "quit\n"))
		;
	kill(server, SIGTERM);
	waitpid(server, NULL, 0);
	unlink(control);
	unlink(pid_file);
	return 0;
}

static int ask(void)
{
	char line[80];
	int to, length;

	in_pipe_directory();
	to = open(control, O_WRONLY | O_NONBLOCK);
	if (to < 0) {
		printf("Cannot find MPS control daemon process\n");
		return 1;
	}
	while (fgets(line, sizeof(line), stdin)) {
		length = strlen(line);
		if (length && line[length - 1] != '\n')
			line[length++] = '\n';
		if (write(to, line, length) != length)
			fail("the daemon's pipe");
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/');

	name = name ? name + 1 : argv[0];
	if (!strcmp(name, "nvidia-cuda-mps-control"))
		return argc > 1 ? serve(!strcmp(argv[1], "-d")) : ask();
	open_cards();
	/* The default of SIGTERM is the right end. */
	for (;;)
		pause();
}
