/* names: a DNS server for the benchmark, so quick that neither side waits for it: UDP on 127.0.0.1 only.
 *
 *   names PORT DOMAIN ADDRESS
 *
 * DOMAIN has the MX record 10 mx.DOMAIN, and mx.DOMAIN the A record ADDRESS; both have no record of another type
 * (NOERROR, empty), and every other name does not exist (NXDOMAIN).
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

enum { HEADER = 12, TYPE_A = 1, TYPE_MX = 15, TTL = 60 };

/* Turns the name at `in` into text; returns its length in octets with the final zero, or 0 when it is not sound. */
static size_t read_name(const unsigned char *in, size_t room, char *text) {
    size_t at = 0, used = 0;
    while (at < room && in[at] != 0) {
        size_t length = in[at];
        if (length > 63 || at + length + 1 >= room || used + length + 1 > 255) return 0;
        if (used) text[used++] = '.';
        memcpy(text + used, in + at + 1, length);
        used += length;
        at += length + 1;
    }
    text[used] = 0;
    return at < room ? at + 1 : 0;
}

static size_t add_record(unsigned char *out, unsigned type, const unsigned char *data, size_t length) {
    unsigned char head[HEADER] = {0xc0, HEADER, 0, (unsigned char)type, 0, 1, 0, 0, 0, TTL, 0, (unsigned char)length};
    memcpy(out, head, sizeof head);
    memcpy(out + sizeof head, data, length);
    return sizeof head + length;
}

int main(int argc, char **argv) {
    struct sockaddr_in own = {.sin_family = AF_INET}, peer;
    struct in_addr address;
    unsigned char packet[1024];
    char name[256], host[256];
    int one = 1, udp = socket(AF_INET, SOCK_DGRAM, 0);
    if (argc != 4 || inet_pton(AF_INET, argv[3], &address) != 1) return 2;
    snprintf(host, sizeof host, "mx.%s", argv[2]);
    own.sin_port = htons((unsigned short)atoi(argv[1]));
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(udp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(udp, (struct sockaddr *)&own, sizeof own) != 0) {
        perror("names: bind");
        return 1;
    }
    for (;;) {
        socklen_t size = sizeof peer;
        ssize_t got = recvfrom(udp, packet, 512, 0, (struct sockaddr *)&peer, &size);
        if (got < HEADER + 5 || packet[2] & 0x80 || packet[4] != 0 || packet[5] != 1) continue;
        size_t length = read_name(packet + HEADER, (size_t)got - HEADER, name);
        if (!length || HEADER + length + 4 > (size_t)got) continue;
        unsigned char *end = packet + HEADER + length + 4; /* any EDNS record is left out of the answer */
        unsigned type = (unsigned)end[-4] << 8 | end[-3];
        int is_domain = strcasecmp(name, argv[2]) == 0, is_host = strcasecmp(name, host) == 0;
        memset(packet + 6, 0, 6);
        if (is_domain && type == TYPE_MX) {
            unsigned char exchange[] = {0, 10, 2, 'm', 'x', 0xc0, HEADER};
            end += add_record(end, TYPE_MX, exchange, sizeof exchange);
            packet[7] = 1;
        } else if (is_host && type == TYPE_A) {
            end += add_record(end, TYPE_A, (unsigned char *)&address, sizeof address);
            packet[7] = 1;
        }
        packet[2] = (unsigned char)(0x84 | (packet[2] & 1)); /* an authoritative answer */
        packet[3] = (unsigned char)(0x80 | (is_domain || is_host ? 0 : 3));
        sendto(udp, packet, (size_t)(end - packet), 0, (struct sockaddr *)&peer, size);
    }
}
