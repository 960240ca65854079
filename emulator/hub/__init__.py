"""What an IoT hub is: identities, access, twins, direct methods. It knows no protocol head."""
